package jsonrpcamqp;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.rabbitmq.client.AMQP.BasicProperties;
import java.io.IOException;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import jsonrpcamqp.JsonRpcException.MalformedAnswer;
import jsonrpcamqp.JsonRpcException.RemoteError;
import jsonrpcamqp.Protocol.Options;
import jsonrpcamqp.Protocol.Publication;
import jsonrpcamqp.Protocol.Route;
import jsonrpcamqp.Protocol.Sender;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/** All cases of tests/vectors, but for the specification's examples, which ExamplesTest has. */
class VectorsTest {
    interface Check {
        void of(JsonNode inputs, JsonNode expected) throws Exception;
    }

    static JsonNode file(String name) throws Exception {
        // Surefire sets basedir; without it, this folder is where the tests are started.
        Path folder = Path.of(System.getProperty("basedir", ""), "../../tests/vectors");
        return Json.read(Files.readAllBytes(folder.resolve(name)));
    }

    /** A rule that is not known here fails, so that no case is left out unnoticed. */
    private static Stream<DynamicTest> tests(String file, Map<String, Check> rules) throws Exception {
        JsonNode cases = file(file).get("cases");
        return StreamSupport.stream(cases.spliterator(), false).map(vector -> {
            String rule = vector.get("rule").textValue();
            return dynamicTest(
                    vector.get("name").textValue(),
                    () -> rules.get(rule).of(vector.get("inputs"), vector.get("expected")));
        });
    }

    @TestFactory
    Stream<DynamicTest> keys() throws Exception {
        return tests(
                "keys.json",
                Map.of(
                        "service", VectorsTest::service,
                        "client", VectorsTest::client,
                        "qid", VectorsTest::qid,
                        "keys", VectorsTest::keys,
                        "reply", VectorsTest::reply,
                        "milliseconds", VectorsTest::milliseconds));
    }

    @TestFactory
    Stream<DynamicTest> requests() throws Exception {
        return tests("requests.json", Map.of("publish", VectorsTest::publishRequest, "kind", VectorsTest::kind));
    }

    @TestFactory
    Stream<DynamicTest> answers() throws Exception {
        return tests("answers.json", Map.of("response", VectorsTest::response, "publish", VectorsTest::publishAnswer));
    }

    @TestFactory
    Stream<DynamicTest> batches() throws Exception {
        return tests("batches.json", Map.of("answer", VectorsTest::batchAnswer, "publish", VectorsTest::publishBatch));
    }

    private static void service(JsonNode inputs, JsonNode expected) {
        String service = inputs.get("service").textValue();
        if (expected.has("error")) {
            assertThrows(IllegalArgumentException.class, () -> Protocol.service(service));
            return;
        }
        assertEquals(service, Protocol.service(service));
        assertEquals(expected.get("request_queue").textValue(), Protocol.requestQueue(service));
        assertEquals(expected.get("request_binding").textValue(), Protocol.requestBinding(service));
    }

    private static void client(JsonNode inputs, JsonNode expected) {
        String user = inputs.get("user").textValue();
        String token = inputs.get("token").textValue();
        if (expected.has("error")) {
            assertThrows(IllegalArgumentException.class, () -> Protocol.client(user, token));
            return;
        }
        assertEquals(expected.get("client").textValue(), Protocol.client(user, token));
    }

    private static void qid(JsonNode inputs, JsonNode expected) throws Exception {
        assertEquals(expected.get("qid").textValue(), Protocol.qid(json(inputs.get("id_json"))));
    }

    private static void keys(JsonNode inputs, JsonNode expected) {
        String service = inputs.get("service").textValue();
        String client = inputs.get("client").textValue();
        String request = Protocol.requestKey(service, client, inputs.get("qid").textValue());
        assertEquals(expected.get("request_key").textValue(), request);
        assertEquals(expected.get("notification_key").textValue(), Protocol.notificationKey(service, client));
        assertEquals(expected.get("reply_binding").textValue(), Protocol.replyBinding(service, client));
        Optional<Route> route = Protocol.route(
                service, "jsonrpc", Set.of(), null, new Protocol.Delivery("jsonrpc", request, null));
        assertEquals(expected.get("response_key").textValue(), route.orElseThrow().routingKey());
    }

