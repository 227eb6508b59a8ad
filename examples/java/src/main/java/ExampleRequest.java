import com.fasterxml.jackson.databind.JsonNode;
import java.time.Duration;
import java.util.Map;
import jsonrpcamqp.JsonRpcClient;

/**
 * A client of examples/example_broker.py: one notification, which nobody answers, and one call.
 *
 * <p>The broker is amqp://localhost, or what the environment has as AMQP_URL.
 */
public final class ExampleRequest {
    private ExampleRequest() {}

    public static void main(String[] arguments) {
        String url = System.getenv().getOrDefault("AMQP_URL", "amqp://localhost");
        System.out.println(ask(url, "example"));
    }

    static String ask(String url, String service) {
        try (JsonRpcClient client = new JsonRpcClient(url, service).withTimeout(Duration.ofSeconds(5))) {
            client.notify("log.write", Map.of("line", "hello AMQP backend, I am Java"));
            JsonNode now = client.call("time.now");
            return now.get("msg").asText();
        }
    }
}
