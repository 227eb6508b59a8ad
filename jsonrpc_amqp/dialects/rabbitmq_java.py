"""
The dialect of RabbitMQ's Java classes ``com.rabbitmq.tools.jsonrpc`` (pure).

JSON-RPC 1.1: ``{"method": ..., "id": null, "params": [...], "version": "1.1"}``. A request with an id of null awaits a
reply, and the client calls ``system.describe`` before anything else. The form of the replies follows the sources of
amqp-client 5.37, whose client has two JSON mappers.
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
# The client finds a method by its name and the number of its parameters. A method that takes any number is described
# once for each number up to this one.
_MOST_PARAMS = 16
# The dispatcher has limited the depth of its response already.
_ANY_DEPTH = 1_000_000
_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class JavaServer:
    """
    Serves the requests of ``JsonRpcClient``.

    Args:
        service: The service's name, for the description.
        methods: Returns the signatures of the methods that can be called, by name.
    """

    def __init__(self, service: str, methods: Callable[[], Mapping[str, Signature | None]]) -> None:
        self._service = service
        self._methods = methods

    def problem(self) -> str | None:
        """Return None: any service can serve these requests."""
        return None

    def read(self, _delivery: Delivery, body: bytes) -> Inbound | None:
        value = read_object(body)
        if value is None or "jsonrpc" in value or value.get("version") != VERSION:
            return None
        id = value.get("id")
        # The caller always waits, so the JSON-RPC request needs an id, whatever the original one is.
        request = call(value.get("method"), value.get("params") or [], 0)
        return Inbound(request, lambda response: _reply(response, id))

    def describe(self) -> dict[str, Any]:
        """Return the description of the service, the result of ``system.describe``."""
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
    # The client requires all of these but "return". With a type other than Object it truncates numbers that do not fit.
    return {
        "name": name,
        "params": [{"name": param, "type": "any"} for param in params],
        "return": "any",
        "javaReturnType": "java.lang.Object",
        "idempotent": False,
    }


def _params_by_count(signature: Signature) -> Iterator[list[str]]:
    """Yield the names of the parameters for each number of positional arguments that a method takes."""
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


def _reply(response: bytes, id: Any) -> bytes:
    value = loads(response, max_depth=_ANY_DEPTH)
    reply: dict[str, Any] = {"version": VERSION, "id": id}
    if "error" in value:
        error = value["error"]
        members = {"name": "JSONRPCError", "code": error["code"], "message": error["message"]}
        reply["error"] = {**members, **({"error": error["data"]} if "data" in error else {})}
        # Repeated after it: one of the client's two mappers finds them only there.
        reply |= members
    else:
        reply["result"] = value["result"]
    return dumps(reply, max_depth=_ANY_DEPTH)
