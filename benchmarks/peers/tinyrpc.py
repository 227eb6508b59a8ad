"""
tinyrpc: JSON-RPC 2.0 over pika, with its own client and server.

One call at a time: its server has room for one message only, and concurrent requests overwrite each other.
"""

from __future__ import annotations

import pika
from tinyrpc.client import RPCClient
from tinyrpc.dispatch import RPCDispatcher
from tinyrpc.protocols.jsonrpc import JSONRPCProtocol
from tinyrpc.server import RPCServer
from tinyrpc.transports.rabbitmq import RabbitMQClientTransport, RabbitMQServerTransport

from benchmarks.lines import URL, one_at_a_time, role, run_commands, say


def main():
    what, queue = role()
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    if what == "server":
        methods = RPCDispatcher()
        methods.add_method(lambda a, b: a + b, "add")
        server = RPCServer(RabbitMQServerTransport(connection, queue), JSONRPCProtocol(), methods)
        say("READY")
        server.serve_forever()
    proxy = RPCClient(JSONRPCProtocol(), RabbitMQClientTransport(connection, queue)).get_proxy()

    def run(calls, in_flight):
        if in_flight > 1:
            raise NotImplementedError("its server hangs with more than one call at a time")
        return one_at_a_time(proxy.add, calls)

    run_commands({"run": run})


main()
