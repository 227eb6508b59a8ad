/* The floor in C: librabbitmq, no JSON. pingpong server|client QUEUE speaks the line protocol of lines.py.
 *
 * FL_REPLY=topic:  topic exchange; request QUEUE.request.CLIENT.ID, one reply queue bound with QUEUE.response.CLIENT.#
 * FL_REPLY=direct: default exchange, amq.rabbitmq.reply-to, correlation_id
 *
 * Transient, no acknowledgements, not mandatory. "run CALLS IN_FLIGHT" sends a number and awaits the reply; "echo CALLS
 * IN_FLIGHT BYTES" pads it to BYTES bytes. The server sends back what it receives. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <amqp.h>
#include <amqp_tcp_socket.h>

#define EXCHANGE "bench.floor"

static amqp_connection_state_t connection;
static const char *queue;
static int topic;
static char client[64], reply_queue[256];
static char *body;

static void die(const char *what) {
    fprintf(stderr, "%s failed\n", what);
    exit(1);
}

static void check(const char *what) {
    if (amqp_get_rpc_reply(connection).reply_type != AMQP_RESPONSE_NORMAL) die(what);
}

static amqp_bytes_t bytes(const char *text) { return amqp_cstring_bytes(text); }

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int compare(const void *one, const void *other) {
    long long a = *(const long long *)one, b = *(const long long *)other;
    return a < b ? -1 : a > b;
}

static void publish(const char *exchange, amqp_bytes_t key, amqp_bytes_t content, amqp_basic_properties_t *properties) {
    if (amqp_basic_publish(connection, 1, bytes(exchange), key, 0, 0, properties, content) < 0) die("publish");
}

static void next_message(amqp_envelope_t *envelope) {
    amqp_maybe_release_buffers(connection);
    if (amqp_consume_message(connection, envelope, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL) die("consume");
}

static void connect_to(const char *url) {
    char *copy = strdup(url);
    struct amqp_connection_info to;
    amqp_default_connection_info(&to);
    if (amqp_parse_url(copy, &to)) die("reading the URL");
    connection = amqp_new_connection();
    if (amqp_socket_open(amqp_tcp_socket_new(connection), to.host, to.port)) die("connect");
    if (amqp_login(connection, to.vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, to.user, to.password).reply_type !=
        AMQP_RESPONSE_NORMAL)
        die("login");
    amqp_channel_open(connection, 1);
    check("opening the channel");
    free(copy);
}

static void declare(void) {
    char key[512];
    if (topic) {
        amqp_exchange_declare(connection, 1, bytes(EXCHANGE), bytes("topic"), 0, 0, 0, 0, amqp_empty_table);
        check("declaring the exchange");
    }
    amqp_queue_declare(connection, 1, bytes(queue), 0, 0, 0, 1, amqp_empty_table);
    check("declaring the queue");
    if (topic) {
        snprintf(key, sizeof key, "%s.request.#", queue);
        amqp_queue_bind(connection, 1, bytes(queue), bytes(EXCHANGE), bytes(key), amqp_empty_table);
        check("binding the queue");
    }
}

static void consume(const char *from) {
    amqp_basic_consume(connection, 1, bytes(from), amqp_empty_bytes, 0, 1, 0, amqp_empty_table);
    check("consuming");
    puts("@@READY");
    fflush(stdout);
}

static void serve(void) {
    char key[512];
    size_t prefix = strlen(queue) + strlen(".request.");
    consume(queue);
    for (;;) {
        amqp_envelope_t request;
        amqp_basic_properties_t properties;
        next_message(&request);
        memset(&properties, 0, sizeof properties);
        if (topic) {
            snprintf(key, sizeof key, "%s.response.%.*s", queue, (int)(request.routing_key.len - prefix),
                     (char *)request.routing_key.bytes + prefix);
            publish(EXCHANGE, bytes(key), request.message.body, &properties);
        } else {
            properties._flags = AMQP_BASIC_CORRELATION_ID_FLAG;
            properties.correlation_id = request.message.properties.correlation_id;
            publish("", request.message.properties.reply_to, request.message.body, &properties);
        }
        amqp_destroy_envelope(&request);
    }
}

static void prepare_replies(void) {
    char key[512];
    snprintf(client, sizeof client, "c%d", (int)getpid());
    if (!topic) {
        strcpy(reply_queue, "amq.rabbitmq.reply-to");
        return;
    }
    amqp_queue_declare_ok_t *made =
        amqp_queue_declare(connection, 1, amqp_empty_bytes, 0, 0, 1, 1, amqp_empty_table);
    check("declaring the reply queue");
    snprintf(reply_queue, sizeof reply_queue, "%.*s", (int)made->queue.len, (char *)made->queue.bytes);
    snprintf(key, sizeof key, "%s.response.%s.#", queue, client);
    amqp_queue_bind(connection, 1, bytes(reply_queue), bytes(EXCHANGE), bytes(key), amqp_empty_table);
    check("binding the reply queue");
}

static void send_one(long id, size_t size) {
    char key[512], number[32], text[32];
    amqp_basic_properties_t properties;
    amqp_bytes_t content;
    memset(&properties, 0, sizeof properties);
    content.len = snprintf(text, sizeof text, "%ld ", id + 1);
    memcpy(body, text, content.len);
    content.bytes = body;
    if (size > content.len) content.len = size;
    if (topic) {
        snprintf(key, sizeof key, "%s.request.%s.%ld", queue, client, id);
        publish(EXCHANGE, bytes(key), content, &properties);
    } else {
        snprintf(number, sizeof number, "%ld", id);
        properties._flags = AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG;
        properties.reply_to = bytes(reply_queue);
        properties.correlation_id = bytes(number);
        publish("", bytes(queue), content, &properties);
    }
}

/* Wait for a reply, and return its id. */
static long receive_one(size_t size, long *bad) {
    amqp_envelope_t reply;
    char text[512];
    next_message(&reply);
    amqp_bytes_t key = topic ? reply.routing_key : reply.message.properties.correlation_id;
    size_t length = key.len < sizeof text - 1 ? key.len : sizeof text - 1;
    memcpy(text, key.bytes, length);
    text[length] = 0;
    char *dot = strrchr(text, '.');
    long id = atol(dot ? dot + 1 : text);
    length = reply.message.body.len < 31 ? reply.message.body.len : 31;
    memcpy(text, reply.message.body.bytes, length);
    text[length] = 0;
    if (atol(text) != id + 1 || reply.message.body.len < size) (*bad)++;
    amqp_destroy_envelope(&reply);
    return id;
}

