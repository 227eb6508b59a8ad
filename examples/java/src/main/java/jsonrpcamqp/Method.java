package jsonrpcamqp;

/** A method of a service. */
@FunctionalInterface
public interface Method {
    /**
     * Runs it. Several threads do at once.
     *
     * @return what Jackson can make JSON of; null is a result too
     * @throws MethodError the error object to answer with. Any other exception is answered with -32603, without its
     *     text
     */
    Object call(Params params) throws Exception;
}