    private static void reply(JsonNode inputs, JsonNode expected) {
        JsonNode delivery = inputs.get("delivery");
        String allowed = inputs.get("reply_to_allowed").textValue();
        List<String> queues = new ArrayList<>();
        inputs.get("request_queues").forEach(queue -> queues.add(queue.textValue()));
        Optional<Route> route = Protocol.route(
                inputs.get("service").textValue(),
                inputs.get("exchange").textValue(),
                Set.copyOf(queues),
                allowed == null ? null : Pattern.compile(allowed),
                new Protocol.Delivery(
                        delivery.get("exchange").textValue(),
                        delivery.get("routing_key").textValue(),
                        delivery.get("reply_to").textValue()));
        JsonNode wanted = expected.get("route");
        assertEquals(
                wanted.isNull()
                        ? Optional.empty()
                        : Optional.of(new Route(
                                wanted.get("exchange").textValue(),
                                wanted.get("routing_key").textValue(),
                                wanted.get("mandatory").booleanValue())),
                route);
    }

    private static void milliseconds(JsonNode inputs, JsonNode expected) {
        long milliseconds = Protocol.milliseconds(duration(inputs.get("seconds")));
        assertEquals(expected.get("milliseconds").longValue(), milliseconds);
    }

    private static void publishRequest(JsonNode inputs, JsonNode expected) throws Exception {
        String method = inputs.get("method").textValue();
        JsonNode params = inputs.get("params");
        if (inputs.get("kind").textValue().equals("notification")) {
            assertPublication(expected, publishNotification(inputs));
            assertEquals(expected.get("body"), written(Request.notification(method, params).toJson(null)));
            return;
        }
        JsonNode body = Request.call(method, params).toJson(inputs.get("id"));
        if (expected.has("error")) {
            assertThrows(IllegalArgumentException.class, () -> publishCall(inputs, body));
            return;
        }
        assertPublication(expected, publishCall(inputs, body));
        assertEquals(expected.get("body"), written(body));
    }

    private static Publication publishNotification(JsonNode inputs) {
        return sender(inputs).notification(options(inputs), inputs.get("message_id").textValue());
    }

    private static Publication publishCall(JsonNode inputs, JsonNode body) {
        String number = inputs.get("number").textValue();
        return sender(inputs)
                .call(options(inputs), Protocol.qid(body.get("id")), number, duration(inputs.get("seconds")));
    }

    private static void publishBatch(JsonNode inputs, JsonNode expected) {
        JsonNode members = inputs.get("members");
        Publication publication = Protocol.isNotification(members)
                ? publishNotification(inputs)
                : publishCall(inputs, members);
        assertPublication(expected, publication);
    }

    private static Sender sender(JsonNode inputs) {
        return new Sender(
                inputs.get("exchange").textValue(),
                inputs.get("user").textValue(),
                inputs.get("token").textValue(),
                inputs.path("reply").asText().equals("direct"));
    }

    private static Options options(JsonNode inputs) {
        Map<String, Object> headers = new HashMap<>();
        inputs.path("headers").properties().forEach(header -> headers.put(header.getKey(), header.getValue().asText()));
        JsonNode persistent = inputs.get("persistent");
        return new Options(
                inputs.get("service").textValue(),
                Duration.ofSeconds(30),
                persistent == null ? null : persistent.booleanValue(),
                headers);
    }

    private static void kind(JsonNode inputs, JsonNode expected) throws Exception {
        boolean notification = false;
        String qid = "_";
        try {
            JsonNode body = Json.read(bytes(inputs));
            notification = Protocol.isNotification(body);
            qid = Protocol.qid(body.get("id"));
        } catch (Json.Malformed e) {
            // What cannot be read is a call: it is answered with an error.
        }
        assertEquals(expected.get("kind").textValue(), notification ? "notification" : "call");
        assertEquals(expected.get("qid").textValue(), notification ? null : qid);
    }

    private static void response(JsonNode inputs, JsonNode expected) throws Exception {
        JsonNode id = json(inputs.get("id_json"));
        if (expected.has("malformed")) {
            assertThrows(MalformedAnswer.class, () -> Answer.read(bytes(inputs), id));
            return;
        }
        assertAnswer(expected, Answer.read(bytes(inputs), id));
    }

