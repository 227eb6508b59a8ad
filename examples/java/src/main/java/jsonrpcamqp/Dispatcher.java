package jsonrpcamqp;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.NullNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayOutputStream;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Optional;

/** What a server answers to a body: JSON-RPC 2.0 with the limits of docs/protocol.md, without input or output. */
final class Dispatcher {
    static final int MAX_BODY = 16 << 20;
    static final int MAX_BATCH = 1000;

    /** RabbitMQ 4 takes no more by default. It would close the channel of an answer that is larger. */
    static final int MAX_ANSWER = 16 << 20;

    private static final Logger LOG = System.getLogger(Dispatcher.class.getName());

    private final Map<String, Method> methods;

    Dispatcher(Map<String, Method> methods) {
        this.methods = Map.copyOf(methods);
        for (String name : this.methods.keySet()) {
            if (name.startsWith("rpc.")) {
                throw new IllegalArgumentException("names that begin with rpc. are reserved: " + name);
            }
        }
    }

    /** Runs a request or a batch; empty: it is not answered. */
    Optional<byte[]> dispatch(byte[] body) {
        if (body.length > MAX_BODY) {
            return Optional.of(invalidRequest("a body over the limit of " + MAX_BODY + " bytes"));
        }
        JsonNode request;
        try {
            request = Json.read(body);
        } catch (Json.Malformed e) {
            return Optional.of(error(NullNode.instance, -32700, "Parse error", e.getMessage()));
        }
        if (!request.isArray()) {
            return respond(request);
        }
        if (request.isEmpty()) {
            return Optional.of(invalidRequest("an empty batch"));
        }
        if (request.size() > MAX_BATCH) {
            return Optional.of(invalidRequest("a batch over the limit of " + MAX_BATCH + " members"));
        }
        return batch(request);
    }

    private Optional<byte[]> batch(JsonNode members) {
        ByteArrayOutputStream answer = new ByteArrayOutputStream();
        boolean tooLarge = false;
        for (JsonNode member : members) {
            Optional<byte[]> response = respond(member);
            if (response.isPresent()) {
                // All members run, even if their answers are of no more use.
                tooLarge |= answer.size() + response.get().length + 2 > MAX_ANSWER;
                if (!tooLarge) {
                    answer.write(answer.size() == 0 ? '[' : ',');
                    answer.writeBytes(response.get());
                }
            }
        }
        if (tooLarge) {
            return Optional.of(tooLarge(NullNode.instance));
        }
        if (answer.size() == 0) {
            return Optional.empty();
        }
        answer.write(']');
        return Optional.of(answer.toByteArray());
    }

    private Optional<byte[]> respond(JsonNode request) {
        JsonNode id = request.get("id");
        if (!Protocol.isRequest(request) || id != null && !Protocol.isId(id)) {
            return Optional.of(error(Protocol.isId(id) ? id : NullNode.instance, -32600, "Invalid Request", null));
        }
        byte[] response = run(request.get("method").textValue(), request.get("params"), id);
        return id == null ? Optional.empty() : Optional.of(response);
    }

    private byte[] run(String name, JsonNode params, JsonNode id) {
        Method method = methods.get(name);
        if (method == null) {
            return error(id, -32601, "Method not found", null);
        }
        try {
            byte[] response = run(method, params, id);
            return response.length > MAX_ANSWER ? tooLarge(id) : response;
        } catch (Throwable e) {
            // Errors of Java, too: a request that is not answered and acknowledged would come back for ever.
            LOG.log(Level.ERROR, "method " + name + " failed", e);
            return error(id, -32603, "Internal error", null);
        }
    }

    private static byte[] run(Method method, JsonNode params, JsonNode id) throws Exception {
        try {
            return response("result", Json.tree(method.call(new Params(params))), id);
        } catch (MethodError e) {
            return error(id, e.code(), e.getMessage(), e.data());
        }
    }

    private static byte[] invalidRequest(String why) {
        return error(NullNode.instance, -32600, "Invalid Request", why);
    }

    private static byte[] tooLarge(JsonNode id) {
        return error(id, -32603, "Internal error", "an answer over the limit of " + MAX_ANSWER + " bytes");
    }

    private static byte[] error(JsonNode id, int code, String message, Object data) {
        ObjectNode error = Json.object().put("code", code).put("message", message);
        if (data != null) {
            error.set("data", Json.tree(data));
        }
        return response("error", error, id);
    }

    private static byte[] response(String member, JsonNode value, JsonNode id) {
        ObjectNode response = Json.object().put("jsonrpc", "2.0");
        response.set(member, value);
        response.set("id", id);
        return Json.write(response);
    }
}
