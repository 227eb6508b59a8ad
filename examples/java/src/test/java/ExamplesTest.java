import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Delivery;
import java.io.BufferedReader;
import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import jsonrpcamqp.JsonRpcServer;
import jsonrpcamqp.Raw;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** ExampleServer as a process of its own, with all examples of the specification, and ExampleRequest. */
class ExamplesTest {
    private static final String SERVICE = Raw.newService();
    private static Process process;
    private static Raw raw;

    @BeforeAll
    static void start() throws Exception {
        raw = new Raw();
        ProcessBuilder command = new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-cp",
                String.join(File.pathSeparator, "target/classes", "target/lib/*"),
                "ExampleServer");
        command.environment().put("AMQP_URL", Raw.URL);
        command.environment().put("SERVICE", SERVICE);
        command.redirectError(new File("target/ExampleServer.log"));
        process = command.start();
        BufferedReader output = process.inputReader();
        assertEquals("serving", output.readLine(), () -> log());
    }

    private static String log() {
        try {
            return Files.readString(Path.of("target/ExampleServer.log"));
        } catch (Exception e) {
            return e.toString();
        }
    }

    @AfterAll
    static void stop() throws Exception {
        if (process != null) {
            process.destroy();
            assertTrue(process.waitFor(10, TimeUnit.SECONDS), "it stops at SIGTERM");
            // As all of Java does: 128 and the number of the signal.
            assertEquals(143, process.exitValue());
            raw.deleteService(SERVICE);
        }
        if (raw != null) {
            raw.close();
        }
    }

    private static BasicProperties number(int number) {
        return new BasicProperties.Builder().correlationId(Integer.toString(number)).build();
    }

    @Test
    void answersTheExamplesOfTheSpecification() throws Exception {
        raw.listen(SERVICE, "specification");
        JsonNode examples = Raw.json(
                Files.readString(Path.of(System.getProperty("basedir", ""), "../../tests/vectors/specification.json")))
                .get("examples");
        Map<Integer, JsonNode> expected = new HashMap<>();
        for (int i = 0; i < examples.size(); i++) {
            raw.request(SERVICE, ".specification", examples.get(i).get("request").textValue(), number(i));
            if (!examples.get(i).get("response").isNull()) {
                expected.put(i, examples.get(i).get("response"));
            }
        }
        assertTrue(expected.size() > 10);
        while (!expected.isEmpty()) {
            Delivery answer = raw.answer();
            JsonNode response = expected.remove(Integer.valueOf(answer.getProperties().getCorrelationId()));
            assertEquals(members(response), members(withoutData(Raw.body(answer))));
        }
        Thread.sleep(200);
        assertTrue(raw.answers.isEmpty(), "a notification was answered");
    }

    /** The answers to a batch may come in any order; no two of those in the examples are equal but the invalid ones. */
    private static Set<JsonNode> members(JsonNode answer) {
        return answer.isArray() ? new HashSet<>(answer.valueStream().toList()) : Set.of(answer);
    }

    private static JsonNode withoutData(JsonNode answer) {
        answer.findParents("data").forEach(error -> ((ObjectNode) error).remove("data"));
        return answer;
    }

    /** "The request's body decides what comes back" of docs/protocol.md. */
    @Test
    void answersTheExamplesOfTheContract() throws Exception {
        raw.listen(SERVICE, "contract");
        String add = "{\"jsonrpc\": \"2.0\", \"method\": \"add\", ";
        for (List<String> row : List.of(
                List.of("", "-32700", "null"),
                List.of(add + "\"params\": [1", "-32700", "null"),
                List.of(add + "\"params\": [NaN, 1], \"id\": 1}", "-32700", "null"),
                List.of("[]", "-32600", "null"),
                List.of("5", "-32600", "null"),
                List.of("{\"jsonrpc\": \"1.0\", \"method\": \"add\", \"id\": 1}", "-32600", "1"),
                List.of(add + "\"params\": null, \"id\": \"q538\"}", "-32600", "\"q538\""),
                List.of(add + "\"params\": [1, 2], \"id\": [4]}", "-32600", "null"),
                List.of("{\"jsonrpc\": \"2.0\", \"method\": 1}", "-32600", "null"),
                List.of("{\"jsonrpc\": \"2.0\", \"method\": \"absent\", \"id\": 5}", "-32601", "5"),
                List.of("{\"jsonrpc\": \"2.0\", \"method\": \"rpc.absent\", \"id\": null}", "-32601", "null"),
                List.of(add + "\"params\": [1], \"id\": 7}", "-32602", "7"),
                List.of("{\"jsonrpc\": \"2.0\", \"method\": \"fail\", \"id\": 8}", "-32603", "8"))) {
            raw.request(SERVICE, ".contract", row.get(0), number(1));
            JsonNode answer = Raw.body(raw.answer());
            assertEquals(Integer.valueOf(row.get(1)), answer.at("/error/code").intValue(), row.get(0));
            assertEquals(Raw.json(row.get(2)), answer.get("id"), row.get(0));
        }
        raw.request(SERVICE, ".contract", add + "\"params\": [0.5, 1], \"id\": \"a.b\"}", number(1));
        assertEquals(Raw.json("{\"jsonrpc\": \"2.0\", \"result\": 1.5, \"id\": \"a.b\"}"), Raw.body(raw.answer()));
        raw.request(SERVICE, ".contract", add + "\"params\": [9007199254740993, 1], \"id\": 1}", number(1));
        assertEquals(9007199254740994L, Raw.body(raw.answer()).get("result").longValue());
        raw.request(SERVICE, ".contract", add + "\"params\": [1e308, 1e308], \"id\": 1}", number(1));
        assertEquals(-32603, Raw.body(raw.answer()).at("/error/code").intValue());
    }

    @Test
    void requestsTheTime() throws Exception {
        String service = Raw.newService();
        Set<String> lines = new HashSet<>();
        JsonRpcServer server = new JsonRpcServer(
                Raw.URL,
                service,
                Map.of(
                        "log.write", params -> lines.add(params.named("line").get(0).textValue()),
                        "time.now", params -> Map.of("msg", "five past four")));
        server.start();
        try {
            assertEquals("five past four", ExampleRequest.ask(Raw.URL, service));
        } finally {
            server.close();
            raw.deleteService(service);
        }
        assertEquals(Set.of("hello AMQP backend, I am Java"), lines);
    }
}
