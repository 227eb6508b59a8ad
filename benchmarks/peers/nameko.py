"""nameko: its service container, and its stand-alone proxy as the client."""

from __future__ import annotations

import sys

if sys.argv[1] == "server":
    import eventlet

    eventlet.monkey_patch()

from benchmarks.lines import PREFETCH, URL, in_order, one_at_a_time, role, run_commands, say

what, queue = role()
service = queue.replace(".", "_").replace("-", "_")
config = {"AMQP_URI": URL, "max_workers": PREFETCH}

if what == "server":
    from nameko.containers import ServiceContainer
    from nameko.rpc import rpc

    class Service:
        name = service

        @rpc
        def add(self, a, b):
            return a + b

    container = ServiceContainer(Service, config)
    container.start()
    say("READY")
    container.wait()
else:
    from nameko.standalone.rpc import ClusterRpcProxy

    with ClusterRpcProxy(config) as cluster:
        add = cluster[service].add

        def run(calls, in_flight):
            if in_flight == 1:
                return one_at_a_time(add, calls)
            return in_order(lambda i: add.call_async(i, 1), lambda reply: reply.result(), calls, in_flight)

        run_commands({"run": run})