    private static void batchAnswer(JsonNode inputs, JsonNode expected) {
        List<JsonNode> ids = new ArrayList<>();
        inputs.get("ids").forEach(ids::add);
        if (expected.has("malformed")) {
            assertThrows(MalformedAnswer.class, () -> Answer.readBatch(bytes(inputs), ids));
            return;
        }
        List<Answer> answers = Answer.readBatch(bytes(inputs), ids);
        assertEquals(expected.get("answers").size(), answers.size());
        for (int i = 0; i < answers.size(); i++) {
            assertAnswer(expected.get("answers").get(i), answers.get(i));
        }
    }

    private static void assertAnswer(JsonNode expected, Answer answer) {
        if (expected.has("malformed")) {
            assertThrows(MalformedAnswer.class, answer::get);
        } else if (expected.has("result")) {
            assertEquals(expected.get("result"), answer.get());
        } else {
            JsonNode error = expected.get("error");
            RemoteError thrown = assertThrows(RemoteError.class, answer::get);
            assertEquals(error.get("code").longValue(), thrown.code());
            assertEquals(error.get("message").textValue(), thrown.message());
            assertEquals(error.get("data"), thrown.data());
        }
    }

    private static void publishAnswer(JsonNode inputs, JsonNode expected) {
        JsonNode request = inputs.get("request");
        JsonNode properties = request.get("properties");
        String replyTo = properties.path("reply_to").textValue();
        String service = inputs.get("service").textValue();
        Optional<Route> route = Protocol.route(
                service,
                inputs.get("exchange").textValue(),
                Set.of(Protocol.requestQueue(service)),
                null,
                new Protocol.Delivery(
                        request.get("exchange").textValue(), request.get("routing_key").textValue(), replyTo));
        BasicProperties received = new BasicProperties.Builder()
                .correlationId(properties.path("correlation_id").textValue())
                .replyTo(replyTo)
                .userId(properties.path("user_id").textValue())
                .messageId(properties.path("message_id").textValue())
                .build();
        if (expected.isNull()) {
            assertEquals(Optional.empty(), route);
            return;
        }
        Duration left = duration(inputs.get("seconds"));
        assertPublication(expected, Protocol.answer(route.orElseThrow(), received, left));
    }

    private static void assertPublication(JsonNode expected, Publication publication) {
        assertEquals(expected.get("exchange").textValue(), publication.exchange());
        assertEquals(expected.get("routing_key").textValue(), publication.routingKey());
        assertEquals(expected.get("mandatory").booleanValue(), publication.mandatory());
        assertEquals(expected.get("properties"), written(all(publication.properties())));
    }

    private static ObjectNode all(BasicProperties properties) {
        Map<String, Object> all = new HashMap<>();
        all.put("content_type", properties.getContentType());
        all.put("content_encoding", properties.getContentEncoding());
        all.put("headers", properties.getHeaders());
        all.put("delivery_mode", properties.getDeliveryMode());
        all.put("priority", properties.getPriority());
        all.put("correlation_id", properties.getCorrelationId());
        all.put("reply_to", properties.getReplyTo());
        all.put("expiration", properties.getExpiration());
        all.put("message_id", properties.getMessageId());
        all.put("timestamp", properties.getTimestamp());
        all.put("type", properties.getType());
        all.put("user_id", properties.getUserId());
        all.put("app_id", properties.getAppId());
        all.put("cluster_id", properties.getClusterId());
        all.values().removeIf(value -> value == null);
        return (ObjectNode) Json.tree(all);
    }

    /** As the other end reads it; among trees, an int and a long of one value differ. */
    private static JsonNode written(JsonNode value) {
        try {
            return Json.read(Json.write(value));
        } catch (Json.Malformed e) {
            throw new AssertionError(e);
        }
    }

    private static byte[] bytes(JsonNode inputs) {
        return inputs.has("body_hex")
                ? HexFormat.of().parseHex(inputs.get("body_hex").textValue())
                : inputs.get("body").textValue().getBytes(StandardCharsets.UTF_8);
    }

    private static JsonNode json(JsonNode text) throws Json.Malformed, IOException {
        return Json.read(text.textValue().getBytes(StandardCharsets.UTF_8));
    }

    private static Duration duration(JsonNode seconds) {
        if (seconds == null || seconds.isNull()) {
            return null;
        }
        BigDecimal value = seconds.decimalValue();
        long whole = value.longValue();
        return Duration.ofSeconds(
                whole, value.subtract(BigDecimal.valueOf(whole)).movePointRight(9).longValue());
    }
}
