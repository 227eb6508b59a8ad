package jsonrpcamqp;

import com.fasterxml.jackson.databind.JsonNode;

/** A request that did not come to a result: the service answered with an error, or there was no answer. */
public abstract sealed class JsonRpcException extends RuntimeException {
    private static final long serialVersionUID = 1;

    private JsonRpcException(String message, Throwable cause) {
        super(message, cause);
    }

    /** The service answered with an error object. */
    public static final class RemoteError extends JsonRpcException {
        private static final long serialVersionUID = 1;

        private final long code;
        private final String text;
        private final JsonNode data;

        RemoteError(long code, String text, JsonNode data) {
            super("the service answered with error " + code + ": " + text, null);
            this.code = code;
            this.text = text;
            this.data = data;
        }

        public long code() {
            return code;
        }

        /** The message of the error object as it came; getMessage() has the code too. */
        public String message() {
            return text;
        }

        /** The data of the error object; null where it had none. */
        public JsonNode data() {
            return data;
        }
    }

    /** There is no answer that could be believed. The message says what happened. */
    public abstract static sealed class TransportException extends JsonRpcException {
        private static final long serialVersionUID = 1;

        private final boolean mayHaveRun;

        private TransportException(String message, boolean mayHaveRun, Throwable cause) {
            super(message + "; the method " + (mayHaveRun ? "may have run, or may still" : "did not run"), cause);
            this.mayHaveRun = mayHaveRun;
        }

        /** Whether the method may have run, or may still. If not, the request can be repeated without harm. */
        public boolean mayHaveRun() {
            return mayHaveRun;
        }
    }

    /** Nothing came by the deadline. */
    public static final class Timeout extends TransportException {
        private static final long serialVersionUID = 1;

        Timeout(String message, boolean mayHaveRun) {
            super(message, mayHaveRun, null);
        }
    }

    /** No queue takes requests for this service: no server of it was ever set up at this broker. */
    public static final class Unroutable extends TransportException {
        private static final long serialVersionUID = 1;

        Unroutable(String message) {
            super(message, false, null);
        }
    }

    /** There was no connection to be had. */
    public static final class NotConnected extends TransportException {
        private static final long serialVersionUID = 1;

        NotConnected(String message, Throwable cause) {
            super(message, false, cause);
        }
    }

    /** The connection ended, or the client was closed, before there was an answer. */
    public static final class ConnectionLost extends TransportException {
        private static final long serialVersionUID = 1;

        ConnectionLost(String message, boolean mayHaveRun, Throwable cause) {
            super(message, mayHaveRun, cause);
        }
    }

    /** The broker did not take the request, or would not let this user listen for the answer. */
    public static final class Refused extends TransportException {
        private static final long serialVersionUID = 1;

        Refused(String message, Throwable cause) {
            super(message, false, cause);
        }
    }

    /** An answer came that breaks the rules of JSON-RPC 2.0, is for another id, or does not fit the expected type. */
    public static final class MalformedAnswer extends TransportException {
        private static final long serialVersionUID = 1;

        MalformedAnswer(String message) {
            super("malformed answer: " + message, true, null);
        }
    }

    /** The thread was interrupted while it waited. */
    public static final class Interrupted extends TransportException {
        private static final long serialVersionUID = 1;

        Interrupted(InterruptedException cause) {
            super("interrupted", true, cause);
        }
    }
}
