package jsonrpcamqp;

import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.Envelope;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import jsonrpcamqp.Protocol.Publication;
import jsonrpcamqp.Protocol.Route;

/**
 * Serves the methods of a service: "A server, step by step" of docs/protocol.md. Any number of processes may serve one
 * service, and share its requests.
 */
public final class JsonRpcServer implements AutoCloseable {
    private static final int HANDLERS = 8;
    private static final int PREFETCH = 64;
    private static final long GRACE_SECONDS = 30;
    private static final long LONGEST_PAUSE_SECONDS = 30;
    private static final Logger LOG = System.getLogger(JsonRpcServer.class.getName());

    private final ConnectionFactory factory;
    private final String service;
    private final Dispatcher dispatcher;
    private final ExecutorService handlers = Executors.newFixedThreadPool(HANDLERS, Broker.daemons("jsonrpc-handler"));
    private final Thread keeper = new Thread(this::keepServing, "jsonrpc-server");
    private volatile Session session;
    private volatile boolean closing;

    public JsonRpcServer(String url, String service, Map<String, Method> methods) {
        factory = Broker.factory(url);
        this.service = Protocol.service(service);
        dispatcher = new Dispatcher(methods);
    }

    /**
     * Returns when requests are being consumed. The program then runs on until the server is closed: a lost connection
     * is made anew, however long that takes. Only here a failure to connect is thrown, since the URL may be wrong.
     */
    public void start() throws IOException {
        try {
            session = new Session();
        } catch (IOException | TimeoutException | ShutdownSignalException e) {
            throw new IOException(Broker.failure(factory, e), e);
        }
        keeper.start();
    }

