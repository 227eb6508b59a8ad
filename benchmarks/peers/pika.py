"""pika's BlockingConnection, by the tutorial but with one reply queue that stays. Acknowledges. No JSON-RPC."""

from __future__ import annotations

import json
import os

import pika

from benchmarks.lines import PREFETCH, URL, one_at_a_time, role, run_commands, say, windowed


def serve(channel, queue):
    channel.queue_declare(queue, auto_delete=True)
    channel.basic_qos(prefetch_count=PREFETCH)

    def on_request(channel, method, properties, body):
        request = json.loads(body)
        result = json.dumps(request["a"] + request["b"]).encode()
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, result, reply)
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(queue, on_request)
    say("READY")
    channel.start_consuming()


class Caller:
    def __init__(self, connection, channel, queue):
        self._connection, self._channel, self._queue = connection, channel, queue
        direct = os.environ.get("PEER_REPLY") == "direct"
        self._reply_to = "amq.rabbitmq.reply-to" if direct else channel.queue_declare("", exclusive=True).method.queue
        self._results = {}
        self._sent = 0
        channel.basic_consume(self._reply_to, self._on_reply, auto_ack=True)

    def run(self, calls, in_flight):
        if in_flight == 1:
            return one_at_a_time(self._call, calls)
        return windowed(self._send, self._wait, self._results, calls, in_flight)

    def _send(self, a):
        self._sent += 1
        key = str(self._sent)
        properties = pika.BasicProperties(reply_to=self._reply_to, correlation_id=key)
        self._channel.basic_publish("", self._queue, json.dumps({"a": a, "b": 1}).encode(), properties)
        return key

    def _call(self, a, _one):
        key = self._send(a)
        while key not in self._results:
            self._wait()
        return self._results.pop(key)

    def _wait(self):
        self._connection.process_data_events(time_limit=None)

    def _on_reply(self, _channel, _method, properties, body):
        self._results[properties.correlation_id] = json.loads(body)


def main():
    what, queue = role()
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()
    if what == "server":
        serve(channel, queue)
    else:
        run_commands({"run": Caller(connection, channel, queue).run})


main()
