package jsonrpcamqp;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import jsonrpcamqp.JsonRpcException.ConnectionLost;
import jsonrpcamqp.JsonRpcException.RemoteError;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** The server, called by our client and by plain AMQP. */
class ServerTest {
    private final String service = Raw.newService();

    /** What "hold" waits for, and how often it began. */
    private final CountDownLatch release = new CountDownLatch(1);

    private final Semaphore held = new Semaphore(0);
    private final Set<String> noted = ConcurrentHashMap.newKeySet();
    private final Map<String, Method> methods = Map.of(
            "echo", params -> params.named("value").get(0),
            "note", params -> noted.add(params.named("value").get(0).asText()),
            "hold", this::hold,
            "refuse", params -> { throw new MethodError(1, "not today", Map.of("when", "tomorrow")); },
            "fail", params -> { throw new IllegalStateException("this text stays here"); });

    private Raw raw;
    private JsonRpcServer server;
    private JsonRpcClient client;

    private Object hold(Params params) throws InterruptedException {
        held.release();
        release.await();
        return "held";
    }

    @BeforeEach
    void start() throws Exception {
        raw = new Raw();
        server = new JsonRpcServer(Raw.URL, service, methods);
        server.start();
        client = new JsonRpcClient(Raw.URL, service);
    }

    @AfterEach
    void stop() throws IOException {
        release.countDown();
        if (server != null) {
            client.close();
            server.close();
            raw.deleteService(service);
        }
        if (raw != null) {
            raw.close();
        }
    }

    private static BasicProperties timeout(String correlationId, Object milliseconds) {
        return new BasicProperties.Builder()
                .correlationId(correlationId)
                .headers(Map.of("timeout-ms", milliseconds))
                .build();
    }

