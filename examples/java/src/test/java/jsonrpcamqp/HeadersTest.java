package jsonrpcamqp;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.impl.AMQImpl;
import com.rabbitmq.client.impl.Frame;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** Headers that RabbitMQ delivers and its library does not read. */
class HeadersTest {
    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.ISO_8859_1);
    }

    private static String sized(String content) {
        byte[] size = ByteBuffer.allocate(4).putInt(content.length()).array();
        return new String(size, StandardCharsets.ISO_8859_1) + content;
    }

    /** A content header with the content type "json", these headers, and the correlation_id "c". */
    private static Frame frame(String headers) {
        byte[] properties = bytes("\4json" + sized(headers) + "\1c");
        ByteBuffer payload = ByteBuffer.allocate(14 + properties.length);
        payload.putShort((short) 60).putShort((short) 0).putLong(5).putShort((short) (1 << 15 | 1 << 13 | 1 << 10));
        return new Frame(AMQP.FRAME_HEADER, 1, payload.put(properties).array());
    }

    private static Map<String, Object> read(String headers) throws IOException {
        Frame frame = Headers.readable(frame(headers));
        BasicProperties properties = (BasicProperties) AMQImpl.readContentHeaderFrom(frame.getInputStream());
        assertEquals("json", properties.getContentType());
        assertEquals("c", properties.getCorrelationId());
        return properties.getHeaders();
    }

    private static String nested(int depth) {
        return depth == 0 ? "V" : "A" + sized(nested(depth - 1));
    }

    @Test
    void leavesAloneWhatCanBeRead() {
        for (String headers : List.of("", "\1al\0\0\0\0\0\0\0\1", "\1aS" + sized("L"), "\1a" + nested(30))) {
            Frame frame = frame(headers);
            assertSame(frame, Headers.readable(frame));
        }
        Frame body = new Frame(AMQP.FRAME_BODY, 1, bytes("L"));
        assertSame(body, Headers.readable(body));
    }

    @Test
    void readsIntegersOfTheSpecification() throws Exception {
        String two40 = "L\0\0\1\0\0\0\0\0";
        assertEquals(Map.of("a", 1L << 40), read("\1a" + two40));
        String all = "\1tt\1" + "\1bb\1" + "\1BB\1" + "\1ss\0\1" + "\1uu\0\1" + "\1II\0\0\0\1" + "\1ii\0\0\0\1"
                + "\1ff\0\0\0\0" + "\1DD\0\0\0\0\1" + "\1ll\0\0\0\0\0\0\0\1" + "\1dd\0\0\0\0\0\0\0\0"
                + "\1TT\0\0\0\0\0\0\0\1" + "\1SS" + sized("LL") + "\1xx" + sized("LL") + "\1VV";
        Map<String, Object> headers = read(all + "\1FF" + sized("\1a" + two40) + "\1AA" + sized(two40 + two40));
        assertEquals(17, headers.size());
        assertEquals(Map.of("a", 1L << 40), headers.get("F"));
        assertEquals(List.of(1L << 40, 1L << 40), headers.get("A"));
        assertEquals("LL", headers.get("S").toString());
    }

    @Test
    void leavesOutWhatCannotBeRead() throws Exception {
        assertNull(read("\1a" + nested(33)));
        assertNull(read("\1a" + nested(5000)));
        assertNull(read("\1aZ"));
        assertNull(read("\1aS\0\0\1\0"));
    }
}
