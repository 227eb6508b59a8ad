package jsonrpcamqp;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import jsonrpcamqp.JsonRpcException.MalformedAnswer;
import jsonrpcamqp.JsonRpcException.RemoteError;

/**
 * The answer to one call: a result, or an error. The functions are "Reading a reply" of docs/protocol.md.
 *
 * @param result null where there is an error; a result of null is a NullNode
 * @param error a RemoteError or, for a call of a batch, a MalformedAnswer; null where there is a result
 */
public record Answer(JsonNode result, JsonRpcException error) {
    /** Gives the result, or throws the error. */
    public JsonNode get() {
        if (error != null) {
            throw error;
        }
        return result;
    }

    /** Reads the answer to a single call. */
    static Answer read(byte[] body, JsonNode id) {
        JsonNode response = parse(body);
        checkForm(response);
        JsonNode answered = response.get("id");
        boolean same = answered != null && Protocol.idKey(answered).equals(Protocol.idKey(id));
        // A server that could not read the request does not know its id.
        boolean unread = answered != null && answered.isNull() && response.has("error");
        if (!same && !unread) {
            throw new MalformedAnswer("the id is not the one that was sent");
        }
        return of(response);
    }

    /** Reads the answer to a batch; gives one for each id, in the order of the ids. */
    static List<Answer> readBatch(byte[] body, List<JsonNode> ids) {
        JsonNode responses = parse(body);
        List<Answer> answers = new ArrayList<>();
        if (responses.isObject()) {
            checkForm(responses);
            if (responses.has("result")) {
                throw new MalformedAnswer("a single result for a batch");
            }
            // Nothing of the batch could be read, or the answer was too large.
            Answer one = of(responses);
            ids.forEach(id -> answers.add(one));
            return answers;
        }
        if (!responses.isArray()) {
            throw new MalformedAnswer("not an array, nor an error object");
        }
        Map<Object, Queue<JsonNode>> byId = new HashMap<>();
        for (JsonNode response : responses) {
            JsonNode id = response.get("id");
            if (id != null) {
                byId.computeIfAbsent(Protocol.idKey(id), key -> new ArrayDeque<>()).add(response);
            }
        }
        for (JsonNode id : ids) {
            // In turn, for an id may have been sent twice.
            Queue<JsonNode> candidates = byId.getOrDefault(Protocol.idKey(id), new ArrayDeque<>());
            answers.add(ofMember(candidates.poll(), id));
        }
        return answers;
    }

    private static Answer ofMember(JsonNode response, JsonNode id) {
        try {
            if (response == null) {
                throw new MalformedAnswer("no member for id " + id);
            }
            checkForm(response);
            return of(response);
        } catch (MalformedAnswer malformed) {
            return new Answer(null, malformed);
        }
    }

    private static JsonNode parse(byte[] body) {
        try {
            return Json.read(body);
        } catch (Json.Malformed e) {
            throw new MalformedAnswer("no JSON: " + e.getMessage());
        }
    }

    /** Checks all of a response but the id. */
    private static void checkForm(JsonNode response) {
        if (!response.isObject()) {
            throw new MalformedAnswer("not an object");
        }
        if (!Protocol.isVersion2(response)) {
            throw new MalformedAnswer("jsonrpc is not \"2.0\"");
        }
        if (response.has("result") == response.has("error")) {
            throw new MalformedAnswer("not exactly one of result and error");
        }
        JsonNode error = response.get("error");
        if (error == null) {
            return;
        }
        if (!error.isObject()) {
            throw new MalformedAnswer("the error is not an object");
        }
        // canConvertToLong: codes have a handful of digits, and nobody can do anything with one beyond 64 bits.
        if (!error.path("code").isIntegralNumber() || !error.path("code").canConvertToLong()) {
            throw new MalformedAnswer("the error's code is not an integer");
        }
        if (!error.path("message").isTextual()) {
            throw new MalformedAnswer("the error's message is not a string");
        }
    }

    private static Answer of(JsonNode response) {
        JsonNode error = response.get("error");
        if (error == null) {
            return new Answer(response.get("result"), null);
        }
        long code = error.get("code").longValue();
        return new Answer(null, new RemoteError(code, error.get("message").textValue(), error.get("data")));
    }
}
