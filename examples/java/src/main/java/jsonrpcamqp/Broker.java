package jsonrpcamqp;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.MetricsCollector;
import com.rabbitmq.client.ShutdownSignalException;
import com.rabbitmq.client.SocketConfigurators;
import com.rabbitmq.client.impl.AMQConnection;
import com.rabbitmq.client.impl.ConnectionParams;
import com.rabbitmq.client.impl.DefaultExceptionHandler;
import com.rabbitmq.client.impl.FrameHandler;
import java.io.IOException;
import java.net.Socket;
import java.net.URISyntaxException;
import java.security.GeneralSecurityException;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicReference;
import javax.net.ssl.SSLContext;

/**
 * A connection to the broker, as both ends need it.
 *
 * @param socket kept because only closing it ends a write to a broker that has stopped reading
 */
record Broker(Connection connection, Socket socket) {
    private static final int STEP_MILLISECONDS = 10_000;
    private static final int CLOSE_MILLISECONDS = 1_000;

    /** No queue of RabbitMQ takes a larger message. amqp-client ends the connection at what is above its own bound. */
    private static final int MAX_MESSAGE = 512 << 20;

    /** Threads that do not keep the program alive. */
    static ThreadFactory daemons(String name) {
        return task -> {
            Thread thread = new Thread(task, name);
            thread.setDaemon(true);
            return thread;
        };
    }

    static ConnectionFactory factory(String url) {
        ConnectionFactory factory = new ConnectionFactory() {
            @Override
            protected AMQConnection createConnection(
                    ConnectionParams parameters, FrameHandler frames, MetricsCollector metrics) {
                return super.createConnection(parameters, Headers.readable(frames), metrics);
            }
        };
        factory.setConnectionTimeout(STEP_MILLISECONDS);
        factory.setHandshakeTimeout(STEP_MILLISECONDS);
        factory.setChannelRpcTimeout(STEP_MILLISECONDS);
        factory.setMaxInboundMessageBodySize(MAX_MESSAGE);
        // A new connection needs a new token and a new reply queue; the library's recovery would give it the old ones.
        factory.setAutomaticRecoveryEnabled(false);
        factory.setThreadFactory(daemons("jsonrpc-amqp"));
        try {
            factory.setUri(url);
            if (factory.isSSL()) {
                // By itself the library would trust any certificate, for any host.
                factory.useSslProtocol(SSLContext.getDefault());
                factory.enableHostnameVerification();
            }
        } catch (URISyntaxException e) {
            // Neither the message nor the cause: they show the URL, and there may be a password in it.
            throw new IllegalArgumentException("the broker's URL is not one: " + e.getReason());
        } catch (GeneralSecurityException e) {
            throw new IllegalStateException("this Java has no TLS", e);
        }
        if (factory.getVirtualHost().isEmpty()) {
            // "amqp://host/" is the empty virtual host to the letter, and the default one to everybody.
            factory.setVirtualHost(ConnectionFactory.DEFAULT_VHOST);
        }
        return factory;
    }

    static Broker connect(ConnectionFactory template, String name) throws IOException, TimeoutException {
        AtomicReference<Socket> socket = new AtomicReference<>();
        ConnectionFactory factory = template.clone();
        SocketConfigurators.Builder sockets =
                SocketConfigurators.builder().defaultConfigurator().add(socket::set);
        if (factory.isSSL()) {
            sockets.enableHostnameVerification();
        }
        factory.setSocketConfigurator(sockets.build());
        factory.setExceptionHandler(new DefaultExceptionHandler() {
            @Override
            public void handleUnexpectedConnectionDriverException(Connection connection, Throwable exception) {
                super.handleUnexpectedConnectionDriverException(connection, exception);
                // The library is about to wait for whoever is writing, which may be for ever if heartbeats are missed.
                close(socket.get());
            }
        });
        return new Broker(factory.newConnection(name), socket.get());
    }

    /** What to tell of a connection that could not be had, without the password. */
    static String failure(ConnectionFactory factory, Exception e) {
        return String.format(
                "could not connect to the broker (%s:%d, virtual host %s, user %s): %s",
                factory.getHost(), factory.getPort(), factory.getVirtualHost(), factory.getUsername(), reason(e));
    }

    /** What a user may be allowed to do on a channel, or not. */
    interface Step {
        void on(Channel channel) throws IOException;
    }

    /** Takes a step on a channel of its own, as a step that is refused closes its channel. */
    void apart(Step step) throws IOException {
        Channel channel = connection.createChannel();
        step.on(channel);
        channel.abort();
    }

    /** Declares the exchange; without the right to, makes sure that it is there. */
    void declareExchange() throws IOException {
        apartOr(
                channel -> channel.exchangeDeclare(Protocol.EXCHANGE, BuiltinExchangeType.TOPIC, true),
                channel -> channel.exchangeDeclarePassive(Protocol.EXCHANGE));
    }

    /** Declares the queue of a service and binds it; without the right to, makes sure that it is there. */
    void declareRequestQueue(String service) throws IOException {
        String queue = Protocol.requestQueue(service);
        apartOr(
                channel -> {
                    channel.queueDeclare(queue, true, false, false, null);
                    channel.queueBind(queue, Protocol.EXCHANGE, Protocol.requestBinding(service));
                },
                channel -> channel.queueDeclarePassive(queue));
    }

    private void apartOr(Step step, Step withoutTheRight) throws IOException {
        try {
            apart(step);
        } catch (IOException e) {
            if (!isRefusal(e)) {
                throw e;
            }
            apart(withoutTheRight);
        }
    }

    /** Tells whether a step failed because the user has not the right to take it. */
    static boolean isRefusal(IOException e) {
        return e.getCause() instanceof ShutdownSignalException shutdown
                && shutdown.getReason() instanceof AMQP.Channel.Close reason
                && reason.getReplyCode() == AMQP.ACCESS_REFUSED;
    }

    /** Closes within two seconds, whatever state the broker and the network are in. */
    void close() {
        Thread closing = daemons("jsonrpc-amqp-close").newThread(() -> connection.abort(CLOSE_MILLISECONDS));
        closing.start();
        try {
            closing.join(CLOSE_MILLISECONDS + 500);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        close(socket);
    }

    private static void close(Socket socket) {
        try {
            socket.close();
        } catch (IOException e) {
            // It was of no more use anyway.
        }
    }

    /** What the broker or the network gave as a reason. */
    static String reason(Exception e) {
        Throwable cause = e.getCause() instanceof ShutdownSignalException ? e.getCause() : e;
        if (cause instanceof ShutdownSignalException shutdown) {
            if (shutdown.getReason() instanceof AMQP.Channel.Close close) {
                return close.getReplyCode() + " " + close.getReplyText();
            }
            if (shutdown.getReason() instanceof AMQP.Connection.Close close) {
                return close.getReplyCode() + " " + close.getReplyText();
            }
            if (shutdown.getCause() != null) {
                return shutdown.getCause().toString();
            }
        }
        return cause.toString();
    }
}
