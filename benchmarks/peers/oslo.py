"""oslo.messaging's RPC over RabbitMQ, with its threading executor."""

from __future__ import annotations

import logging
import os
import threading

import oslo_messaging
from oslo_config import cfg

from benchmarks.lines import URL, in_threads, one_at_a_time, role, run_commands, say

logging.disable(logging.CRITICAL)
what, queue = role()
cfg.CONF([], project="bench")  # the global object: its tracing registers options there only
transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=URL.replace("amqp://", "rabbit://"))

if what == "server":

    class Endpoint:
        target = oslo_messaging.Target(version="1.0")

        def add(self, _context, a, b):
            return a + b

    server = oslo_messaging.get_rpc_server(
        transport,
        oslo_messaging.Target(topic=queue, server=f"s{os.getpid()}"),
        [Endpoint()],
        executor="threading",
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
    )
    server.start()
    say("READY")
    threading.Event().wait()
else:
    client = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic=queue, version="1.0"), timeout=30)

    def add(a, b):
        return client.call({}, "add", a=a, b=b)

    def run(calls, in_flight):
        return one_at_a_time(add, calls) if in_flight == 1 else in_threads([add] * in_flight, calls)

    run_commands({"run": run})
