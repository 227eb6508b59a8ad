package peers;

import com.rabbitmq.tools.jsonrpc.JsonRpcException;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import tools.jackson.databind.json.JsonMapper;

/** Request bodies on standard input, one a line; answer bodies on standard output, in the order of the requests. */
final class Lines {

    /** One request and its answer. */
    interface Call {
        byte[] call(byte[] body) throws Exception;
    }

    private Lines() {
    }

    /** The URL as these libraries read it: to them a slash at its end names the virtual host "", to others "/". */
    static String url(String argument) {
        return argument.replaceFirst("(?<!/)/$", "");
    }

    /**
     * Calls with each line, one after the other.
     *
     * @param concurrent gives each line a thread instead, since the callers tested here block until the answer is there
     */
    static void pass(boolean concurrent, Call call) throws IOException, InterruptedException {
        List<String> lines;
        try (var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            lines = in.lines().toList();
        }
        ExecutorService threads = Executors.newFixedThreadPool(concurrent ? Math.max(1, lines.size()) : 1);
        try {
            List<Future<byte[]>> answers = new ArrayList<>();
            for (String line : lines) {
                answers.add(threads.submit(() -> call.call(line.getBytes(StandardCharsets.UTF_8))));
            }
            for (Future<byte[]> answer : answers) {
                try {
                    print(new String(answer.get(), StandardCharsets.UTF_8));
                } catch (ExecutionException e) {
                    printFailure(e.getCause());
                }
            }
        } finally {
            threads.shutdownNow();
        }
    }

    static void print(String line) {
        new PrintStream(System.out, true, StandardCharsets.UTF_8).println(line);
    }

    /** Prints the class that the caller would catch, and the message of what it goes back to. */
    static void printFailure(Throwable failure) {
        Throwable root = failure;
        while (root.getCause() != null) {
            root = root.getCause();
        }
        String message = root instanceof JsonRpcException error ? members(error) : String.valueOf(root.getMessage());
        print("! " + failure.getClass().getName() + ": " + message.replace('\n', ' '));
    }

    /** What a program can ask such an exception for, as JSON. */
    private static String members(JsonRpcException error) {
        Map<String, Object> members = new LinkedHashMap<>();
        members.put("name", error.getName());
        members.put("code", error.getCode());
        members.put("message", error.getMessage());
        members.put("error", error.getError());
        return new JsonMapper().writeValueAsString(members);
    }
}
