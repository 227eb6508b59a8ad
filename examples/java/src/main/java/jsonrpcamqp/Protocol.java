package jsonrpcamqp;

import com.fasterxml.jackson.databind.JsonNode;
import com.rabbitmq.client.AMQP.BasicProperties;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;
import java.util.regex.Pattern;

/**
 * The rules of docs/protocol.md about names, routing keys, properties and where answers go, as functions without input
 * or output. The rules about bodies are in {@link Answer} (what a client believes) and {@link Dispatcher} (what a
 * server answers). All are tried against tests/vectors.
 */
final class Protocol {
    static final String EXCHANGE = "jsonrpc";
    static final String DIRECT_REPLY_TO = "amq.rabbitmq.reply-to";
    static final String TIMEOUT_HEADER = "timeout-ms";

    private static final String JSON = "application/json";
    private static final int TRANSIENT = 1;
    private static final int PERSISTENT = 2;
    private static final int MAX_KEY_BYTES = 255;
    private static final int MAX_SERVICE_BYTES = 80;
    private static final int MAX_USER_BYTES = 64;
    private static final long MAX_MILLISECONDS = 4_294_967_295L;
    private static final Pattern SERVICE = Pattern.compile("[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*");
    private static final Pattern QID = Pattern.compile("[A-Za-z0-9_-]{1,64}");
    private static final Set<String> RESERVED_WORDS = Set.of("request", "response", "control");
    private static final String TOKEN_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789";
    private static final SecureRandom RANDOM = new SecureRandom();

    private Protocol() {}

    // Names and keys

    /** Gives the name back, or throws IllegalArgumentException where no service may be called so. */
    static String service(String name) {
        // The expression of "matches" is for the whole name; "$" would let a line break at the end pass.
        if (!SERVICE.matcher(name).matches()) {
            throw new IllegalArgumentException(
                    "a service's name is words of A-Z a-z 0-9 _ -, joined by dots; this is none: " + name);
        }
        if (name.length() > MAX_SERVICE_BYTES) {
            throw new IllegalArgumentException("a service's name has at most 80 bytes: " + name);
        }
        String[] words = name.split("\\.");
        if (words[0].equals("amq")) {
            throw new IllegalArgumentException("a service's name does not begin with the word amq: " + name);
        }
        for (String word : words) {
            // A service "a.request" would read the requests of service "a".
            if (RESERVED_WORDS.contains(word)) {
                throw new IllegalArgumentException("a service's name has no word '" + word + "': " + name);
            }
        }
        return name;
    }

    static String requestQueue(String service) {
        return service + "_req";
    }

    static String requestBinding(String service) {
        return service + ".request.#";
    }

    static String notificationKey(String service, String client) {
        return service + ".request." + client;
    }

    static String requestKey(String service, String client, String qid) {
        return notificationKey(service, client) + "." + qid;
    }

    static String replyBinding(String service, String client) {
        return service + ".response." + client + ".#";
    }

    /** The client's word of a key: the user, encoded so that it is one word and no wildcard, and the token. */
    static String client(String user, String token) {
        if (user == null || user.isEmpty()) {
            return "_-" + token;
        }
        StringBuilder encoded = new StringBuilder();
        for (byte octet : user.getBytes(StandardCharsets.UTF_8)) {
            char character = (char) (octet & 0xff);
            // Not URLEncoder: it leaves the dot and the star, and makes a plus of a space.
            if (character < 0x80 && (isWordCharacter(character) || character == '~')) {
                encoded.append(character);
            } else {
                encoded.append(String.format("%%%02X", (int) character));
            }
        }
        if (encoded.length() > MAX_USER_BYTES) {
            throw new IllegalArgumentException(
                    "the user's name has more than 64 bytes when it is encoded: " + encoded);
        }
        return encoded + "-" + token;
    }

    private static boolean isWordCharacter(char c) {
        return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-';
    }

    /** Draws what keeps the answers of one connection apart from those of all others. */
    static String newToken() {
        StringBuilder token = new StringBuilder();
        for (int i = 0; i < 12; i++) {
            token.append(TOKEN_CHARACTERS.charAt(RANDOM.nextInt(TOKEN_CHARACTERS.length())));
        }
        return token.toString();
    }

    /** The word of a key that stands for an id. */
    static String qid(JsonNode id) {
        if (id == null || !(id.isIntegralNumber() || id.isTextual())) {
            return "_";
        }
        String word = id.asText();
        return QID.matcher(word).matches() ? word : "_";
    }

