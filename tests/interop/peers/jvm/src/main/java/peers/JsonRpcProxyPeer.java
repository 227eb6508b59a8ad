package peers;

import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.tools.jsonrpc.JsonRpcClient;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import tools.jackson.databind.json.JsonMapper;

/**
 * A proxy of RabbitMQ's JsonRpcClient: {@code JsonRpcProxyPeer URL KEY default|jackson [EXCHANGE]}.
 *
 * <p>Takes no input; prints what each of its calls gave, one a line.
 */
public final class JsonRpcProxyPeer {

    private JsonRpcProxyPeer() {
    }

    public static void main(String[] args) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(Lines.url(args[0]));
        try (Connection connection = factory.newConnection();
                JsonRpcClient client =
                        JsonRpcClientPeer.connect(connection, args[1], args[2], args.length > 3 ? args[3] : "")) {
            Conformance service = client.createProxy(Conformance.class);
            print(() -> service.subtract(42, 23));
            print(service::get_data);
            print(() -> service.echo("gr\u00fc\u00dfe"));
            print(() -> service.echo(1.5));
            print(() -> service.echo(true));
            print(() -> service.echo(null));
            print(() -> service.echo(List.of(1, "two")));
            print(() -> service.echo(Map.of("k", List.of(1))));
            print(() -> service.echo(12345678901L));
            print(() -> service.sleep(0.01));
            print(() -> {
                service.notify_hello(7);
                return null;
            });
            print(() -> {
                service.refuse();
                return null;
            });
            print(() -> {
                service.fail();
                return null;
            });
        }
    }

    private static void print(Callable<?> call) {
        try {
            Lines.print(new JsonMapper().writeValueAsString(call.call()));
        } catch (Exception e) {
            Lines.printFailure(e);
        }
    }
}
