"""
tinyrpc's client over RabbitMQ: PROGRAM URL QUEUE queue.

Request bodies come on standard input, one a line; answers leave in the same order, as its transport gives them.
"""

import sys

import pika
from tinyrpc import RPCClient
from tinyrpc.protocols.jsonrpc import JSONRPCProtocol
from tinyrpc.transports.rabbitmq import RabbitMQClientTransport


class Noting(RabbitMQClientTransport):
    """Its transport, with a look at the bytes that come."""

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
            # Through the whole client, so that it reads the answer itself.
            try:
                client.call(request.method, request.args, request.kwargs)
            except Exception as exc:
                print(f"! {type(exc).__name__}: {exc}", file=sys.stderr)


main(*sys.argv[1:])
