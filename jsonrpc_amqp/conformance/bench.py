"""Asking a server, and comparing what it answers with what is due."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from ..amqp.raw_client import Message, RawClient
from ..wire.display import printable

Json = Any
# How long nothing must come where nothing may.
SILENCE = 0.3
DIFFERENT = 'of "{field}" it has {got}, where {wanted} is due'
_LONGEST = 160
_PROPERTIES = {"content_type": "application/json"}


class Fault(Exception):
    """What a server did against the contract."""


class NoAnswer(Fault):
    """It did nothing."""


class Bench:
    """
    Asks the server.

    Args:
        probe: The connection.
        service: The service.
        exchange: Its topic exchange.
        queue: Its request queue.
        timeout: Seconds that an answer may take.
    """

    def __init__(self, probe: RawClient, service: str, *, exchange: str, queue: str, timeout: float) -> None:
        self.probe = probe
        self.service = service
        self.exchange = exchange
        self.queue = queue
        self.timeout = timeout
        self.client = f"conformance-{secrets.token_hex(6)}"
        self._number = 0
        self._more: list[Message] = []
        probe.bind(exchange, f"{service}.response.{self.client}.#")

    def key(self) -> str:
        """Give the routing key of a call, which no other has."""
        self._number += 1
        return f"{self.service}.request.{self.client}.{self._number}"

    def send(self, body: bytes, **more: Any) -> str:
        """Send a request over the exchange; gives its routing key."""
        key = str(more.pop("key", None) or self.key())
        exchange = more.pop("exchange", self.exchange)
        properties: dict[str, Any] = {**_PROPERTIES, "correlation_id": key[-255:], **more}
        self.probe.publish(
            exchange, key, body, {name: value for name, value in properties.items() if value is not None}
        )
        return key

    def ask(self, body: bytes, **more: Any) -> Message:
        """Send a request, and give the one message that comes of it."""
        self.probe.forget()
        self.send(body, **more)
        return self.answer()

    def ask_amid_others(self, body: bytes) -> Message:
        """Send a request, and give its answer, whatever comes of earlier ones."""
        awaited = self.send(body).replace(".request.", ".response.", 1)
        give_up = time.monotonic() + self.timeout
        while (left := give_up - time.monotonic()) > 0:
            for came in self.probe.take(left):
                if came.routing_key == awaited:
                    return came
        raise NoAnswer(f"no answer within {self.timeout:g} s")

    def answer(self) -> Message:
        """Give the one message that comes."""
        came = self.probe.take(self.timeout)
        if not came:
            raise NoAnswer(f"no answer within {self.timeout:g} s")
        if not came[0].queue:
            raise Fault("the request came back: no queue is bound for it")
        self._more = came[1:]
        return came[0]

    def expect_no_more(self) -> None:
        """Check that the answer was the only one."""
        if self._more or self.probe.take(SILENCE):
            raise Fault("the answer came twice")

    def expect_silence(self) -> None:
        """Check that nothing comes, and that the server is there all the same."""
        for came in self.probe.take(SILENCE):
            raise Fault(f"nothing may be answered, and there came {shown(came.body)}")
        self.expect_alive()

    def expect_alive(self) -> None:
        """Check that the server still answers."""
        try:
            response = read(self.ask(SUBTRACT))
        except Fault as fault:
            raise type(fault)(f"afterwards, of a plain call: {fault}") from None
        same(response, {"jsonrpc": "2.0", "result": 19, "id": 1}, "afterwards, of a plain call: ")


def read(message: Message) -> Json:
    """Read an answer as JSON."""
    try:
        return json.loads(message.body.decode(), parse_constant=_no_constant)
    except ValueError as exc:
        raise Fault(f"the answer is no JSON in UTF-8: {shown(message.body)} ({exc})") from None


def same(got: Json, wanted: Json, where: str = "") -> None:
    """Compare two JSON values: 1, 1.0 and true are three."""
    if written(got) != written(wanted):
        raise Fault(f"{where}the answer is {_cut(got)}, where {_cut(wanted)} is due")


def same_response(got: Json, wanted: Json) -> None:
    """Compare two responses, or batches of them in any order, without what is left to a server: texts and ``data``."""
    if written(_comparable(got)) != written(_comparable(wanted)):
        # As it came: a text that may be anything is no reason to hide it.
        raise Fault(f"the answer is {_cut(got)}, where {_cut(wanted)} is due, with any texts")


def expect_error(got: Json, codes: tuple[int, ...], id: Json) -> None:
    """Check a single error response."""
    if not isinstance(got, dict) or set(got) != {"jsonrpc", "error", "id"} or got["jsonrpc"] != "2.0":
        raise Fault(f"the answer is {_cut(got)}, and no JSON-RPC 2.0 error")
    error = got["error"]
    if not isinstance(error, dict) or type(error.get("code")) is not int or not isinstance(error.get("message"), str):
        raise Fault(f"its error is {_cut(error)}: an integer code and a string message are due")
    if error["code"] not in codes:
        raise Fault(f"its code is {error['code']}, where {' or '.join(map(str, codes))} is due")
    same(got["id"], id, "of the id: ")


def _comparable(response: Json) -> Json:
    if isinstance(response, list):
        return sorted(map(_comparable, response), key=written)
    if not isinstance(response, dict) or not isinstance(response.get("error"), dict):
        return response
    error = response["error"]
    texts = {"message": None} if isinstance(error.get("message"), str) else {}
    return {**response, "error": {"code": error.get("code"), **texts}}


def written(value: Json) -> str:
    return json.dumps(value, sort_keys=True)


def _cut(value: Json) -> str:
    text = written(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def shown(body: bytes) -> str:
    return printable(body.decode("utf-8", "backslashreplace"))


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def call(method: str, params: Json = None, id: Json = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params or [], "id": id}).encode()


SUBTRACT = call("subtract", [42, 23])
RESULT = {"jsonrpc": "2.0", "result": 19, "id": 1}
