"""
The dialect of RabbitMQ's Java classes ``com.rabbitmq.tools.jsonrpc`` (pure).

JSON-RPC 1.1: ``{"method": ..., "id": null, "params": [...], "version": "1.1"}``. It awaits an answer in spite of its
id, and its client asks for ``system.describe`` before all else. What that reads of an answer was learned from the
classes of amqp-client 5.37, with both of their JSON mappers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter, Signature
from typing import Any

from ..amqp.base import Delivery
from ..jsonrpc.text import dumps, loads
from . import Inbound, call, read_object

VERSION = "1.1"
DESCRIBE = "system.describe"
# The client finds a method by its name and the number of its parameters: so many are listed of one that takes any.
_MOST_PARAMS = 16
_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class JavaServer:
    """
    Serves the requests of ``JsonRpcClient``.

    Args:
        service: Its name, for the description.
        methods: Gives the methods that can be called, by name.
    """

    def __init__(self, service: str, methods: Callable[[], Mapping[str, Signature | None]]) -> None:
        self._service = service
        self._methods = methods

    def problem(self) -> str | None:
        return None

    def read(self, _delivery: Delivery, body: bytes) -> Inbound | None:
        value = read_object(body)
        if value is None or "jsonrpc" in value or value.get("version") != VERSION:
            return None
        id = value.get("id")
        # Whatever the id: a request without one would be a notification, and the caller waits.
        request = call(value.get("method"), value.get("params") or [], 0)
        return Inbound(request, lambda response: _answer(response, id))

    def describe(self) -> dict[str, Any]:
        """Give the description of the service that the client wants of ``system.describe``."""
        return {
            "sdversion": "1.0",
            "name": self._service,
            "id": f"urn:jsonrpc-amqp:{self._service}",
            "version": "1.0",
            "summary": "",
            "procs": [
                _procedure(name, params)
                for name, signature in self._methods().items()
                if signature is not None
                for params in _params_by_count(signature)
            ],
        }


def _procedure(name: str, params: list[str]) -> dict[str, Any]:
    # All of these but "return" are needed. With another type than Object the client cuts numbers that do not fit.
    return {
        "name": name,
        "params": [{"name": param, "type": "any"} for param in params],
        "return": "any",
        "javaReturnType": "java.lang.Object",
        "idempotent": False,
    }


def _params_by_count(signature: Signature) -> Iterator[list[str]]:
    """Give the names of the parameters for each number of them that a method takes by position."""
    parameters = list(signature.parameters.values())
    if any(each.kind is each.KEYWORD_ONLY and each.default is each.empty for each in parameters):
        return
    positional = [each for each in parameters if each.kind in _BY_POSITION]
    names = [each.name for each in positional]
    for each in parameters:
        if each.kind is each.VAR_POSITIONAL:
            names += [f"{each.name}{number}" for number in range(len(names), _MOST_PARAMS)]
    least = sum(each.default is each.empty for each in positional)
    for count in range(least, len(names) + 1):
        yield names[:count]


def _answer(response: bytes, id: Any) -> bytes:
    value = loads(response, max_depth=1_000_000)
    answer: dict[str, Any] = {"version": VERSION, "id": id}
    if "error" in value:
        error = value["error"]
        told = {"name": "JSONRPCError", "code": error["code"], "message": error["message"]}
        answer["error"] = {**told, **({"error": error["data"]} if "data" in error else {})}
        # Once more behind it: one of the client's two mappers finds them only there.
        answer |= told
    else:
        answer["result"] = value["result"]
    return dumps(answer, max_depth=1_000_000)
