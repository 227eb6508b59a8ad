package jsonrpcamqp;

import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.Envelope;
import com.rabbitmq.client.Return;
import java.io.IOException;
import java.time.Duration;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentNavigableMap;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.TimeoutException;
import jsonrpcamqp.JsonRpcException.Refused;
import jsonrpcamqp.JsonRpcException.Unroutable;
import jsonrpcamqp.Protocol.Publication;

/**
 * One connection of a client: its token, its reply queue, and what is in flight on it. It ends once, when the
 * connection or a channel does; then all that is in flight fails, and the next request needs a new one.
 *
 * <p>Requests are written by one thread. The library calls back on threads of its own.
 */
final class Link {
    private final Broker broker;
    private final Protocol.Sender sender;

    /** Channels of their own, as an error closes a channel, and as only notifications are confirmed. */
    private final Channel calls;

    private final Channel notifications;
    private final String replyQueue;
    private final Set<String> bound = new HashSet<>();

    /** By correlation_id (calls) or message_id (notifications), which are never the same. */
    private final Map<String, InFlight<?>> awaited = new ConcurrentHashMap<>();

    /** By delivery tag: the number of the publish on its channel. */
    private final ConcurrentNavigableMap<Long, InFlight<?>> unconfirmed = new ConcurrentSkipListMap<>();

    /** Not getNextPublishSeqNo, which also counts what the library then refuses to write. */
    private long published;

    private volatile boolean ended;

    static Link open(ConnectionFactory factory, boolean direct) throws IOException, TimeoutException {
        Broker broker = Broker.connect(factory, "jsonrpc-amqp Java client");
        try {
            return new Link(broker, factory.getUsername(), direct);
        } catch (IOException | RuntimeException e) {
            broker.close();
            throw e;
        }
    }

    private Link(Broker broker, String user, boolean direct) throws IOException {
        this.broker = broker;
        sender = new Protocol.Sender(Protocol.EXCHANGE, user, Protocol.newToken(), direct);
        broker.declareExchange();
        Connection connection = broker.connection();
        calls = connection.createChannel();
        notifications = connection.createChannel();
        notifications.confirmSelect();
        notifications.addConfirmListener(this::confirmed, this::refused);
        for (Channel channel : new Channel[] {calls, notifications}) {
            channel.addReturnListener(this::returned);
            channel.addShutdownListener(cause -> end(Broker.reason(cause), cause));
        }
        // Without arguments: named by the broker, exclusive, auto-delete, not durable.
        replyQueue = direct ? Protocol.DIRECT_REPLY_TO : calls.queueDeclare().getQueue();
        calls.basicConsume(replyQueue, true, new DefaultConsumer(calls) {
            @Override
            public void handleDelivery(String tag, Envelope envelope, BasicProperties properties, byte[] body) {
                String number = properties.getCorrelationId();
                InFlight<?> call = number == null ? null : awaited.get(number);
                // An answer that nobody awaits any more came too late, or twice.
                if (call != null) {
                    call.answered(body);
                }
            }

            @Override
            public void handleCancel(String tag) {
                end("the reply queue was deleted", null);
            }
        });
    }

    boolean isOpen() {
        return !ended && broker.connection().isOpen();
    }

    /** Publishes a call. It ends when the answer comes. */
    void call(InFlight<?> call, String qid, String number) throws IOException {
        bind(call.options.service());
        if (!call.begin()) {
            return;
        }
        Duration left = Duration.ofNanos(Math.max(1, call.nanosecondsLeft()));
        await(number, call);
        publish(calls, sender.call(call.options, qid, number, left), call.body);
    }

    /** Publishes a notification. It ends when the broker has confirmed it. */
    void notify(InFlight<?> notification, String number) throws IOException {
        if (!notification.begin()) {
            return;
        }
        String messageId = sender.client() + "-" + number;
        long tag = published + 1;
        await(messageId, notification);
        unconfirmed.put(tag, notification);
        notification.end.whenComplete((nothing, error) -> unconfirmed.remove(tag));
        publish(notifications, sender.notification(notification.options, messageId), notification.body);
        published = tag;
    }

    private void bind(String service) throws IOException {
        if (sender.direct() || bound.contains(service)) {
            return;
        }
        try {
            broker.apart(channel -> channel.queueBind(
                    replyQueue, Protocol.EXCHANGE, Protocol.replyBinding(service, sender.client())));
        } catch (IOException e) {
            if (!Broker.isRefusal(e)) {
                throw e;
            }
            throw new Refused(
                    "the broker does not let this user listen for answers of service '" + service + "': "
                            + Broker.reason(e),
                    e);
        }
        bound.add(service);
    }

    private void await(String key, InFlight<?> request) {
        awaited.put(key, request);
        request.end.whenComplete((result, error) -> awaited.remove(key));
    }

    private void publish(Channel channel, Publication publication, byte[] body) throws IOException {
        try {
            channel.basicPublish(
                    publication.exchange(),
                    publication.routingKey(),
                    publication.mandatory(),
                    publication.properties(),
                    body);
        } catch (IOException e) {
            // Now, and not when the library comes to know of it: the next request is to have a new connection.
            end(Broker.reason(e), e);
            throw e;
        }
    }

    private void returned(Return message) {
        BasicProperties properties = message.getProperties();
        String number = properties.getCorrelationId();
        InFlight<?> request = awaited.get(number != null ? number : properties.getMessageId());
        if (request != null) {
            request.fail(new Unroutable(String.format(
                    "no queue takes requests for service '%s' (%d %s): no server of it was ever set up at this broker",
                    request.options.service(), message.getReplyCode(), message.getReplyText())));
        }
    }

    /** The confirm of a message that was returned comes behind the return, and changes nothing. */
    private void confirmed(long tag, boolean multiple) {
        upTo(tag, multiple).forEach(notification -> notification.end.complete(null));
    }

    private void refused(long tag, boolean multiple) {
        upTo(tag, multiple)
                .forEach(notification -> notification.fail(
                        new Refused("the broker did not take the notification (basic.nack)", null)));
    }

    private Iterable<InFlight<?>> upTo(long tag, boolean multiple) {
        return multiple
                ? unconfirmed.headMap(tag, true).values()
                : unconfirmed.subMap(tag, true, tag, true).values();
    }

    private void end(String reason, Exception cause) {
        ended = true;
        awaited.values().forEach(request -> request.lost("the connection to the broker failed: " + reason, cause));
    }

    void close() {
        broker.close();
    }
}