    private static String request(String method, String value, String id) {
        return "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":[\"%s\"]%s}"
                .formatted(method, value, id == null ? "" : ",\"id\":" + id);
    }

    /** Waits for requests that nobody is told the end of. */
    private void awaitNoted(int count) throws InterruptedException {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        while (noted.size() < count && System.nanoTime() < deadline) {
            Thread.sleep(10);
        }
    }

    @Test
    void servesOurClient() throws Exception {
        assertEquals("ü", client.call("echo", List.of("ü")).textValue());
        assertEquals(1, client.call("echo", Map.of("value", 1)).intValue());
        RemoteError refused = assertThrows(RemoteError.class, () -> client.call("refuse"));
        assertEquals(1, refused.code());
        assertEquals("not today", refused.message());
        assertEquals("tomorrow", refused.data().get("when").textValue());
        assertEquals(-32601, assertThrows(RemoteError.class, () -> client.call("absent")).code());
        assertEquals(-32602, assertThrows(RemoteError.class, () -> client.call("echo")).code());
        RemoteError failed = assertThrows(RemoteError.class, () -> client.call("fail"));
        assertEquals(-32603, failed.code());
        assertFalse((failed.message() + failed.data()).contains("text"));
        client.notify("note", List.of("a notification"));
        List<Answer> answers = client.batch(
                Request.call("echo", List.of(1)),
                Request.notification("note", List.of("b")),
                Request.call("echo", null));
        assertEquals(1, answers.get(0).get().intValue());
        assertInstanceOf(RemoteError.class, answers.get(1).error());
        awaitNoted(2);
        assertEquals(Set.of("a notification", "b"), noted);
        String large = "x".repeat(2 << 20);
        assertEquals(large, client.call("echo", List.of(large)).textValue());
    }

    @Test
    void answersManyCallsAtOnce() {
        List<CompletableFuture<JsonNode>> calls = new ArrayList<>();
        for (int i = 0; i < 1000; i++) {
            calls.add(client.submit("echo", List.of(i)));
        }
        for (int i = 0; i < 1000; i++) {
            assertEquals(i, calls.get(i).join().intValue());
        }
    }

    @Test
    void answersWithTheKeyOfTheRequest() throws Exception {
        raw.listen(service, "#");
        for (String tail : new String[] {"q538", "request", "request.request", "response.1", "a.b.c.d"}) {
            raw.request(service, "." + tail, request("echo", tail, "1"), timeout("c " + tail, 5000));
            Delivery answer = raw.answer();
            assertEquals("jsonrpc", answer.getEnvelope().getExchange());
            assertEquals(service + ".response." + tail, answer.getEnvelope().getRoutingKey());
            assertEquals(tail, Raw.body(answer).get("result").textValue());
            BasicProperties properties = answer.getProperties();
            assertEquals("c " + tail, properties.getCorrelationId());
            assertEquals("application/json", properties.getContentType());
            assertEquals(1, properties.getDeliveryMode());
            int expiration = Integer.parseInt(properties.getExpiration());
            assertTrue(expiration > 0 && expiration <= 5000, "expiration " + expiration);
            assertNull(properties.getContentEncoding());
            assertNull(properties.getReplyTo());
            assertNull(properties.getMessageId());
            assertNull(properties.getUserId());
            assertNull(properties.getHeaders());
        }
    }

    @Test
    void setsNoExpirationWhereTheCallerDidNotSay() throws Exception {
        String queue = raw.listen(service, "#");
        raw.request(service, ".1", request("echo", "a", "1"), Raw.properties(null, null));
        Delivery answer = raw.answer();
        assertNull(answer.getProperties().getExpiration());
        assertNull(answer.getProperties().getCorrelationId());
        for (Object nonsense : new Object[] {0, -1, 4294967296L, "5000", 1.5, true}) {
            raw.request(service, ".1", request("echo", "a", "1"), timeout("c", nonsense));
            assertNull(raw.answer().getProperties().getExpiration(), "timeout-ms " + nonsense);
        }
        for (Object integer : new Object[] {(short) 5000, 5000, 4294967295L}) {
            raw.request(service, ".1", request("echo", "a", "1"), timeout("c", integer));
            assertTrue(Long.parseLong(raw.answer().getProperties().getExpiration()) > 0);
        }
        // The pattern of others: through the default exchange, with a reply_to.
        raw.channel.basicPublish(
                "", service + "_req", Raw.properties("c", queue), request("echo", "a", "1").getBytes());
        answer = raw.answer();
        assertEquals("", answer.getEnvelope().getExchange());
        assertEquals("c", answer.getProperties().getCorrelationId());
    }

    @Test
    void answersDirectReplyTo() throws Exception {
        raw.channel.basicConsume(Protocol.DIRECT_REPLY_TO, true, (tag, answer) -> raw.answers.add(answer), tag -> {});
        raw.request(service, ".1", request("echo", "a", "1"), Raw.properties("c", Protocol.DIRECT_REPLY_TO));
        assertEquals("a", Raw.body(raw.answer()).get("result").textValue());
    }

    /** A request whose answer goes nowhere runs all the same, and the server serves on. */
    @Test
    void writesToNoQueueThatItMustNot() throws Exception {
        raw.listen(service, "1");
        String other = Raw.newService();
        raw.declareService(other, null);
        String[] refused = {"", "amq.topic", "amq.rabbitmq.reply-to.xyz.k", "x_dead", service + "_req", other + "_req"};
        for (String replyTo : refused) {
            raw.request(service, ".1", request("note", "to " + replyTo, "1"), Raw.properties("c", replyTo));
        }
        raw.request(service, "", request("note", "bare", "1"), Raw.properties("c", null));
        raw.request(service, ".1", request("note", "absent", "1"), Raw.properties("c", "absent.replies"));
        awaitNoted(refused.length + 2);
        assertEquals(refused.length + 2, noted.size(), noted.toString());
        assertNull(raw.take(other));
        raw.deleteService(other);
        raw.request(service, ".1", request("echo", "end", "1"), Raw.properties("c", null));
        assertEquals("end", Raw.body(raw.answer()).get("result").textValue());
        assertTrue(raw.answers.isEmpty());
    }

    @Test
    void skipsWhatExpiredWhileItWaited() throws Exception {
        raw.listen(service, "#");
        for (int i = 0; i < 8; i++) {
            raw.request(service, ".hold", request("hold", "", "1"), Raw.properties("h", null));
        }
        assertTrue(held.tryAcquire(8, 5, TimeUnit.SECONDS), "eight handlers are busy");
        raw.request(service, ".1", request("note", "late", "1"), timeout("late", 100));
        raw.request(service, ".1", request("note", "in time", "1"), timeout("in time", 20000));
        Thread.sleep(1000);
        release.countDown();
        for (int i = 0; i < 9; i++) {
            assertFalse(raw.answer().getProperties().getCorrelationId().equals("late"));
        }
        assertEquals(Set.of("in time"), noted);
    }

    @Test
    void finishesWhatRunsAndGivesBackTheRest() throws Exception {
        raw.listen(service, "#");
        for (int i = 0; i < 20; i++) {
            raw.request(service, ".1", request("hold", "", Integer.toString(i)), Raw.properties("h" + i, null));
        }
        assertTrue(held.tryAcquire(8, 5, TimeUnit.SECONDS));
        CompletableFuture<Void> closing = CompletableFuture.runAsync(server::close);
        Thread.sleep(200);
        assertFalse(closing.isDone());
        release.countDown();
        closing.get(5, TimeUnit.SECONDS);
        for (int i = 0; i < 8; i++) {
            assertEquals("held", Raw.body(raw.answer()).get("result").textValue());
        }
        for (int i = 8; i < 20; i++) {
            GetResponse back = raw.take(service);
            assertTrue(back.getEnvelope().isRedeliver());
        }
        assertNull(raw.take(service));
        assertTrue(raw.answers.isEmpty());
    }

    @Test
    void servesAgainAfterALoss() throws Exception {
        String other = Raw.newService();
        try (Proxy proxy = new Proxy()) {
            JsonRpcServer remote = new JsonRpcServer(proxy.url(), other, methods);
            remote.start();
            CompletableFuture<JsonNode> call = client.withService(other).submit("hold", null);
            assertTrue(held.tryAcquire(5, TimeUnit.SECONDS));
            proxy.cut();
            // It was not acknowledged, so it is delivered again, and runs again.
            assertTrue(held.tryAcquire(10, TimeUnit.SECONDS));
            release.countDown();
            assertEquals("held", call.join().textValue());
            raw.deleteService(other);
            assertEquals(1, callUntilServed(other));
            remote.close();
        } finally {
            raw.deleteService(other);
        }
    }

    /** The queue was deleted, so the server has to declare it anew; until then, calls are unroutable. */
    private int callUntilServed(String other) throws InterruptedException {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        while (true) {
            try {
                return client.withService(other).call("echo", List.of(1)).intValue();
            } catch (JsonRpcException.Unroutable e) {
                assertTrue(System.nanoTime() < deadline, "the queue was not declared anew");
                Thread.sleep(50);
            }
        }
    }

    @Test
    void failsToStartWhereNoBrokerIs() {
        JsonRpcServer nowhere = new JsonRpcServer("amqp://127.0.0.1:1", service, methods);
        assertThrows(IOException.class, nowhere::start);
        nowhere.close();
    }

    @Test
    void endsTheCallsOfAClosedClient() throws Exception {
        CompletableFuture<JsonNode> call = client.submit("hold", null);
        assertTrue(held.tryAcquire(5, TimeUnit.SECONDS));
        client.close();
        ClientTest.failure(ConnectionLost.class, call);
    }
}
