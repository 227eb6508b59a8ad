"""
Methods written for jsonrpcserver, served unchanged: its decorator, its results, its errors.

    python examples/jsonrpcserver_style.py

or, on a broker:

    jsonrpc-amqp serve examples.jsonrpcserver_style --service calc
    jsonrpc-amqp call divide '[1, 4]' --service calc
"""

from jsonrpcserver import Error, InvalidParams, Result, Success, method

from jsonrpc_amqp import Client, RemoteError, Server, global_methods

NOT_TODAY = 1


@method
def divide(a: float, b: float) -> Result:
    if b == 0:
        return InvalidParams("b must not be 0")
    return Success(a / b)


@method
def multiply(a: float, b: float) -> Result:
    return Error(NOT_TODAY, "not today", {"a": a, "b": b})


def main() -> None:
    server = Server("memory://style", service="calc", methods=global_methods)
    with server, Client("memory://style", service="calc") as client:
        print(client.call("divide", [1, 4]))
        for method_name, params in [("divide", [1, 0]), ("multiply", [2, 3])]:
            try:
                client.call(method_name, params)
            except RemoteError as error:
                print(error.code, error.message, error.data)


if __name__ == "__main__":
    main()