static void run(long calls, long in_flight, size_t size) {
    long long *begun = calloc(calls, sizeof *begun), *times = calloc(calls, sizeof *times);
    long sent = 0, done = 0, bad = 0;
    body = malloc(size + 64);
    memset(body, 'x', size + 64);
    long long start = now();
    while (done < calls) {
        while (sent < calls && sent - done < in_flight) {
            begun[sent] = now();
            send_one(sent++, size);
        }
        long id = receive_one(size, &bad);
        times[done++] = now() - begun[id];
    }
    double elapsed = (now() - start) / 1e9;
    qsort(times, calls, sizeof *times, compare);
    printf("@@{\"n\":%ld,\"elapsed\":%.6f,\"bad\":%ld,\"p50_us\":%.2f,\"p90_us\":%.2f,\"p99_us\":%.2f,"
           "\"p999_us\":%.2f,\"max_us\":%.2f}\n",
           calls, elapsed, bad, times[calls / 2] / 1e3, times[(long)(calls * 0.9)] / 1e3,
           times[(long)(calls * 0.99)] / 1e3, times[(long)(calls * 0.999)] / 1e3, times[calls - 1] / 1e3);
    fflush(stdout);
    free(begun);
    free(times);
    free(body);
}

int main(int count, char **arguments) {
    const char *url = getenv("BENCH_AMQP_URL"), *reply = getenv("FL_REPLY");
    if (count < 3) {
        fputs("usage: pingpong server|client QUEUE\n", stderr);
        return 2;
    }
    queue = arguments[2];
    topic = !reply || strcmp(reply, "direct");
    connect_to(url ? url : "amqp://guest:guest@127.0.0.1:5672/%2F");
    declare();
    if (!strcmp(arguments[1], "server")) serve();
    prepare_replies();
    consume(reply_queue);
    char line[128];
    while (fgets(line, sizeof line, stdin)) {
        long calls, in_flight, size = 0;
        if (sscanf(line, "run %ld %ld", &calls, &in_flight) == 2 ||
            sscanf(line, "echo %ld %ld %ld", &calls, &in_flight, &size) == 3)
            run(calls, in_flight, size);
        else
            break;
    }
    return 0;
}
