import com.fasterxml.jackson.databind.JsonNode;
import java.math.BigInteger;
import java.util.List;
import java.util.Map;
import jsonrpcamqp.JsonRpcServer;
import jsonrpcamqp.Method;
import jsonrpcamqp.MethodError;
import jsonrpcamqp.Params;

/**
 * A service with the methods of the JSON-RPC 2.0 specification's examples, and a few more. It prints "serving" when it
 * serves, and stops at SIGTERM or Ctrl-C.
 *
 * <p>The broker is amqp://localhost, or what the environment has as AMQP_URL; the service is "conformance-java", or
 * what it has as SERVICE. It is in the unnamed package, so that the command is short:
 *
 * <pre>java -cp 'target/classes:target/lib/*' ExampleServer</pre>
 */
public final class ExampleServer {
    private static final Map<String, Method> METHODS = Map.of(
            "subtract", ExampleServer::subtract,
            "sum", ExampleServer::sum,
            "add", ExampleServer::add,
            "get_data", ExampleServer::getData,
            "update", params -> null,
            "notify_hello", params -> null,
            "echo", params -> params.named("value").get(0),
            "fail", ExampleServer::fail);

    private ExampleServer() {}

    public static void main(String[] arguments) throws Exception {
        String url = System.getenv().getOrDefault("AMQP_URL", "amqp://localhost");
        String service = System.getenv().getOrDefault("SERVICE", "conformance-java");
        JsonRpcServer server = new JsonRpcServer(url, service, METHODS);
        server.start();
        Runtime.getRuntime().addShutdownHook(new Thread(server::close));
        System.out.println("serving");
    }

    private static Object subtract(Params params) throws MethodError {
        List<JsonNode> values = numbers(params.named("minuend", "subtrahend"));
        JsonNode minuend = values.get(0);
        JsonNode subtrahend = values.get(1);
        return areIntegers(values)
                ? minuend.bigIntegerValue().subtract(subtrahend.bigIntegerValue())
                : (Object) (minuend.doubleValue() - subtrahend.doubleValue());
    }

    private static Object sum(Params params) throws MethodError {
        return total(params.list());
    }

    private static Object add(Params params) throws MethodError {
        return total(params.named("a", "b"));
    }

    private static Object total(List<JsonNode> values) throws MethodError {
        numbers(values);
        return areIntegers(values)
                ? values.stream().map(JsonNode::bigIntegerValue).reduce(BigInteger.ZERO, BigInteger::add)
                : (Object) values.stream().mapToDouble(JsonNode::doubleValue).sum();
    }

    private static Object getData(Params params) throws MethodError {
        params.named();
        return List.of("hello", 5);
    }

    private static Object fail(Params params) {
        throw new IllegalStateException("this text stays here");
    }

    private static List<JsonNode> numbers(List<JsonNode> values) throws MethodError {
        for (JsonNode value : values) {
            if (!value.isNumber()) {
                throw MethodError.invalidParams("expected numbers");
            }
        }
        return values;
    }

    /** Only integers are added exactly. To add 1 to 1e999999999 exactly would take all memory. */
    private static boolean areIntegers(List<JsonNode> values) {
        return values.stream().allMatch(JsonNode::isIntegralNumber);
    }
}