    // Bodies

    /** Tells whether a body is a notification, or a batch of nothing but those. All else is a call. */
    static boolean isNotification(JsonNode body) {
        if (!body.isArray()) {
            return isRequest(body) && !body.has("id");
        }
        boolean all = !body.isEmpty();
        for (JsonNode member : body) {
            all &= isRequest(member) && !member.has("id");
        }
        return all;
    }

    /** Tells whether this is a request object, its id aside. */
    static boolean isRequest(JsonNode body) {
        JsonNode params = body.get("params");
        return body.isObject()
                && isVersion2(body)
                && body.path("method").isTextual()
                && (params == null || params.isContainerNode());
    }

    static boolean isVersion2(JsonNode body) {
        return "2.0".equals(body.path("jsonrpc").textValue());
    }

    /** Tells whether this may be the id of a request. */
    static boolean isId(JsonNode id) {
        return id != null && (id.isTextual() || id.isNumber() || id.isNull());
    }

    /** Something that is equal for two ids that are the same: 1, "1" and null are three ids, 1 and 1.0 are one. */
    static Object idKey(JsonNode id) {
        if (!id.isNumber()) {
            return id.isTextual() ? id.textValue() : id;
        }
        BigDecimal number = id.decimalValue();
        try {
            return number.stripTrailingZeros();
        } catch (ArithmeticException e) {
            // An exponent at the end of what an int holds.
            return number;
        }
    }

    // What is published

    /** All of a basic.publish but the body. */
    record Publication(String exchange, String routingKey, boolean mandatory, BasicProperties properties) {}

    /**
     * How to send a request.
     *
     * @param persistent null: as is the rule, which is no for calls and yes for notifications
     */
    record Options(String service, Duration timeout, Boolean persistent, Map<String, Object> headers) {}

    /**
     * One end that sends requests: a connection.
     *
     * @param user the AMQP user's name; null: not known
     * @param direct whether answers come by direct reply-to
     */
    record Sender(String exchange, String user, String token, boolean direct) {
        String client() {
            return Protocol.client(user, token);
        }

        /**
         * Describes the publish of a call.
         *
         * @param left the time until the caller gives up; null: never
         */
        Publication call(Options options, String qid, String number, Duration left) {
            Map<String, Object> headers = new HashMap<>(options.headers());
            BasicProperties.Builder properties = properties(options, TRANSIENT)
                    .correlationId(number)
                    .replyTo(direct ? DIRECT_REPLY_TO : null);
            if (left != null) {
                if (left.isNegative() || left.isZero()) {
                    throw new IllegalArgumentException("a call needs a timeout above 0");
                }
                long milliseconds = milliseconds(left);
                properties.expiration(Long.toString(milliseconds));
                headers.put(TIMEOUT_HEADER, milliseconds);
            }
            properties.headers(headers.isEmpty() ? null : headers);
            String key = requestKey(options.service(), client(), qid);
            return new Publication(exchange, key, true, properties.build());
        }

        Publication notification(Options options, String messageId) {
            BasicProperties properties = properties(options, PERSISTENT)
                    .messageId(messageId)
                    .headers(options.headers().isEmpty() ? null : options.headers())
                    .build();
            return new Publication(exchange, notificationKey(options.service(), client()), true, properties);
        }

        private BasicProperties.Builder properties(Options options, int deliveryMode) {
            if (options.persistent() != null) {
                deliveryMode = options.persistent() ? PERSISTENT : TRANSIENT;
            }
            return new BasicProperties.Builder()
                    .contentType(JSON)
                    .deliveryMode(deliveryMode)
                    .userId(user == null || user.isEmpty() ? null : user);
        }
    }

    /** The expiration and timeout-ms for what is left: rounded up, and at least 1, as 0 would mean "drop at once". */
    static long milliseconds(Duration left) {
        if (left.compareTo(Duration.ofMillis(MAX_MILLISECONDS)) >= 0) {
            return MAX_MILLISECONDS;
        }
        return Math.max(1, left.plusNanos(999_999).toMillis());
    }

    // Servers

    /** What of a delivered request decides where its answer goes. */
    record Delivery(String exchange, String routingKey, String replyTo) {}

    /** Where an answer is published. */
    record Route(String exchange, String routingKey, boolean mandatory) {}

