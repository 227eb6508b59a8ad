package jsonrpcamqp;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.List;

/** The params of a request: by position, by name, or none. */
public final class Params {
    /** An array, an object, or null. */
    private final JsonNode params;

    Params(JsonNode params) {
        this.params = params;
    }

    /** Gives the values of these parameters, in this order, however they were sent. */
    public List<JsonNode> named(String... names) throws MethodError {
        if (params == null || params.isArray()) {
            List<JsonNode> values = list();
            if (values.size() != names.length) {
                throw MethodError.invalidParams("expected: " + String.join(", ", names));
            }
            return values;
        }
        List<JsonNode> values = new ArrayList<>();
        for (String name : names) {
            values.add(params.get(name));
        }
        if (values.contains(null) || params.size() != names.length) {
            throw MethodError.invalidParams("expected: " + String.join(", ", names));
        }
        return values;
    }

    /** Gives all values, which must have been sent by position. */
    public List<JsonNode> list() throws MethodError {
        List<JsonNode> values = new ArrayList<>();
        if (params == null) {
            return values;
        }
        if (params.isObject() && !params.isEmpty()) {
            throw MethodError.invalidParams("expected params by position");
        }
        params.forEach(values::add);
        return values;
    }
}
