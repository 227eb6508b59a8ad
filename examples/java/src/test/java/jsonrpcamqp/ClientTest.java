package jsonrpcamqp;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Delivery;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import jsonrpcamqp.JsonRpcException.ConnectionLost;
import jsonrpcamqp.JsonRpcException.Interrupted;
import jsonrpcamqp.JsonRpcException.MalformedAnswer;
import jsonrpcamqp.JsonRpcException.NotConnected;
import jsonrpcamqp.JsonRpcException.Refused;
import jsonrpcamqp.JsonRpcException.RemoteError;
import jsonrpcamqp.JsonRpcException.Timeout;
import jsonrpcamqp.JsonRpcException.Unroutable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** The client against the Python server examples/conformance_service.py, and against servers that misbehave. */
class ClientTest {
    private static Raw raw;
    private static JsonRpcClient client;

    @BeforeAll
    static void connect() throws Exception {
        raw = new Raw();
        client = new JsonRpcClient(Raw.URL, Raw.PYTHON_SERVICE);
        // Connected, so that the short deadlines of some tests are not spent on that.
        client.call("get_data");
    }

    @AfterAll
    static void disconnect() {
        if (raw != null) {
            client.close();
            raw.close();
        }
    }

    static <E extends Throwable> E failure(Class<E> type, CompletableFuture<?> future) {
        return assertInstanceOf(type, assertThrows(CompletionException.class, future::join).getCause());
    }

    @Test
    void callsByPositionByNameAndWithoutParams() {
        assertEquals(19, client.call("subtract", List.of(42, 23)).intValue());
        assertEquals(19, client.call("subtract", new int[] {42, 23}).intValue());
        assertEquals(19, client.call("subtract", Map.of("minuend", 42, "subtrahend", 23)).intValue());
        assertEquals("[\"hello\",5]", client.call("get_data").toString());
        assertTrue(client.call("update", List.of(1)).isNull());
    }

    record Point(int x, int y) {}

    @Test
    void givesAResultAsTheTypeThatIsAskedFor() {
        assertEquals(19, client.call("subtract", List.of(42, 23), Integer.class));
        assertEquals(new Point(1, 2), client.call("echo", List.of(new Point(1, 2)), Point.class));
        assertThrows(MalformedAnswer.class, () -> client.call("get_data", null, Point.class));
    }

    @Test
    void refusesWhatIsNoParams() {
        assertThrows(IllegalArgumentException.class, () -> client.call("echo", 5));
        assertThrows(IllegalArgumentException.class, () -> client.call("echo", List.of(Double.NaN)));
        assertThrows(IllegalArgumentException.class, () -> client.call("echo", List.of("\ud800")));
        assertThrows(IllegalArgumentException.class, () -> client.batch());
        assertThrows(IllegalArgumentException.class, () -> client.withTimeout(Duration.ZERO));
        assertThrows(IllegalArgumentException.class, () -> client.withService("a.request"));
    }

    @Test
    void throwsTheErrorOfTheService() {
        RemoteError error = assertThrows(RemoteError.class, () -> client.call("refuse"));
        assertEquals(1, error.code());
        assertEquals("not today", error.message());
        assertEquals("{\"when\":\"tomorrow\"}", error.data().toString());
        assertEquals("the service answered with error 1: not today", error.getMessage());
        assertTrue(List.of(error.getStackTrace()).toString().contains("ClientTest"), "the caller is in the trace");
    }

    @Test
    void throwsTheErrorsOfTheSpecification() {
        assertEquals(-32601, assertThrows(RemoteError.class, () -> client.call("absent")).code());
        assertEquals(-32602, assertThrows(RemoteError.class, () -> client.call("subtract", List.of(1))).code());
        RemoteError failed = assertThrows(RemoteError.class, () -> client.call("fail"));
        assertEquals(-32603, failed.code());
        assertFalse(failed.getMessage().contains("this text stays here"));
    }

    @Test
    void notifies() throws Exception {
        String text = "Java " + Protocol.newToken();
        client.notify("notify_hello", List.of(text));
        // It is in the queue now, and will be run; by when is not said.
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        while (!client.call("was_told").toString().contains(text)) {
            assertTrue(System.nanoTime() < deadline, "the notification was not run");
            Thread.sleep(20);
        }
    }

    @Test
    void sendsBatches() {
        List<Answer> answers = client.batch(
                Request.call("sum", List.of(1, 2, 4)),
                Request.notification("notify_hello", List.of(7)),
                Request.call("absent", null),
                Request.call("subtract", Map.of("minuend", 42, "subtrahend", 23)));
        assertEquals(3, answers.size());
        assertEquals(7, answers.get(0).get().intValue());
        assertEquals(-32601, assertThrows(RemoteError.class, answers.get(1)::get).code());
        assertEquals(19, answers.get(2).get().intValue());
    }

