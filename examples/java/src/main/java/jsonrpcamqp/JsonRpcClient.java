package jsonrpcamqp;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Function;
import jsonrpcamqp.JsonRpcException.Interrupted;
import jsonrpcamqp.JsonRpcException.MalformedAnswer;

/**
 * Calls the methods of a service, and sends it notifications.
 *
 * <pre>{@code
 * try (JsonRpcClient client = new JsonRpcClient("amqp://localhost", "example")) {
 *     JsonNode now = client.call("time.now");
 *     int difference = client.call("subtract", List.of(42, 23), Integer.class);
 * }
 * }</pre>
 *
 * <p>Params are a list or array (by position), a map or object (by name), or null (none). Every failure is a {@link
 * JsonRpcException}. A client has one connection, for any number of threads and calls at once. It connects at its first
 * request, and again at the first one after the connection was lost. It repeats no request by itself: {@link
 * JsonRpcException.TransportException#mayHaveRun()} tells whether that would be safe.
 */
public final class JsonRpcClient implements AutoCloseable {
    private static final Duration TIMEOUT = Duration.ofSeconds(30);

    /** As many nanoseconds as the timers of Java can count. */
    private static final Duration LONGEST = Duration.ofDays(100 * 365);

    /** How answers reach the client. */
    public enum Replies {
        /** Over the exchange, to a queue of the client's own. */
        OVER_EXCHANGE,
        /** By RabbitMQ's direct reply-to, for which a user needs no right but to publish. */
        DIRECT
    }

    private final Wire wire;
    private final Protocol.Options options;

    /** Of the client rather than of a connection, so that it is unique on each of its connections too. */
    private final AtomicLong numbers;

    public JsonRpcClient(String url, String service) {
        this(url, service, Replies.OVER_EXCHANGE);
    }

    /**
     * Nothing is sent yet, and no connection made.
     *
     * @param url amqp://user:password@host:port/vhost, or amqps://
     */
    public JsonRpcClient(String url, String service, Replies replies) {
        this(
                new Wire(url, replies == Replies.DIRECT),
                new Protocol.Options(Protocol.service(service), TIMEOUT, null, Map.of()),
                new AtomicLong());
    }

    private JsonRpcClient(Wire wire, Protocol.Options options, AtomicLong numbers) {
        this.wire = wire;
        this.options = options;
        this.numbers = numbers;
    }

    // The copies share the connection of this client, and close it when they are closed.

    public JsonRpcClient withService(String service) {
        return with(new Protocol.Options(
                Protocol.service(service), options.timeout(), options.persistent(), options.headers()));
    }

    /** Gives a copy with another deadline for each request. The default is 30 seconds. */
    public JsonRpcClient withTimeout(Duration timeout) {
        if (timeout.isNegative() || timeout.isZero()) {
            throw new IllegalArgumentException("a timeout is above 0");
        }
        Duration bounded = timeout.compareTo(LONGEST) < 0 ? timeout : LONGEST;
        return with(new Protocol.Options(options.service(), bounded, options.persistent(), options.headers()));
    }

    /** Gives a copy whose requests are kept on disk or not. By default notifications are, and calls are not. */
    public JsonRpcClient withPersistence(boolean persistent) {
        return with(new Protocol.Options(options.service(), options.timeout(), persistent, options.headers()));
    }

    /** Gives a copy whose requests carry these AMQP headers, for a trace for example. */
    public JsonRpcClient withHeaders(Map<String, Object> headers) {
        return with(new Protocol.Options(
                options.service(), options.timeout(), options.persistent(), Map.copyOf(headers)));
    }

    private JsonRpcClient with(Protocol.Options changed) {
        return new JsonRpcClient(wire, changed, numbers);
    }

    public JsonNode call(String method) {
        return call(method, null);
    }

    /** Calls a method and waits for its result. */
    public JsonNode call(String method, Object params) {
        return await(start(method, params));
    }

    /** Calls a method and gives its result as a value of a type that Jackson can make of it. */
    public <T> T call(String method, Object params, Class<T> type) {
        JsonNode result = call(method, params);
        try {
            return Json.as(result, type);
        } catch (JsonProcessingException e) {
            throw new MalformedAnswer("the result is no " + type.getSimpleName() + ": " + e.getOriginalMessage());
        }
    }

    /**
     * Calls a method and does not wait. What the future fails with is a {@link JsonRpcException}, in the usual
     * wrappings of futures.
     */
    public CompletableFuture<JsonNode> submit(String method, Object params) {
        // Async: what the caller chains to the future must not keep the thread that reads the answers.
        return start(method, params).whenCompleteAsync((result, error) -> {});
    }

    /** Sends a notification, and returns when the broker has it in the queue of the service. */
    public void notify(String method, Object params) {
        await(sendNotification(Request.notification(method, params).toJson(null)));
    }

    public List<Answer> batch(Request... requests) {
        return batch(List.of(requests));
    }

    /** Sends several requests in one message, and gives the answers to its calls, in their order. */
    public List<Answer> batch(List<Request> requests) {
        if (requests.isEmpty()) {
            throw new IllegalArgumentException("an empty batch is no request");
        }
        ArrayNode members = JsonNodeFactory.instance.arrayNode();
        List<JsonNode> ids = new ArrayList<>();
        for (Request request : requests) {
            JsonNode id = JsonNodeFactory.instance.numberNode(ids.size() + 1);
            members.add(request.toJson(id));
            if (request.isCall()) {
                ids.add(id);
            }
        }
        if (Protocol.isNotification(members)) {
            await(sendNotification(members));
            return List.of();
        }
        return await(sendCall(members, numbers.incrementAndGet(), answer -> Answer.readBatch(answer, ids)));
    }

    /** Fails what is in flight, and closes the connection. */
    @Override
    public void close() {
        wire.close();
    }

    private CompletableFuture<JsonNode> start(String method, Object params) {
        long number = numbers.incrementAndGet();
        JsonNode id = JsonNodeFactory.instance.numberNode(number);
        JsonNode body = Request.call(method, params).toJson(id);
        return sendCall(body, number, answer -> Answer.read(answer, id).get());
    }

    private <T> CompletableFuture<T> sendCall(JsonNode body, long number, Function<byte[], T> reader) {
        InFlight<T> call = new InFlight<>(options, Json.write(body), "answer", reader);
        String qid = Protocol.qid(body.get("id"));
        return wire.send(call, link -> link.call(call, qid, Long.toString(number)));
    }

    private CompletableFuture<Void> sendNotification(JsonNode body) {
        InFlight<Void> notification =
                new InFlight<>(options, Json.write(body), "confirm of the broker", answer -> null);
        String number = Long.toString(numbers.incrementAndGet());
        return wire.send(notification, link -> link.notify(notification, number));
    }

    private static <T> T await(CompletableFuture<T> end) {
        try {
            return end.get();
        } catch (ExecutionException e) {
            // It was made by another thread; the one that waited is of more use in a stack trace.
            throw (JsonRpcException) e.getCause().fillInStackTrace();
        } catch (InterruptedException e) {
            end.cancel(false);
            Thread.currentThread().interrupt();
            throw new Interrupted(e);
        }
    }
}
