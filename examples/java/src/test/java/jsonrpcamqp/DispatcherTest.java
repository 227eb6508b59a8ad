package jsonrpcamqp;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Collections;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** What a server answers to a body, beyond the examples of the specification, which ExamplesTest has. */
class DispatcherTest {
    private static final AtomicInteger RUNS = new AtomicInteger();
    private static final Dispatcher DISPATCHER = new Dispatcher(Map.of(
            "echo", params -> params.named("value").get(0),
            "count", params -> RUNS.incrementAndGet(),
            "large", params -> "x".repeat(Dispatcher.MAX_ANSWER),
            "half", params -> "x".repeat(Dispatcher.MAX_ANSWER / 2),
            "infinite", params -> Double.POSITIVE_INFINITY,
            "surrogate", params -> "\ud800",
            "object", params -> new Object(),
            "overflow", DispatcherTest::overflow,
            "refuse", params -> { throw new MethodError(7, "no", Map.of("a", 1)); },
            "garbage", params -> { throw new MethodError(7, "no", Double.NaN); }));

    private static Object overflow(Params params) throws Exception {
        return overflow(params);
    }

    private static Optional<JsonNode> dispatch(String body) throws Exception {
        Optional<byte[]> answer = DISPATCHER.dispatch(body.getBytes(StandardCharsets.UTF_8));
        return answer.isPresent() ? Optional.of(Json.read(answer.get())) : Optional.empty();
    }

    private static void assertError(int code, String id, String body) throws Exception {
        JsonNode answer = dispatch(body).orElseThrow();
        assertEquals(code, answer.path("error").path("code").intValue(), answer.toString());
        assertEquals(Raw.json(id), answer.get("id"));
        assertEquals("2.0", answer.get("jsonrpc").textValue());
        assertFalse(answer.has("result"));
    }

    /** The table "The request's body decides what comes back" is in ExamplesTest. */
    @ParameterizedTest
    @CsvSource(
            quoteCharacter = '`',
            delimiter = '|',
            value = {
                "-32700 | null | {\"jsonrpc\": \"2.0\", \"method\": \"echo\", \"id\": 1} {}",
                "-32700 | null | {\"jsonrpc\": \"2.0\", \"method\": \"echo\", \"id\": 1},",
                "-32700 | null | {\"jsonrpc\": \"2.0\", \"method\": \"echo\", \"id\": \"\\ud800\"}",
                "-32700 | null | {\"jsonrpc\": \"2.0\", \"method\": \"echo\", \"id\": 01}",
                "-32700 | null | {'jsonrpc': \"2.0\"}",
                "-32700 | null | // 5",
                "-32600 | null | null",
                "-32600 | null | {}",
                "-32600 | 1    | {\"jsonrpc\": \"2.0\", \"id\": 1}",
                "-32600 | 1    | {\"jsonrpc\": 2.0, \"method\": \"echo\", \"id\": 1}",
                "-32600 | null | {\"jsonrpc\": \"2.0\", \"method\": \"echo\", \"id\": true}",
                "-32600 | null | {\"jsonrpc\": \"2.0\", \"method\": \"echo\", \"id\": {}}",
                "-32600 | 1    | {\"jsonrpc\": \"2.0\", \"method\": \"echo\", \"params\": 5, \"id\": 1}",
                "-32602 | 1    | {\"jsonrpc\": \"2.0\", \"method\": \"echo\", \"params\": {\"other\": 5}, \"id\": 1}",
                "-32602 | 1 | {\"jsonrpc\":\"2.0\", \"method\":\"echo\", \"params\":{\"value\":5,\"a\":1}, \"id\":1}",
                "-32602 | 1    | {\"jsonrpc\": \"2.0\", \"method\": \"echo\", \"id\": 1}",
                "-32603 | 1    | {\"jsonrpc\": \"2.0\", \"method\": \"infinite\", \"id\": 1}",
                "-32603 | 1    | {\"jsonrpc\": \"2.0\", \"method\": \"surrogate\", \"id\": 1}",
                "-32603 | 1    | {\"jsonrpc\": \"2.0\", \"method\": \"object\", \"id\": 1}",
                "-32603 | 1    | {\"jsonrpc\": \"2.0\", \"method\": \"overflow\", \"id\": 1}",
                "-32603 | 1    | {\"jsonrpc\": \"2.0\", \"method\": \"garbage\", \"id\": 1}",
                "-32603 | 1    | {\"jsonrpc\": \"2.0\", \"method\": \"large\", \"id\": 1}",
                "7      | 1    | {\"jsonrpc\": \"2.0\", \"method\": \"refuse\", \"id\": 1}",
            })
    void answersErrors(int code, String id, String body) throws Exception {
        assertError(code, id, body);
    }

