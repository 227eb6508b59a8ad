package jsonrpcamqp;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamWriteConstraints;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.cfg.JsonNodeFeature;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/**
 * JSON text, strict in both directions: what RFC 8259 calls JSON, in UTF-8 without a byte order mark, and nothing else.
 * Of bytes, Jackson would also take UTF-16, UTF-32 and a byte order mark; and it would write NaN as a string.
 */
final class Json {
    static final int MAX_DEPTH = 100;

    /** Reading a number takes time that grows with the square of its digits. */
    private static final int MAX_DIGITS = 4300;

    private static final ObjectMapper MAPPER = JsonMapper.builder(JsonFactory.builder()
                    .streamReadConstraints(StreamReadConstraints.builder()
                            .maxNestingDepth(MAX_DEPTH)
                            .maxNumberLength(MAX_DIGITS)
                            .maxNameLength(Integer.MAX_VALUE)
                            .maxStringLength(Integer.MAX_VALUE)
                            .build())
                    .streamWriteConstraints(
                            StreamWriteConstraints.builder().maxNestingDepth(MAX_DEPTH).build())
                    // Member names come from others; a table of all that were ever seen would only grow.
                    .disable(JsonFactory.Feature.CANONICALIZE_FIELD_NAMES)
                    .disable(JsonFactory.Feature.INTERN_FIELD_NAMES)
                    .build())
            .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
            // A double would turn 1e400 into Infinity, and an id of 0.1000000000000000055 into another one.
            .enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS)
            .disable(JsonNodeFeature.STRIP_TRAILING_BIGDECIMAL_ZEROES)
            .build();

    /** The bytes are no JSON, or are nested too deep. */
    static final class Malformed extends Exception {
        private static final long serialVersionUID = 1;

        Malformed(String message) {
            super(message);
        }
    }

    private Json() {}

    static JsonNode read(byte[] body) throws Malformed {
        try {
            String text =
                    StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(body)).toString();
            JsonNode value = MAPPER.readTree(text);
            if (value.isMissingNode()) {
                throw new Malformed("nothing");
            }
            // Only an escape can bring half a character, since the UTF-8 was checked above.
            if (text.contains("\\u")) {
                check(value);
            }
            return value;
        } catch (CharacterCodingException e) {
            throw new Malformed("no UTF-8");
        } catch (JsonProcessingException e) {
            // Without its location, which quotes the text.
            throw new Malformed(e.getOriginalMessage());
        } catch (ArithmeticException | IllegalArgumentException e) {
            throw new Malformed("a number or text that has no value: " + e.getMessage());
        }
    }

    /** Throws IllegalArgumentException where JSON has no form for the value, or it is nested too deep. */
    static byte[] write(JsonNode value) {
        check(value);
        try {
            return MAPPER.writeValueAsBytes(value);
        } catch (JsonProcessingException e) {
            throw new IllegalArgumentException(e.getOriginalMessage(), e);
        }
    }

    /** Throws IllegalArgumentException where Jackson knows no JSON for the value. */
    static JsonNode tree(Object value) {
        return MAPPER.valueToTree(value);
    }

    static <T> T as(JsonNode value, Class<T> type) throws JsonProcessingException {
        return MAPPER.treeToValue(value, type);
    }

    static ObjectNode object() {
        return MAPPER.createObjectNode();
    }

    /** Refuses NaN, Infinity and halves of surrogate pairs, for which JSON in UTF-8 has no form. */
    private static void check(JsonNode value) {
        if (value.isTextual()) {
            checkText(value.textValue());
        } else if ((value.isDouble() || value.isFloat()) && !Double.isFinite(value.doubleValue())) {
            throw new IllegalArgumentException("JSON has no NaN and no Infinity");
        } else if (value.isObject()) {
            for (Map.Entry<String, JsonNode> member : value.properties()) {
                checkText(member.getKey());
                check(member.getValue());
            }
        } else {
            value.forEach(Json::check);
        }
    }

    private static void checkText(String text) {
        if (!StandardCharsets.UTF_8.newEncoder().canEncode(text)) {
            throw new IllegalArgumentException("half of a surrogate pair");
        }
    }
}
