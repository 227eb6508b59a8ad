package jsonrpcamqp;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;

/** A member of a batch. */
public record Request(String method, JsonNode params, boolean isCall) {
    /**
     * A request that is answered.
     *
     * @param params a list or array (by position), a map or object (by name), or null (none)
     */
    public static Request call(String method, Object params) {
        return new Request(method, structure(params), true);
    }

    /** A request that is not answered; the parameters are as for a call. */
    public static Request notification(String method, Object params) {
        return new Request(method, structure(params), false);
    }

    private static JsonNode structure(Object params) {
        JsonNode tree = Json.tree(params);
        if (tree.isNull()) {
            return null;
        }
        if (!tree.isContainerNode()) {
            throw new IllegalArgumentException("params are a list (by position), a map (by name) or null (none)");
        }
        return tree;
    }

    /** The request object; the id is for calls only. */
    ObjectNode toJson(JsonNode id) {
        ObjectNode request = Json.object().put("jsonrpc", "2.0").put("method", method);
        if (params != null) {
            request.set("params", params);
        }
        if (isCall) {
            request.set("id", id);
        }
        return request;
    }
}
