package peers;

import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.RpcClient;
import com.rabbitmq.client.RpcClientParams;
import java.util.Arrays;

/** RabbitMQ's own RpcClient: {@code RpcClientPeer URL QUEUE direct|queue [--concurrent]}. */
public final class RpcClientPeer {

    private RpcClientPeer() {
    }

    public static void main(String[] args) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(Lines.url(args[0]));
        boolean concurrent = Arrays.asList(args).contains("--concurrent");
        try (Connection connection = factory.newConnection()) {
            Channel channel = connection.createChannel();
            RpcClientParams params = new RpcClientParams()
                    .channel(channel).exchange("").routingKey(args[1]).useMandatory().timeout(60_000);
            switch (args[2]) {
                case "direct" -> { } // It is the default.
                // Its documentation says that it makes the queue; it only consumes it.
                case "queue" -> params.replyTo(channel.queueDeclare().getQueue());
                default -> throw new IllegalArgumentException("direct or queue, not " + args[2]);
            }
            try (RpcClient client = new RpcClient(params)) {
                Lines.pass(concurrent, client::primitiveCall);
            }
        }
    }
}
