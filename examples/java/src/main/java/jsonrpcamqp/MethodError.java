package jsonrpcamqp;

/** The error object that a method is answered with. Codes from -32768 to -32000 are reserved by the specification. */
public final class MethodError extends Exception {
    private static final long serialVersionUID = 1;

    private final int code;
    private final transient Object data;

    /**
     * @param data what Jackson can make JSON of; null: none
     */
    public MethodError(int code, String message, Object data) {
        super(message);
        this.code = code;
        this.data = data;
    }

    /** The params do not fit the method. */
    public static MethodError invalidParams(String why) {
        return new MethodError(-32602, "Invalid params", why);
    }

    int code() {
        return code;
    }

    Object data() {
        return data;
    }
}
