"""
The dialect of RabbitMQ's Java classes ``com.rabbitmq.tools.jsonrpc`` (pure).

JSON-RPC 1.1: ``{"version": "1.1", "method": ..., "params": [...], "id": null}``. It awaits an answer in spite of the
id, and its client asks for ``system.describe`` before all else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ..jsontext import dumps, loads
from ..transport.base import Delivery
from . import Inbound, call, read_object

VERSION = "1.1"
DESCRIBE = "system.describe"


class Procedure(NamedTuple):
    """A method and the names of its parameters."""

    name: str
    params: list[str]


class JavaServer:
    """
    Serves the requests of ``JsonRpcClient``.

    Args:
        service: Its name, for the description.
        procedures: Gives the methods that can be called.
    """

    def __init__(self, service: str, procedures: Callable[[], Iterable[Procedure]]) -> None:
        self._service = service
        self._procedures = procedures

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
                {
                    "name": name,
                    "params": [{"name": param, "type": "any"} for param in params],
                    "return": "any",
                    "idempotent": False,
                }
                for name, params in self._procedures()
            ],
        }


def _answer(response: bytes, id: Any) -> bytes:
    value = loads(response, max_depth=1_000_000)
    answer: dict[str, Any] = {"version": VERSION, "id": id}
    if "error" in value:
        answer["error"] = {"name": "JSONRPCError", **value["error"]}
    else:
        answer["result"] = value["result"]
    return dumps(answer, max_depth=1_000_000)
