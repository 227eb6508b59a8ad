import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.tools.jsonrpc.JsonRpcClient;
import com.rabbitmq.tools.jsonrpc.JsonRpcServer;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Arrays;
import java.util.Locale;
import java.util.concurrent.atomic.AtomicInteger;

/** The JSON-RPC classes of RabbitMQ's own Java client over the line protocol: JavaRpc server|client QUEUE. */
public class JavaRpc {
    public interface Service {
        int add(int a, int b);
    }

    public static class Implementation implements Service {
        public int add(int a, int b) {
            return a + b;
        }
    }

    public static void main(String[] arguments) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(System.getenv("BENCH_AMQP_URL"));
        Connection connection = factory.newConnection();
        Channel channel = connection.createChannel();
        String queue = arguments[1];
        channel.queueDeclare(queue, false, false, true, null);
        if (arguments[0].equals("server")) {
            channel.basicQos(256);
            JsonRpcServer server = new JsonRpcServer(channel, queue, Service.class, new Implementation());
            System.out.println("@@READY");
            server.mainloop();
            return;
        }
        JsonRpcClient client = new JsonRpcClient(channel, "", queue, 30000);
        System.out.println("@@READY");
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        String line;
        while ((line = input.readLine()) != null) {
            String[] words = line.trim().split(" ");
            if (!words[0].equals("run")) {
                break;
            }
            run(client, Integer.parseInt(words[1]), Integer.parseInt(words[2]));
        }
        System.exit(0);
    }

    private static void run(JsonRpcClient client, int calls, int inFlight) throws InterruptedException {
        long[] times = new long[calls];
        AtomicInteger next = new AtomicInteger();
        AtomicInteger bad = new AtomicInteger();
        Runnable work = () -> {
            int i;
            while ((i = next.getAndIncrement()) < calls) {
                long start = System.nanoTime();
                try {
                    Object result = client.call("add", new Object[] {i, 1});
                    if (((Number) result).intValue() != i + 1) {
                        bad.incrementAndGet();
                    }
                } catch (Exception exception) {
                    bad.incrementAndGet();
                }
                times[i] = System.nanoTime() - start;
            }
        };
        long start = System.nanoTime();
        Thread[] threads = new Thread[inFlight];
        for (int i = 0; i < inFlight; i++) {
            threads[i] = new Thread(work);
            threads[i].start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        double elapsed = (System.nanoTime() - start) / 1e9;
        Arrays.sort(times);
        System.out.printf(Locale.ROOT, "@@{\"n\":%d,\"elapsed\":%.6f,\"bad\":%d,\"p50_us\":%.2f,\"p90_us\":%.2f,"
            + "\"p99_us\":%.2f,\"p999_us\":%.2f,\"max_us\":%.2f}%n", calls, elapsed, bad.get(),
            part(times, 0.5), part(times, 0.9), part(times, 0.99), part(times, 0.999), times[calls - 1] / 1e3);
        System.out.flush();
    }

    private static double part(long[] times, double part) {
        return times[(int) (times.length * part)] / 1e3;
    }
}
