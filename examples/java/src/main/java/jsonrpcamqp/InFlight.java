package jsonrpcamqp;

import java.util.concurrent.CompletableFuture;
import java.util.function.Function;
import jsonrpcamqp.JsonRpcException.ConnectionLost;
import jsonrpcamqp.JsonRpcException.MalformedAnswer;
import jsonrpcamqp.JsonRpcException.Timeout;

/**
 * A request from when it was asked for until it ends. The first end counts: an answer, an error, the deadline, the end
 * of the connection. Whatever comes later changes nothing.
 */
final class InFlight<T> {
    final Protocol.Options options;
    final byte[] body;

    /** Only this package adds stages to it, and short ones: they run on the threads that read from the broker. */
    final CompletableFuture<T> end = new CompletableFuture<>();

    private final String awaited;
    private final Function<byte[], T> reader;
    private final long deadline;
    private boolean sent;

    /**
     * @param awaited what ends it, for messages
     * @param reader makes the result of an answer's body
     */
    InFlight(Protocol.Options options, byte[] body, String awaited, Function<byte[], T> reader) {
        this.options = options;
        this.body = body;
        this.awaited = awaited;
        this.reader = reader;
        this.deadline = System.nanoTime() + options.timeout().toNanos();
    }

    long nanosecondsLeft() {
        return deadline - System.nanoTime();
    }

    /**
     * Notes that the request is about to be written: from here on the method may run. Gives false where it has ended,
     * and must not be sent any more.
     */
    synchronized boolean begin() {
        if (!end.isDone() && nanosecondsLeft() > 0) {
            sent = true;
        }
        return sent;
    }

    void answered(byte[] answer) {
        try {
            end.complete(reader.apply(answer));
        } catch (JsonRpcException e) {
            fail(e);
        } catch (RuntimeException e) {
            fail(new MalformedAnswer("it could not be read: " + e));
        }
    }

    void fail(JsonRpcException error) {
        end.completeExceptionally(error);
    }

    synchronized void timedOut() {
        String what = sent ? "no " + awaited + " came" : "the request could not be sent";
        double seconds = options.timeout().toMillis() / 1e3;
        fail(new Timeout(what + " within " + seconds + " s (service '" + options.service() + "')", sent));
    }

    synchronized void lost(String why, Exception cause) {
        fail(new ConnectionLost(why, sent, cause));
    }
}
