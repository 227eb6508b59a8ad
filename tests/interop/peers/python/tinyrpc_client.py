"""
tinyrpc's client over RabbitMQ: PROGRAM URL QUEUE queue.

Reads request bodies from standard input, one a line, and prints the responses of its transport in the same order.
"""

import sys

import pika
from tinyrpc import RPCClient
from tinyrpc.protocols.jsonrpc import JSONRPCProtocol
from tinyrpc.transports.rabbitmq import RabbitMQClientTransport


class Noting(RabbitMQClientTransport):
    """Its transport, which also records the bytes that arrive."""

    def send_message(self, message, expect_reply=True):
        answer = super().send_message(message, expect_reply)
        if answer is not None:
            print(answer.decode())
        return answer


def main(url: str, queue: str, _mode: str) -> None:
    transport = Noting(pika.BlockingConnection(pika.URLParameters(url)), queue)
    protocol = JSONRPCProtocol()
    client = RPCClient(protocol, transport)
    for line in sys.stdin:
        request = protocol.parse_request(line.encode())
        if isinstance(request, list):
            transport.send_message(line.encode())
        else:
            # Through the whole client, so that it parses the reply itself.
            try:
                client.call(request.method, request.args, request.kwargs)
            except Exception as exc:
                print(f"! {type(exc).__name__}: {exc}", file=sys.stderr)


main(*sys.argv[1:])
