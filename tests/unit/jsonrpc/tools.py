"""What the tests of the dispatcher share."""

from __future__ import annotations

import json
from typing import Any

from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher

MESSAGES = {
    -32700: "Parse error",
    -32600: "Invalid Request",
    -32601: "Method not found",
    -32602: "Invalid params",
    -32603: "Internal error",
}


def request(method: str, params: Any = None, id: Any = 1, **more: Any) -> dict[str, Any]:
    """One call, as a value."""
    return {"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params}), "id": id, **more}


def notification(method: str, params: Any = None) -> dict[str, Any]:
    value = request(method, params)
    del value["id"]
    return value


def ask(dispatcher: Dispatcher, value: Any) -> Any:
    """Send a value (or bytes as they are); return the reply as the standard library reads it, ``...`` for none."""
    answer = dispatcher(value if isinstance(value, bytes) else json.dumps(value).encode())
    return ... if answer is None else json.loads(answer)


def check_error(response: Any, code: int, id: Any = 1, *, data: Any = ...) -> None:
    """``data``: what it must be; ``...`` for none."""
    error = {"code": code, "message": MESSAGES[code]} | ({} if data is ... else {"data": data})
    assert response == {"jsonrpc": "2.0", "error": error, "id": id}


def without_data(answer: Any) -> Any:
    """Take ``data`` off error objects: the specification leaves it to the server, its examples have none."""
    if isinstance(answer, list):
        return [without_data(response) for response in answer]
    if isinstance(answer, dict) and "error" in answer:
        return answer | {"error": {name: value for name, value in answer["error"].items() if name != "data"}}
    return answer


def boom(*args: Any) -> None:
    raise ValueError("password=hunter2")


def do_nothing(*args: Any) -> None:
    pass


def subtract(minuend: float, subtrahend: float) -> float:
    return minuend - subtrahend


class Counter:
    """A callable object that is false."""

    def __len__(self) -> int:
        return 0

    def __call__(self, step: int) -> int:
        return step + 1

    def bound(self, step: int, **more: int) -> list[Any]:
        return [step, more]

    @classmethod
    def of_class(cls, step: int) -> str:
        return f"{cls.__name__} {step}"


async def asynchronous() -> None:
    pass
