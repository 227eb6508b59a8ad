package peers;

import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.tools.jsonrpc.JsonRpcException;
import com.rabbitmq.tools.jsonrpc.JsonRpcServer;
import java.util.List;
import java.util.Map;

/**
 * RabbitMQ's own JsonRpcServer: {@code JsonRpcServerPeer URL SERVICE default|jackson}; serves until it is killed.
 *
 * <p>It reads the queue {@code SERVICE_req}, which is bound as docs/protocol.md says. It answers only requests with a
 * reply_to and a correlation_id.
 */
public final class JsonRpcServerPeer implements Conformance {

    public static void main(String[] args) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(Lines.url(args[0]));
        try (Connection connection = factory.newConnection()) {
            Channel channel = connection.createChannel();
            String queue = args[1] + "_req";
            channel.exchangeDeclare("jsonrpc", BuiltinExchangeType.TOPIC, true);
            channel.queueDeclare(queue, true, false, true, Map.of()); // Gone with its consumer.
            channel.queueBind(queue, "jsonrpc", args[1] + ".request.#");
            JsonRpcServer server = new JsonRpcServer(
                    channel, queue, Conformance.class, new JsonRpcServerPeer(), JsonRpcClientPeer.mapper(args[2]));
            Lines.print("serving");
            server.mainloop();
        }
    }

    @Override
    public int subtract(int minuend, int subtrahend) {
        return minuend - subtrahend;
    }

    @Override
    public List<Object> get_data() {
        return List.of("hello", 5);
    }

    @Override
    public Object echo(Object value) {
        return value;
    }

    @Override
    public double sleep(double seconds) {
        try {
            Thread.sleep((long) (seconds * 1000));
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        return seconds;
    }

    @Override
    public void notify_hello(int value) {
    }

    @Override
    public void refuse() throws JsonRpcException {
        throw new JsonRpcException("not today", "Refused", 1, "not today", Map.of("when", "tomorrow"));
    }

    @Override
    public void fail() {
        throw new IllegalStateException("this text stays here");
    }
}
