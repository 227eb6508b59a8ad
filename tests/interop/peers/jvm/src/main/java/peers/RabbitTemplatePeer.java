package peers;

import java.net.URI;
import java.util.Arrays;
import org.springframework.amqp.core.Message;
import org.springframework.amqp.core.MessageBuilder;
import org.springframework.amqp.core.Queue;
import org.springframework.amqp.rabbit.connection.CachingConnectionFactory;
import org.springframework.amqp.rabbit.core.RabbitAdmin;
import org.springframework.amqp.rabbit.core.RabbitTemplate;
import org.springframework.amqp.rabbit.listener.SimpleMessageListenerContainer;
import org.springframework.amqp.support.converter.JacksonJsonMessageConverter;
import tools.jackson.databind.json.JsonMapper;

/**
 * Spring's RabbitTemplate: {@code RabbitTemplatePeer URL QUEUE MODE [--concurrent]}.
 *
 * <p>The modes are {@code direct} (Spring's default), {@code queue} (one reply queue for all calls), {@code temporary}
 * (a queue for each call, and no correlation_id) and {@code json} (direct, with maps through Spring's JSON converter).
 */
public final class RabbitTemplatePeer {

    private static final JsonMapper JSON = new JsonMapper();

    private RabbitTemplatePeer() {
    }

    public static void main(String[] args) throws Exception {
        CachingConnectionFactory connections = new CachingConnectionFactory(URI.create(Lines.url(args[0])));
        RabbitTemplate template = new RabbitTemplate(connections);
        template.setReplyTimeout(60_000);
        boolean concurrent = Arrays.asList(args).contains("--concurrent");
        SimpleMessageListenerContainer replies = new SimpleMessageListenerContainer(connections);
        Lines.Call call = body -> sendAndReceive(template, args[1], body);
        switch (args[2]) {
            case "direct" -> { } // It is the default.
            case "queue" -> consumeReplies(replies, template);
            case "temporary" -> template.setUseTemporaryReplyQueues(true);
            case "json" -> {
                template.setMessageConverter(new JacksonJsonMessageConverter());
                call = body -> convertSendAndReceive(template, args[1], body);
            }
            default -> throw new IllegalArgumentException("direct, queue, temporary or json, not " + args[2]);
        }
        try {
            Lines.pass(concurrent, call);
        } finally {
            replies.stop();
            template.stop();
            connections.destroy();
        }
    }

    /** Only a SimpleMessageListenerContainer will do: the direct one never tells the template that it listens. */
    private static void consumeReplies(SimpleMessageListenerContainer replies, RabbitTemplate template) {
        Queue queue = new RabbitAdmin(template).declareQueue();
        template.setReplyAddress(queue.getName());
        replies.setQueues(queue);
        replies.setMessageListener(template);
        replies.setReceiveTimeout(100); // A consumer looks that often whether it is to stop; one second is the default.
        replies.start();
    }

    private static byte[] sendAndReceive(RabbitTemplate template, String queue, byte[] body) {
        return received(template.sendAndReceive(queue, MessageBuilder.withBody(body).build())).getBody();
    }

    private static byte[] convertSendAndReceive(RabbitTemplate template, String queue, byte[] body) {
        Object request = JSON.readValue(body, Object.class);
        return JSON.writeValueAsBytes(received(template.convertSendAndReceive(queue, request)));
    }

    private static <T> T received(T answer) {
        if (answer == null) {
            throw new IllegalStateException("no answer in time"); // Spring tells it by null.
        }
        return answer;
    }
}
