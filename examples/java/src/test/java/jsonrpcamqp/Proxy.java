package jsonrpcamqp;

import com.rabbitmq.client.ConnectionFactory;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;

/** Stands between an end and the broker, so that a test can cut the connection, or let it hang. */
final class Proxy implements AutoCloseable {
    private final ServerSocket server = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
    private final List<Socket> sockets = new CopyOnWriteArrayList<>();
    private final ConnectionFactory broker = Broker.factory(Raw.URL);
    private final Set<Socket> frozen = ConcurrentHashMap.newKeySet();

    Proxy() throws IOException {
        start(this::accept);
    }

    String url() {
        return Raw.URL.replaceFirst("(//(?:[^@/]*@)?)[^/]*", "$1127.0.0.1:" + server.getLocalPort());
    }

    /** Ends all connections; new ones are taken. */
    void cut() throws IOException {
        for (Socket socket : sockets) {
            socket.close();
        }
        sockets.clear();
    }

    /** Reads no more of the connections that there are, from either side, and says nothing. New ones are taken. */
    void freeze() {
        frozen.addAll(sockets);
    }

    private void accept() throws IOException {
        while (true) {
            Socket near = server.accept();
            Socket far = new Socket(broker.getHost(), broker.getPort());
            sockets.addAll(List.of(near, far));
            start(() -> pump(near, far));
            start(() -> pump(far, near));
        }
    }

    private void pump(Socket from, Socket to) throws IOException {
        byte[] buffer = new byte[1 << 16];
        try (from;
                to) {
            int count = from.getInputStream().read(buffer);
            while (count >= 0) {
                while (frozen.contains(from)) {
                    Thread.sleep(50);
                }
                to.getOutputStream().write(buffer, 0, count);
                count = from.getInputStream().read(buffer);
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private interface Work {
        void run() throws IOException;
    }

    private static void start(Work work) {
        Broker.daemons("proxy")
                .newThread(() -> {
                    try {
                        work.run();
                    } catch (IOException e) {
                        // One side is gone, or the test is over.
                    }
                })
                .start();
    }

    @Override
    public void close() throws IOException {
        server.close();
        cut();
        frozen.clear();
    }
}
