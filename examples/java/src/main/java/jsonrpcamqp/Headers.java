package jsonrpcamqp;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.impl.AMQImpl;
import com.rabbitmq.client.impl.Frame;
import com.rabbitmq.client.impl.FrameHandler;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.ByteBuffer;

/**
 * Keeps a request with odd headers from stopping a service. RabbitMQ takes and delivers headers that its Java library
 * does not read: 64-bit integers of the type "L", as py-amqp writes them (the library knows only "l"), and values
 * nested more than 32 deep. The library then ends the connection, the broker delivers the message to the next one, and
 * so on for as long as the message lives. So such headers are changed before the library sees them.
 */
final class Headers {
    private static final int FLAGS = 12;
    private static final int CONTENT_TYPE = 1 << 15;
    private static final int CONTENT_ENCODING = 1 << 14;
    private static final int HEADERS = 1 << 13;
    private static final int MAX_DEPTH = 32;

    private Headers() {}

    /** Gives what the handler gives, in a form that the library can read. */
    static FrameHandler readable(FrameHandler handler) {
        Class<?>[] type = {FrameHandler.class};
        return (FrameHandler) Proxy.newProxyInstance(type[0].getClassLoader(), type, (proxy, method, arguments) -> {
            try {
                Object result = method.invoke(handler, arguments);
                return result instanceof Frame frame ? readable(frame) : result;
            } catch (InvocationTargetException e) {
                throw e.getCause();
            }
        });
    }

    static Frame readable(Frame frame) {
        if (frame.getType() != AMQP.FRAME_HEADER || isReadable(frame.getPayload())) {
            return frame;
        }
        byte[] payload = frame.getPayload().clone();
        try {
            renameIntegers(table(payload), 0);
        } catch (RuntimeException e) {
            // It is nested too deep, or broken; what follows finds that out as well.
        }
        byte[] changed = isReadable(payload) ? payload : withoutHeaders(payload);
        return new Frame(AMQP.FRAME_HEADER, frame.getChannel(), changed);
    }

    private static boolean isReadable(byte[] payload) {
        try {
            AMQImpl.readContentHeaderFrom(new DataInputStream(new ByteArrayInputStream(payload)));
            return true;
        } catch (IOException | RuntimeException e) {
            return false;
        }
    }

    /** The table of headers: from its length to its end. */
    private static ByteBuffer table(byte[] payload) {
        ByteBuffer properties = ByteBuffer.wrap(payload);
        int flags = properties.getShort(FLAGS);
        properties.position(FLAGS + 2);
        for (int before : new int[] {CONTENT_TYPE, CONTENT_ENCODING}) {
            if ((flags & before) != 0) {
                skip(properties, properties.get() & 0xff);
            }
        }
        int length = (flags & HEADERS) != 0 ? 4 + properties.getInt(properties.position()) : 0;
        return properties.limit(properties.position() + length);
    }

    private static byte[] withoutHeaders(byte[] payload) {
        ByteBuffer table = table(payload);
        ByteArrayOutputStream rest = new ByteArrayOutputStream();
        rest.write(payload, 0, table.position());
        rest.write(payload, table.limit(), payload.length - table.limit());
        ByteBuffer changed = ByteBuffer.wrap(rest.toByteArray());
        return changed.putShort(FLAGS, (short) (changed.getShort(FLAGS) & ~HEADERS)).array();
    }

    private static void renameIntegers(ByteBuffer table, int depth) {
        int end = table.getInt() + table.position();
        while (table.position() < end) {
            skip(table, table.get() & 0xff);
            renameInteger(table, depth);
        }
    }

    private static void renameInteger(ByteBuffer values, int depth) {
        if (depth > MAX_DEPTH) {
            throw new IllegalArgumentException("nested too deep");
        }
        int type = values.get();
        switch (type) {
            case 't', 'b', 'B' -> skip(values, 1);
            case 's', 'u' -> skip(values, 2);
            case 'I', 'i', 'f' -> skip(values, 4);
            case 'D' -> skip(values, 5);
            case 'l', 'd', 'T' -> skip(values, 8);
            case 'L' -> skip(values.put(values.position() - 1, (byte) 'l'), 8);
            case 'S', 'x' -> skip(values, values.getInt());
            case 'F' -> renameIntegers(values, depth + 1);
            case 'A' -> {
                int end = values.getInt() + values.position();
                while (values.position() < end) {
                    renameInteger(values, depth + 1);
                }
            }
            case 'V' -> {}
            default -> throw new IllegalArgumentException("no type of AMQP: " + type);
        }
    }

    private static void skip(ByteBuffer buffer, int count) {
        buffer.position(buffer.position() + count);
    }
}