    /**
     * Takes no more requests, finishes those that run, for half a minute at most, and gives back those that have not
     * begun. A request that is still running then is delivered to another server.
     */
    @Override
    public void close() {
        closing = true;
        keeper.interrupt();
        if (session != null) {
            session.cancel();
        }
        handlers.shutdown();
        try {
            if (!handlers.awaitTermination(GRACE_SECONDS, TimeUnit.SECONDS)) {
                LOG.log(Level.WARNING, "stopping while methods run");
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        if (session != null) {
            session.broker.close();
        }
    }

    private void keepServing() {
        try {
            while (!closing) {
                session.ended.await();
                session.broker.close();
                reconnect();
            }
        } catch (InterruptedException e) {
            // The server was closed.
        }
    }

    private void reconnect() throws InterruptedException {
        long pause = 1;
        while (!closing) {
            // Before the first attempt too: what ended the connection may end the next one as well.
            TimeUnit.SECONDS.sleep(pause);
            try {
                session = new Session();
                if (closing) {
                    session.broker.close();
                    return;
                }
                LOG.log(Level.INFO, "serving again");
                return;
            } catch (IOException | TimeoutException | ShutdownSignalException e) {
                LOG.log(Level.WARNING, Broker.failure(factory, e));
                pause = Math.min(2 * pause, LONGEST_PAUSE_SECONDS);
            }
        }
    }

    /** One connection. Its end gives all that was not acknowledged on it to another one. */
    private final class Session {
        final CountDownLatch ended = new CountDownLatch(1);
        final Broker broker;
        private final Channel requests;
        private final String consumer;
        private volatile boolean cancelled;

        /** A channel of its own: what the broker refuses closes its channel, and requests must not go with it. */
        private Channel answers;

        Session() throws IOException, TimeoutException {
            broker = Broker.connect(factory, "jsonrpc-amqp Java server of " + service);
            try {
                broker.declareExchange();
                broker.declareRequestQueue(service);
                answers = openAnswers();
                requests = broker.connection().createChannel();
                requests.addShutdownListener(cause -> ended.countDown());
                requests.basicQos(PREFETCH);
                consumer = requests.basicConsume(Protocol.requestQueue(service), false, new Consumer(this, requests));
            } catch (IOException | RuntimeException e) {
                broker.close();
                throw e;
            }
        }

        private Channel openAnswers() throws IOException {
            Channel channel = broker.connection().createChannel();
            channel.addReturnListener(answer -> LOG.log(Level.DEBUG, "an answer that nobody awaits"));
            return channel;
        }

        void cancel() {
            try {
                requests.basicCancel(consumer);
            } catch (IOException | ShutdownSignalException e) {
                LOG.log(Level.DEBUG, "the connection was gone", e);
            }
            // Not before: what is given back would be delivered here once more.
            cancelled = true;
        }

        /** Runs a request, answers it, and acknowledges it after that. */
        void handle(Delivery request, long arrived) {
            long tag = request.getEnvelope().getDeliveryTag();
            BasicProperties properties = request.getProperties();
            if (!requests.isOpen()) {
                // It is delivered again, so it need not run here.
                return;
            }
            try {
                if (cancelled) {
                    // Not basicReject: RabbitMQ 4.3 counts that as a failed delivery.
                    requests.basicNack(tag, false, true);
                    return;
                }
                // Counted from the arrival here: the clocks of two hosts are never compared.
                OptionalLong timeout = Protocol.timeout(properties.getHeaders());
                long deadline = arrived + TimeUnit.MILLISECONDS.toNanos(timeout.orElse(0));
                if (timeout.isPresent() && deadline - System.nanoTime() <= 0) {
                    LOG.log(Level.DEBUG, "a request that expired while it waited here");
                } else {
                    Optional<byte[]> answer = dispatcher.dispatch(request.getBody());
                    if (answer.isPresent()) {
                        Duration left = timeout.isPresent() ? Duration.ofNanos(deadline - System.nanoTime()) : null;
                        answer(request, left, answer.get());
                    }
                }
                requests.basicAck(tag, false);
            } catch (IOException | ShutdownSignalException e) {
                LOG.log(Level.WARNING, "a request will be delivered again: {0}", Broker.reason(e));
            }
        }

        private void answer(Delivery request, Duration left, byte[] body) throws IOException {
            Envelope envelope = request.getEnvelope();
            BasicProperties properties = request.getProperties();
            Optional<Route> route = Protocol.route(
                    service,
                    Protocol.EXCHANGE,
                    Set.of(Protocol.requestQueue(service)),
                    null,
                    new Protocol.Delivery(envelope.getExchange(), envelope.getRoutingKey(), properties.getReplyTo()));
            if (route.isEmpty()) {
                LOG.log(Level.WARNING, "an answer has no place to go: key {0}, reply_to {1}",
                        printable(envelope.getRoutingKey()), printable(properties.getReplyTo()));
                return;
            }
            Publication publication = Protocol.answer(route.get(), properties, left);
            try {
                publish(publication, body);
            } catch (ShutdownSignalException e) {
                // An earlier answer was refused, and that closed the channel just now.
                publish(publication, body);
            } catch (IllegalArgumentException e) {
                // A correlation_id that was no UTF-8 grows when it is written again, beyond what a property holds.
                LOG.log(Level.WARNING, "an answer that cannot be written: {0}", e.getMessage());
            }
        }

        private synchronized void publish(Publication answer, byte[] body) throws IOException {
            if (!answers.isOpen()) {
                answers = openAnswers();
            }
            answers.basicPublish(
                    answer.exchange(), answer.routingKey(), answer.mandatory(), answer.properties(), body);
        }
    }

    private final class Consumer extends DefaultConsumer {
        private final Session session;

        Consumer(Session session, Channel requests) {
            super(requests);
            this.session = session;
        }

        @Override
        public void handleDelivery(String tag, Envelope envelope, BasicProperties properties, byte[] body) {
            long arrived = System.nanoTime();
            try {
                handlers.execute(() -> session.handle(new Delivery(envelope, properties, body), arrived));
            } catch (RejectedExecutionException e) {
                // The server is being closed; with the connection the request goes back to its queue.
                LOG.log(Level.DEBUG, "a request that came too late", e);
            }
        }

        @Override
        public void handleCancel(String tag) {
            LOG.log(Level.WARNING, "the request queue was deleted");
            session.ended.countDown();
        }
    }

    /** What comes from the wire must not steer whoever reads the log. */
    private static String printable(String text) {
        return text == null ? "none" : text.replaceAll("[^ -~]", "?");
    }
}
