package peers;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.RpcClientParams;
import com.rabbitmq.tools.jsonrpc.DefaultJsonRpcMapper;
import com.rabbitmq.tools.jsonrpc.JacksonJsonRpcMapper;
import com.rabbitmq.tools.jsonrpc.JsonRpcClient;
import com.rabbitmq.tools.jsonrpc.JsonRpcMapper;
import java.util.List;

/**
 * RabbitMQ's own JsonRpcClient, in its dialect of JSON-RPC 1.1: {@code JsonRpcClientPeer URL KEY MODE [EXCHANGE]}.
 *
 * <p>The modes are the mapper, {@code default} or {@code jackson}, or {@code strings}: the default mapper, and
 * {@code call(String[])}, which makes of each string what the service's description says. Each line of the input is a
 * JSON array of the method's name and its parameters; each line of the output is a result.
 */
public final class JsonRpcClientPeer {

    private static final ObjectMapper JSON = new ObjectMapper();

    private JsonRpcClientPeer() {
    }

    public static void main(String[] args) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(Lines.url(args[0]));
        boolean strings = args[2].equals("strings");
        try (Connection connection = factory.newConnection();
                JsonRpcClient client = connect(connection, args[1], args[2], args.length > 3 ? args[3] : "")) {
            Lines.pass(false, line -> call(client, strings, line));
        }
    }

    static JsonRpcClient connect(Connection connection, String key, String mode, String exchange) throws Exception {
        RpcClientParams params = new RpcClientParams()
                .channel(connection.createChannel()).exchange(exchange).routingKey(key).useMandatory().timeout(60_000);
        return new JsonRpcClient(params, mapper(mode));
    }

    @SuppressWarnings("deprecation") // It is the library's default all the same.
    static JsonRpcMapper mapper(String mode) {
        return switch (mode) {
            case "default", "strings" -> new DefaultJsonRpcMapper();
            case "jackson" -> new JacksonJsonRpcMapper();
            default -> throw new IllegalArgumentException("default, jackson or strings, not " + mode);
        };
    }

    @SuppressWarnings("deprecation")
    private static byte[] call(JsonRpcClient client, boolean strings, byte[] line) throws Exception {
        Object result;
        if (strings) {
            result = client.call(JSON.readValue(line, String[].class));
        } else {
            List<?> words = JSON.readValue(line, List.class);
            result = client.call((String) words.get(0), words.subList(1, words.size()).toArray());
        }
        return JSON.writeValueAsBytes(result);
    }
}