    /**
     * Tells where an answer goes; empty: nowhere.
     *
     * @param requestQueues queues that requests are read from, besides those whose names tell
     * @param replyToAllowed the names that reply_to may have, as far as the rules leave any; null: all of those
     */
    static Optional<Route> route(
            String service, String exchange, Set<String> requestQueues, Pattern replyToAllowed, Delivery request) {
        String replyTo = request.replyTo();
        if (replyTo != null) {
            if (!mayReplyTo(replyTo, requestQueues)
                    || replyToAllowed != null
                            && !replyToAllowed.matcher(replyTo).matches()) {
                return Optional.empty();
            }
            // RabbitMQ delivers a mandatory message to a direct reply-to, and returns it as well.
            return Optional.of(new Route("", replyTo, !isDirect(replyTo)));
        }
        String prefix = service + ".request.";
        if (!request.exchange().equals(exchange) || !request.routingKey().startsWith(prefix)) {
            return Optional.empty();
        }
        // By position, since a user or a qid may be called "request".
        String key = service + ".response." + request.routingKey().substring(prefix.length());
        return fits(key) ? Optional.of(new Route(exchange, key, true)) : Optional.empty();
    }

    private static boolean fits(String key) {
        return key.getBytes(StandardCharsets.UTF_8).length <= MAX_KEY_BYTES;
    }

    private static boolean isDirect(String queue) {
        return queue.startsWith(DIRECT_REPLY_TO + ".");
    }

    private static boolean mayReplyTo(String queue, Set<String> requestQueues) {
        if (queue.isEmpty() || !fits(queue)) {
            return false;
        }
        if (requestQueues.contains(queue) || queue.endsWith("_req") || queue.endsWith("_dead")) {
            return false;
        }
        if (isDirect(queue)) {
            return isProcessAndKey(queue.substring(DIRECT_REPLY_TO.length() + 1));
        }
        return !queue.startsWith("amq.") || queue.startsWith("amq.gen-");
    }

    /** RabbitMQ takes the name apart, and closes the whole connection where it cannot. */
    private static boolean isProcessAndKey(String name) {
        String[] parts = name.split("\\.", -1);
        if (parts.length != 2 || parts[1].isEmpty()) {
            return false;
        }
        try {
            return isProcessIdentifier(ByteBuffer.wrap(Base64.getDecoder().decode(parts[0])));
        } catch (IllegalArgumentException e) {
            return false;
        }
    }

    /**
     * The external term format of Erlang: version 131; NEW_PID_EXT (88) or PID_EXT (103); the node's name, which is an
     * atom (115 and 119 with one octet of length, 100 and 118 with two); 12 or 9 octets of numbers. See
     * https://www.erlang.org/doc/apps/erts/erl_ext_dist.
     */
    private static boolean isProcessIdentifier(ByteBuffer term) {
        if (term.remaining() < 5 || (term.get() & 0xff) != 131) {
            return false;
        }
        int numbers =
                switch (term.get()) {
                    case 88 -> 12;
                    case 103 -> 9;
                    default -> -1;
                };
        int atom =
                switch (term.get()) {
                    case 115, 119 -> term.get() & 0xff;
                    case 100, 118 -> term.getShort() & 0xffff;
                    default -> -1;
                };
        return numbers >= 0 && atom >= 0 && term.remaining() == atom + numbers;
    }

    /**
     * Describes the publish of an answer.
     *
     * @param left the time until the caller gives up; null: not known
     */
    static Publication answer(Route route, BasicProperties request, Duration left) {
        BasicProperties properties = new BasicProperties.Builder()
                .contentType(JSON)
                .deliveryMode(TRANSIENT)
                .correlationId(request.getCorrelationId())
                .expiration(left == null ? null : Long.toString(milliseconds(left)))
                .build();
        return new Publication(route.exchange(), route.routingKey(), route.mandatory(), properties);
    }

    /** The milliseconds that the caller of a request gives it; empty: it did not say, or not in a valid way. */
    static OptionalLong timeout(Map<String, Object> headers) {
        Object value = headers == null ? null : headers.get(TIMEOUT_HEADER);
        boolean integer =
                value instanceof Byte || value instanceof Short || value instanceof Integer || value instanceof Long;
        long milliseconds = integer ? ((Number) value).longValue() : 0;
        return milliseconds >= 1 && milliseconds <= MAX_MILLISECONDS
                ? OptionalLong.of(milliseconds)
                : OptionalLong.empty();
    }
}
