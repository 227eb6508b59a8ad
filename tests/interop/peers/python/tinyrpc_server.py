"""tinyrpc's server over RabbitMQ: PROGRAM URL QUEUE. It prints "serving" when it is ready."""

import sys

import pika
from tinyrpc.dispatch import RPCDispatcher
from tinyrpc.protocols.jsonrpc import JSONRPCProtocol
from tinyrpc.server import RPCServer
from tinyrpc.transports.rabbitmq import RabbitMQServerTransport

methods = RPCDispatcher()
told = []


@methods.public
def subtract(minuend, subtrahend):
    return minuend - subtrahend


@methods.public
def echo(value):
    return value


@methods.public
def notify_hello(value):
    told.append(value)
    print("told", flush=True)


@methods.public
def fail():
    raise ValueError("for a reason")


def main(url: str, queue: str) -> None:
    transport = RabbitMQServerTransport(pika.BlockingConnection(pika.URLParameters(url)), queue)
    print("serving", flush=True)
    RPCServer(transport, JSONRPCProtocol(), methods).serve_forever()


main(*sys.argv[1:])