    @Test
    void sendsBatchesOfNotifications() {
        Request hello = Request.notification("notify_hello", List.of());
        assertEquals(List.of(), client.batch(hello, hello));
        String absent = Raw.newService();
        assertThrows(Unroutable.class, () -> client.withService(absent).batch(hello));
    }

    @Test
    void submitsWithoutWaiting() {
        CompletableFuture<JsonNode> slow = client.submit("sleep", List.of(0.3));
        CompletableFuture<JsonNode> wrong = client.submit("absent", null);
        assertEquals(-32601, failure(RemoteError.class, wrong).code());
        assertFalse(slow.isDone());
        assertEquals(0.3, slow.join().doubleValue());
    }

    /** What is chained to a future may itself wait for calls, which it could not on the thread that reads answers. */
    @Test
    void chainsCallsToFutures() {
        List<CompletableFuture<Integer>> chains = new ArrayList<>();
        for (int i = 0; i < 20; i++) {
            chains.add(client.submit("sum", List.of(i, 1))
                    .thenApply(sum -> client.call("sum", List.of(sum, 1), Integer.class)));
        }
        for (int i = 0; i < 20; i++) {
            assertEquals(i + 2, chains.get(i).join());
        }
    }

    @Test
    void keepsAThousandCallsInFlight() {
        List<CompletableFuture<JsonNode>> calls = new ArrayList<>();
        for (int i = 0; i < 1000; i++) {
            calls.add(client.submit("echo", List.of(i)));
        }
        for (int i = 0; i < 1000; i++) {
            assertEquals(i, calls.get(i).join().intValue());
        }
    }

