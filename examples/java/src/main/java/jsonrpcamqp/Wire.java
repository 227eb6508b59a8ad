package jsonrpcamqp;

import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import jsonrpcamqp.JsonRpcException.NotConnected;
import jsonrpcamqp.JsonRpcException.Refused;

/**
 * What the copies of a client share: the connection, made when it is first needed and again after it was lost, the
 * thread that writes to it, and the one that watches the deadlines.
 *
 * <p>Whoever makes a call never writes, connects or binds: all of these wait for the broker, and for longer than the
 * deadline where it has stopped reading.
 */
final class Wire {
    private final ConnectionFactory factory;
    private final boolean direct;
    private final ExecutorService writer = Executors.newSingleThreadExecutor(Broker.daemons("jsonrpc-amqp-writer"));
    private final ScheduledThreadPoolExecutor timer =
            new ScheduledThreadPoolExecutor(1, Broker.daemons("jsonrpc-amqp-timer"));
    private final Set<InFlight<?>> all = ConcurrentHashMap.newKeySet();
    private volatile Link link;
    private volatile boolean closed;

    Wire(String url, boolean direct) {
        factory = Broker.factory(url);
        this.direct = direct;
        timer.setRemoveOnCancelPolicy(true);
    }

    /** How a request is put on a connection. */
    interface Writing {
        void on(Link link) throws IOException;
    }

    <T> CompletableFuture<T> send(InFlight<T> request, Writing writing) {
        all.add(request);
        request.end.whenComplete((result, error) -> all.remove(request));
        try {
            ScheduledFuture<?> alarm =
                    timer.schedule(request::timedOut, request.nanosecondsLeft(), TimeUnit.NANOSECONDS);
            request.end.whenComplete((result, error) -> alarm.cancel(false));
            writer.execute(() -> write(request, writing));
        } catch (RejectedExecutionException e) {
            request.lost("the client is closed", null);
        }
        return request.end;
    }

    private void write(InFlight<?> request, Writing writing) {
        if (request.end.isDone()) {
            return;
        }
        try {
            writing.on(openLink());
        } catch (JsonRpcException e) {
            request.fail(e);
        } catch (IOException | ShutdownSignalException e) {
            request.lost("the connection to the broker failed: " + Broker.reason(e), e);
        } catch (RuntimeException e) {
            // Something is wrong with the request itself: a header of a type that AMQP has not, for example.
            request.fail(new Refused("the request cannot be sent: " + e, e));
        }
    }

    private Link openLink() {
        if (link != null && link.isOpen()) {
            return link;
        }
        if (link != null) {
            // Where only a channel ended, the connection is still there.
            link.close();
        }
        try {
            link = Link.open(factory, direct);
        } catch (IOException | TimeoutException | RuntimeException e) {
            throw new NotConnected(Broker.failure(factory, e), e);
        }
        if (closed) {
            // It was closed in the meantime, and that did not see this connection.
            link.close();
        }
        return link;
    }

    void close() {
        closed = true;
        timer.shutdownNow();
        writer.shutdown();
        all.forEach(request -> request.lost("the client was closed", null));
        if (link != null) {
            link.close();
        }
    }
}
