package jsonrpcamqp;

import com.fasterxml.jackson.databind.JsonNode;
import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.MessageProperties;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** A plain AMQP connection for tests: what no client of ours would send, and what no server of ours would answer. */
public final class Raw implements AutoCloseable {
    public static final String URL = System.getenv().getOrDefault("AMQP_URL", "amqp://localhost");
    public static final String PYTHON_SERVICE = System.getenv().getOrDefault("SERVICE", "conformance");

    public final Channel channel;
    public final BlockingQueue<Delivery> answers = new LinkedBlockingQueue<>();
    private final Connection connection;
    private String replyQueue;

    public Raw() throws Exception {
        Broker broker;
        try {
            broker = Broker.connect(Broker.factory(URL), "test");
        } catch (IOException e) {
            throw new IllegalStateException("these tests need a broker, and found none at AMQP_URL=" + URL, e);
        }
        connection = broker.connection();
        channel = connection.createChannel();
        channel.exchangeDeclare(Protocol.EXCHANGE, BuiltinExchangeType.TOPIC, true);
    }

    /** The name of a service that nobody else has. */
    public static String newService() {
        return "java-test-" + Protocol.newToken();
    }

    /** Listens for the answers of a service; gives the queue, for use as reply_to. */
    public String listen(String service, String tail) throws IOException {
        if (replyQueue == null) {
            replyQueue = channel.queueDeclare().getQueue();
            channel.basicConsume(replyQueue, true, (tag, answer) -> answers.add(answer), tag -> {});
        }
        channel.queueBind(replyQueue, Protocol.EXCHANGE, service + ".response." + tail);
        return replyQueue;
    }

    public void request(String service, String tail, String body, BasicProperties properties) throws IOException {
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        channel.basicPublish(Protocol.EXCHANGE, service + ".request" + tail, properties, bytes);
    }

    public Delivery answer() throws InterruptedException {
        Delivery answer = answers.poll(10, TimeUnit.SECONDS);
        if (answer == null) {
            throw new AssertionError("no answer within 10 s");
        }
        return answer;
    }

    public static JsonNode body(Delivery delivery) throws Exception {
        return Json.read(delivery.getBody());
    }

    public static JsonNode json(String text) throws Exception {
        return Json.read(text.getBytes(StandardCharsets.UTF_8));
    }

    static BasicProperties properties(String correlationId, String replyTo) {
        return new BasicProperties.Builder().correlationId(correlationId).replyTo(replyTo).build();
    }

    void declareService(String service, Map<String, Object> arguments) throws IOException {
        String queue = Protocol.requestQueue(service);
        channel.queueDeclare(queue, true, false, false, arguments);
        channel.queueBind(queue, Protocol.EXCHANGE, Protocol.requestBinding(service));
    }

    public void deleteService(String service) throws IOException {
        channel.queueDelete(Protocol.requestQueue(service));
    }

    /** Serves with a function that sees each request. */
    void serve(String service, Consumer<Delivery> handler) throws IOException {
        declareService(service, null);
        channel.basicConsume(
                Protocol.requestQueue(service), true, (tag, request) -> handler.accept(request), tag -> {});
    }

    /** Answers a request with any text. */
    void answer(Delivery request, String body) {
        String key = request.getEnvelope().getRoutingKey().replaceFirst("\\.request\\.", ".response.");
        BasicProperties properties = MessageProperties.MINIMAL_BASIC
                .builder()
                .correlationId(request.getProperties().getCorrelationId())
                .build();
        try {
            channel.basicPublish(Protocol.EXCHANGE, key, properties, body.getBytes(StandardCharsets.UTF_8));
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    /** Takes a request off the queue, or gives null. */
    GetResponse take(String service) throws IOException {
        return channel.basicGet(Protocol.requestQueue(service), true);
    }

    @Override
    public void close() {
        connection.abort();
    }
}
