"""kombu as usual for RPC: ConsumerProducerMixin, Producer.publish, its JSON serializer, one reply queue."""

from __future__ import annotations

import uuid

from kombu import Connection, Consumer, Producer, Queue
from kombu.mixins import ConsumerProducerMixin

from benchmarks.lines import PREFETCH, URL, one_at_a_time, role, run_commands, say, windowed


class Worker(ConsumerProducerMixin):
    def __init__(self, connection, queue):
        self.connection, self.queue = connection, queue

    def get_consumers(self, Consumer, channel):
        return [Consumer([self.queue], on_message=self.on_request, prefetch_count=PREFETCH, accept=["json"])]

    def on_consume_ready(self, *_args, **_options):
        say("READY")

    def on_request(self, message):
        request, properties = message.payload, message.properties
        self.producer.publish(
            request["a"] + request["b"],
            exchange="",
            routing_key=properties["reply_to"],
            correlation_id=properties["correlation_id"],
            serializer="json",
            delivery_mode=1,
        )
        message.ack()


class Caller:
    def __init__(self, connection, queue):
        self._connection, self._queue = connection, queue
        connection.connect()
        channel = connection.channel()
        queue(channel).declare()
        self._replies = Queue(f"reply.{uuid.uuid4().hex}", exclusive=True, auto_delete=True, durable=False)
        self._results = {}
        Consumer(channel, [self._replies], on_message=self._on_reply, no_ack=True, accept=["json"]).consume()
        self._producer = Producer(channel)
        self._sent = 0

    def run(self, calls, in_flight):
        if in_flight == 1:
            return one_at_a_time(self._call, calls)
        return windowed(self._send, self._wait, self._results, calls, in_flight)

    def _send(self, a):
        self._sent += 1
        key = str(self._sent)
        self._producer.publish(
            {"a": a, "b": 1},
            exchange="",
            routing_key=self._queue.name,
            reply_to=self._replies.name,
            correlation_id=key,
            serializer="json",
            delivery_mode=1,
        )
        return key

    def _call(self, a, _one):
        key = self._send(a)
        while key not in self._results:
            self._wait()
        return self._results.pop(key)

    def _wait(self):
        self._connection.drain_events(timeout=30)

    def _on_reply(self, message):
        self._results[message.properties["correlation_id"]] = message.payload


def main():
    what, name = role()
    connection = Connection(URL)
    queue = Queue(name, durable=False, auto_delete=True)
    if what == "server":
        Worker(connection, queue).run()
    else:
        run_commands({"run": Caller(connection, queue).run})


main()
