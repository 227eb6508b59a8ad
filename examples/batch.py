"""
Several calls and a notification in one message.

    python examples/batch.py

Needs no broker: server and client use memory:// in this process. With RabbitMQ only the URL changes.
"""

from jsonrpc_amqp import Client, MethodNotFound, Server

server = Server("memory://batch", service="calc")


@server.method
def add(a: int, b: int) -> int:
    return a + b


@server.method("log.write")
def write(line: str) -> None:
    print(f"server: {line}")


def main() -> None:
    with server, Client("memory://batch", service="calc") as client:
        with client.batch() as batch:
            batch.notify("log.write", ["two sums are coming"])
            small = batch.call("add", [1, 2])
            large = batch.call("add", {"a": 1000, "b": 2000})
            unknown = batch.call("divide", [1, 0])
        # At the end of the block the message is sent and the reply has arrived: a result or an error for each call.
        print(small.result(), large.result())
        try:
            unknown.result()
        except MethodNotFound as error:
            print(error)


if __name__ == "__main__":
    main()