    @Test
    void isSharedByThreads() throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(8);
        List<Future<?>> ends = new ArrayList<>();
        for (int t = 0; t < 8; t++) {
            int thread = t;
            ends.add(threads.submit(() -> {
                for (int i = 0; i < 50; i++) {
                    int value = 1000 * thread + i;
                    assertEquals(value, client.call("echo", List.of(value), Integer.class));
                    if (i % 10 == 0) {
                        client.notify("update", List.of(value));
                    }
                }
            }));
        }
        for (Future<?> end : ends) {
            end.get(20, TimeUnit.SECONDS);
        }
        threads.shutdown();
    }

    @Test
    void carriesAnyTextAndMuchOfIt() {
        String text = "Grüße, 世界, \ud83d\udc07, \"\\\u0000\n";
        assertEquals(text, client.call("echo", List.of(text)).textValue());
        String large = "ü".repeat(1 << 20);
        assertEquals(large, client.call("echo", List.of(large)).textValue());
    }

    @Test
    void endsCallsAtTheirDeadline() {
        long start = System.nanoTime();
        JsonRpcClient hurried = client.withTimeout(Duration.ofMillis(500));
        Timeout timeout = assertThrows(Timeout.class, () -> hurried.call("sleep", List.of(2)));
        assertTrue(timeout.mayHaveRun());
        assertEquals(
                "no answer came within 0.5 s (service '" + Raw.PYTHON_SERVICE
                        + "'); the method may have run, or may still",
                timeout.getMessage());
        assertTrue(System.nanoTime() - start < TimeUnit.SECONDS.toNanos(2));
        assertEquals(1, client.call("echo", List.of(1)).intValue());
    }

    @Test
    void failsAtOnceWhereNoQueueIs() {
        JsonRpcClient absent = client.withService(Raw.newService());
        long start = System.nanoTime();
        Unroutable unroutable = assertThrows(Unroutable.class, () -> absent.call("echo", List.of(1)));
        assertFalse(unroutable.mayHaveRun());
        assertThrows(Unroutable.class, () -> absent.notify("echo", List.of(1)));
        assertThrows(Unroutable.class, () -> absent.batch(Request.call("echo", List.of(1))));
        assertTrue(System.nanoTime() - start < TimeUnit.SECONDS.toNanos(5));
        assertEquals(1, client.call("echo", List.of(1)).intValue());
    }

    @Test
    void callsByDirectReplyTo() {
        try (JsonRpcClient direct = new JsonRpcClient(Raw.URL, Raw.PYTHON_SERVICE, JsonRpcClient.Replies.DIRECT)) {
            assertEquals(1, direct.call("echo", List.of(1)).intValue());
            direct.notify("update", List.of(1));
            assertThrows(Unroutable.class, () -> direct.withService(Raw.newService()).call("echo"));
        }
    }

    @Test
    void closingFailsWhatIsInFlight() {
        JsonRpcClient other = new JsonRpcClient(Raw.URL, Raw.PYTHON_SERVICE);
        other.call("get_data");
        CompletableFuture<JsonNode> call = other.submit("sleep", List.of(1));
        // Behind it on the same connection: when this is answered, the other one has been sent.
        other.call("get_data");
        assertTimeoutPreemptively(Duration.ofSeconds(5), other::close);
        assertTrue(failure(ConnectionLost.class, call).mayHaveRun());
        assertFalse(assertThrows(ConnectionLost.class, () -> other.call("get_data")).mayHaveRun());
        other.close();
    }

    @Test
    void connectsAnewAfterALoss() throws Exception {
        try (Proxy proxy = new Proxy();
                JsonRpcClient other = new JsonRpcClient(proxy.url(), Raw.PYTHON_SERVICE)) {
            other.call("get_data");
            CompletableFuture<JsonNode> call = other.submit("sleep", List.of(1));
            other.call("get_data");
            proxy.cut();
            assertTrue(failure(ConnectionLost.class, call).mayHaveRun());
            assertEquals(1, other.call("echo", List.of(1)).intValue());
            other.notify("update", null);
        }
    }

    /** Nobody reads what the client writes: the broker's memory is full, or it is gone. So the writing thread hangs. */
    @Test
    void hangsInNoStateOfTheBroker() throws Exception {
        String large = "x".repeat(40 << 20);
        try (Proxy proxy = new Proxy()) {
            // The hurried calls end long before the connection does, so that the second is not sent on the next one.
            JsonRpcClient other = new JsonRpcClient(proxy.url() + "?heartbeat=3", Raw.PYTHON_SERVICE);
            JsonRpcClient hurried = other.withTimeout(Duration.ofSeconds(1));
            other.call("get_data");
            proxy.freeze();
            CompletableFuture<JsonNode> first = hurried.submit("echo", List.of(large));
            CompletableFuture<JsonNode> second = hurried.submit("get_data", null);
            assertTrue(failure(Timeout.class, first).mayHaveRun());
            assertFalse(failure(Timeout.class, second).mayHaveRun());
            // When heartbeats are missed, there is a new connection.
            assertEquals(1, other.call("echo", List.of(1)).intValue());
            proxy.freeze();
            CompletableFuture<JsonNode> third = other.submit("echo", List.of(large));
            Thread.sleep(300);
            assertTimeoutPreemptively(Duration.ofSeconds(5), other::close);
            failure(ConnectionLost.class, third);
        }
    }

    @Test
    void saysWhereItCouldNotConnect() {
        try (JsonRpcClient other = new JsonRpcClient("amqp://alice:secret@127.0.0.1:1/", "S")) {
            NotConnected error = assertThrows(NotConnected.class, () -> other.call("m"));
            assertTrue(error.getMessage().contains("127.0.0.1:1, virtual host /, user alice"), error.getMessage());
            assertFalse(error.getMessage().contains("secret"));
            assertFalse(error.mayHaveRun());
        }
        IllegalArgumentException error = assertThrows(
                IllegalArgumentException.class, () -> new JsonRpcClient("amqp://alice:sec ret@127.0.0.1", "S"));
        assertFalse(error.toString().contains("ret@"));
        assertNull(error.getCause());
    }

    @Test
    void refusesAForeignUser() {
        try (JsonRpcClient other =
                new JsonRpcClient(Raw.URL.replaceFirst("//(?:[^@/]*@)?", "//nobody:wrong@"), "S")) {
            NotConnected error = assertThrows(NotConnected.class, () -> other.call("m"));
            assertTrue(error.getMessage().contains("ACCESS_REFUSED"), error.getMessage());
        }
    }

    @Test
    void endsAWaitThatIsInterrupted() throws Exception {
        AtomicReference<Throwable> thrown = new AtomicReference<>();
        Thread thread = new Thread(() -> {
            try {
                client.call("sleep", List.of(1));
            } catch (Interrupted e) {
                thrown.set(e);
            }
        });
        thread.start();
        thread.interrupt();
        thread.join(5000);
        assertInstanceOf(Interrupted.class, thrown.get());
    }

    @Test
    void sendsWhatTheContractSays() throws Exception {
        String service = Raw.newService();
        BlockingQueue<Delivery> requests = new LinkedBlockingQueue<>();
        raw.serve(service, requests::add);
        try {
            JsonRpcClient own = client.withService(service).withHeaders(Map.of("trace", "x"));
            CompletableFuture<JsonNode> call = own.withTimeout(Duration.ofSeconds(5)).submit("m", List.of(1));
            Delivery request = requests.poll(5, TimeUnit.SECONDS);
            BasicProperties properties = request.getProperties();
            String number = properties.getCorrelationId();
            JsonNode body = Raw.json("{'jsonrpc':'2.0','method':'m','params':[1],'id':%s}"
                    .replace('\'', '"')
                    .formatted(number));
            assertEquals(body, Raw.body(request));
            String key = request.getEnvelope().getRoutingKey();
            assertTrue(key.matches(service + "\\.request\\.[^.]+-[a-z0-9]{12}\\." + number), key);
            assertEquals("x", properties.getHeaders().get("trace").toString());
            long milliseconds = Protocol.timeout(properties.getHeaders()).orElseThrow();
            assertTrue(milliseconds > 3000 && milliseconds <= 5000, "timeout-ms " + milliseconds);
            assertEquals(Long.toString(milliseconds), properties.getExpiration());
            assertEquals(1, properties.getDeliveryMode());
            raw.answer(request, "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":%s}".formatted(number));
            assertEquals(1, call.join().intValue());

            own.notify("m", null);
            Delivery notification = requests.poll(5, TimeUnit.SECONDS);
            properties = notification.getProperties();
            assertTrue(notification.getEnvelope().getRoutingKey().matches(service + "\\.request\\.[^.]+-[a-z0-9]{12}"));
            assertEquals(2, properties.getDeliveryMode());
            assertNull(properties.getCorrelationId());
            assertNull(properties.getExpiration());
            own.withPersistence(false).notify("m", null);
            Delivery second = requests.poll(5, TimeUnit.SECONDS);
            assertEquals(1, second.getProperties().getDeliveryMode());
            assertFalse(properties.getMessageId().equals(second.getProperties().getMessageId()));
        } finally {
            raw.deleteService(service);
        }
    }

    @Test
    void believesNoMalformedAnswerAndDropsLateOnes() throws Exception {
        String service = Raw.newService();
        BlockingQueue<Delivery> requests = new LinkedBlockingQueue<>();
        raw.serve(service, requests::add);
        try {
            JsonRpcClient own = client.withService(service);
            CompletableFuture<JsonNode> call = own.submit("m", null);
            Delivery request = requests.poll(5, TimeUnit.SECONDS);
            raw.answer(request, "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":\"1\"}");
            assertTrue(failure(MalformedAnswer.class, call).mayHaveRun());

            assertThrows(
                    Timeout.class, () -> own.withTimeout(Duration.ofMillis(500)).call("m"));
            Delivery late = requests.poll(5, TimeUnit.SECONDS);
            CompletableFuture<JsonNode> next = own.submit("m", null);
            Delivery current = requests.poll(5, TimeUnit.SECONDS);
            String answer = "{\"jsonrpc\":\"2.0\",\"result\":\"%s\",\"id\":%s}";
            raw.answer(late, answer.formatted("late", late.getProperties().getCorrelationId()));
            raw.answer(current, answer.formatted("now", current.getProperties().getCorrelationId()));
            assertEquals("now", next.join().textValue());
        } finally {
            raw.deleteService(service);
        }
    }

    @Test
    void learnsWhatAFullQueueRefuses() throws Exception {
        String service = Raw.newService();
        raw.declareService(service, Map.of("x-max-length", 1, "x-overflow", "reject-publish"));
        try {
            JsonRpcClient own = client.withService(service);
            own.notify("m", null);
            Refused refused = assertThrows(Refused.class, () -> own.notify("m", null));
            assertFalse(refused.mayHaveRun());
        } finally {
            raw.deleteService(service);
        }
    }

    /** The library refuses a header of a type that AMQP has not, and that must not shift the count of confirms. */
    @Test
    void countsOnlyWhatWasPublished() throws Exception {
        JsonRpcClient strange = client.withHeaders(Map.of("thread", Thread.currentThread()));
        assertThrows(Refused.class, () -> strange.notify("update", null));
        assertThrows(Refused.class, () -> strange.call("update"));
        client.withTimeout(Duration.ofSeconds(5)).notify("update", null);
    }

    @Test
    void confirmsManyNotificationsAtOnce() throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(16);
        CountDownLatch done = new CountDownLatch(200);
        for (int i = 0; i < 200; i++) {
            threads.execute(() -> {
                client.notify("update", null);
                done.countDown();
            });
        }
        assertTrue(done.await(10, TimeUnit.SECONDS));
        threads.shutdown();
    }
}