    @Test
    void readsUtf8WithoutAByteOrderMarkAndNothingElse() throws Exception {
        String call = "{\"jsonrpc\": \"2.0\", \"method\": \"count\", \"id\": 1}";
        assertError(-32700, "null", "\ufeff" + call);
        for (var charset : Arrays.asList(StandardCharsets.UTF_16, StandardCharsets.UTF_16LE)) {
            byte[] answer = DISPATCHER.dispatch(call.getBytes(charset)).orElseThrow();
            assertEquals(-32700, Json.read(answer).at("/error/code").intValue());
        }
        byte[] latin = "{\"jsonrpc\": \"2.0\", \"method\": \"ü\", \"id\": 1}".getBytes(StandardCharsets.ISO_8859_1);
        assertEquals(-32700, Json.read(DISPATCHER.dispatch(latin).orElseThrow()).at("/error/code").intValue());
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "null", "1", "-5", "1.5", "1.0", "1e3", "18446744073709551617", "0.1000000000000000055", "1e400",
                "\"\"", "\"a.b\"", "\"ü\\u0000\"", "\"\\ud83d\\udc07\"", "1e2147483647"
            })
    void givesTheIdAndTheValueBackAsTheyCame(String text) throws Exception {
        String call = "{\"jsonrpc\": \"2.0\", \"method\": \"echo\", \"params\": [%s], \"id\": %s}";
        JsonNode answer = dispatch(call.formatted(text, text)).orElseThrow();
        assertEquals(Raw.json(text), answer.get("id"));
        assertEquals(Raw.json(text), answer.get("result"));
    }

    @Test
    void answersNoNotificationWhateverComesOfIt() throws Exception {
        for (String method : new String[] {"absent", "refuse", "large", "infinite", "echo"}) {
            assertEquals(Optional.empty(), dispatch("{\"jsonrpc\": \"2.0\", \"method\": \"" + method + "\"}"));
        }
        int before = RUNS.get();
        String count = "{\"jsonrpc\": \"2.0\", \"method\": \"count\"}";
        assertEquals(Optional.empty(), dispatch("[" + count + "," + count + "]"));
        assertEquals(before + 2, RUNS.get());
    }

    @Test
    void keepsToItsLimits() throws Exception {
        assertError(-32600, "null", " ".repeat(Dispatcher.MAX_BODY + 1));
        assertError(-32700, "null", "[".repeat(101) + "]".repeat(101));
        assertError(-32600, "null", "[" + "1,".repeat(Dispatcher.MAX_BATCH) + "1]");
        assertEquals(Dispatcher.MAX_BATCH, dispatch("[" + "1,".repeat(Dispatcher.MAX_BATCH - 1) + "1]")
                .orElseThrow()
                .size());
        // The body is 1 level, the params are 1.
        String deep = "[".repeat(98) + "]".repeat(98);
        String call = "{\"jsonrpc\": \"2.0\", \"method\": \"echo\", \"params\": [%s], \"id\": 1}";
        assertEquals(Raw.json(deep), dispatch(call.formatted(deep)).orElseThrow().get("result"));
        assertError(-32700, "null", call.formatted("[" + deep + "]"));
        assertError(-32700, "null", call.formatted("9".repeat(5000)));
    }

    @Test
    void boundsTheAnswerToABatch() throws Exception {
        int before = RUNS.get();
        String half = "{\"jsonrpc\": \"2.0\", \"method\": \"half\", \"id\": 1},";
        String count = "{\"jsonrpc\": \"2.0\", \"method\": \"count\", \"id\": 2}";
        assertEquals(2, dispatch("[" + half + count + "]").orElseThrow().size());
        assertError(-32603, "null", "[" + half + half + count + "]");
        assertEquals(before + 2, RUNS.get());
    }

    @Test
    void isMadeOfMethodsOnly() {
        assertThrows(
                IllegalArgumentException.class,
                () -> new Dispatcher(Collections.singletonMap("rpc.discover", params -> null)));
        assertTrue(new Dispatcher(Map.of()).dispatch(new byte[0]).isPresent());
    }
}
