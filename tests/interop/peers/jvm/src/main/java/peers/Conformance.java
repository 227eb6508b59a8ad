package peers;

import com.rabbitmq.tools.jsonrpc.JsonRpcException;
import java.io.IOException;
import java.util.List;
import java.util.concurrent.TimeoutException;

/** A service as a Java program sees it; some of the methods of examples/conformance_service.py. */
public interface Conformance {

    // A proxy throws these three. What a method does not declare comes as an UndeclaredThrowableException.

    int subtract(int minuend, int subtrahend) throws JsonRpcException, IOException, TimeoutException;

    List<Object> get_data() throws JsonRpcException, IOException, TimeoutException;

    Object echo(Object value) throws JsonRpcException, IOException, TimeoutException;

    double sleep(double seconds) throws JsonRpcException, IOException, TimeoutException;

    void notify_hello(int value) throws JsonRpcException, IOException, TimeoutException;

    void refuse() throws JsonRpcException, IOException, TimeoutException;

    void fail() throws JsonRpcException, IOException, TimeoutException;
}
