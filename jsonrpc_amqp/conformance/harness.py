"""Sends requests to a server, and compares its replies with what they should be."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from ..amqp.raw_client import Message, RawClient
from ..wire.display import printable

Json = Any
# Seconds to wait where no reply is allowed.
SILENCE = 0.3
DIFFERENT = 'of "{field}" it has {got}, where {wanted} is due'
_MAX_SHOWN = 160
_PROPERTIES = {"content_type": "application/json"}


class Fault(Exception):
    """The server broke the contract; the text says how."""


class NoReply(Fault):
    """The server did not reply in time."""


class Harness:
    """
    Sends requests, and takes the replies.

    Args:
        raw: The connection.
        service: The service.
        exchange: Its topic exchange.
        queue: Its request queue.
        timeout: Seconds that a reply may take.
    """

    def __init__(self, raw: RawClient, service: str, *, exchange: str, queue: str, timeout: float) -> None:
        self.raw = raw
        self.service = service
        self.exchange = exchange
        self.queue = queue
        self.timeout = timeout
        self.client = f"conformance-{secrets.token_hex(6)}"
        self._number = 0
        self._unexpected: list[Message] = []
        raw.bind(exchange, f"{service}.response.{self.client}.#")

    def key(self) -> str:
        """Return a new routing key for a call."""
        self._number += 1
        return f"{self.service}.request.{self.client}.{self._number}"

    def send(self, body: bytes, **more: Any) -> str:
        """
        Send a request over the exchange, and return its routing key.

        Args:
            more: ``key``, ``exchange``, and message properties under AMQP's names; None: without this one.
        """
        key = str(more.pop("key", None) or self.key())
        exchange = more.pop("exchange", self.exchange)
        properties: dict[str, Any] = {**_PROPERTIES, "correlation_id": key[-255:], **more}
        self.raw.publish(exchange, key, body, {name: value for name, value in properties.items() if value is not None})
        return key

    def ask(self, body: bytes, **more: Any) -> Message:
        """Send a request, and return the first message that arrives."""
        self.raw.forget()
        self.send(body, **more)
        return self.reply()

    def ask_among_others(self, body: bytes) -> Message:
        """Send a request, and return its reply; ignore other messages."""
        reply_key = self.send(body).replace(".request.", ".response.", 1)
        deadline = time.monotonic() + self.timeout
        while (left := deadline - time.monotonic()) > 0:
            for message in self.raw.take(left):
                if message.routing_key == reply_key:
                    return message
        raise NoReply(f"no answer within {self.timeout:g} s")

    def reply(self) -> Message:
        """Return the first message that arrives."""
        messages = self.raw.take(self.timeout)
        if not messages:
            raise NoReply(f"no answer within {self.timeout:g} s")
        if not messages[0].queue:
            raise Fault("the request came back: no queue is bound for it")
        self._unexpected = messages[1:]
        return messages[0]

    def expect_no_more(self) -> None:
        """Check that there was one reply only."""
        if self._unexpected or self.raw.take(SILENCE):
            raise Fault("the answer came twice")

    def expect_silence(self) -> None:
        """Check that there is no reply, and that the server still works."""
        for message in self.raw.take(SILENCE):
            raise Fault(f"nothing may be answered, and there came {shown(message.body)}")
        self.expect_alive()

    def expect_alive(self) -> None:
        """Check that the server still replies to a plain call."""
        try:
            response = read(self.ask(SUBTRACT))
        except Fault as fault:
            raise type(fault)(f"afterwards, of a plain call: {fault}") from None
        same(response, {"jsonrpc": "2.0", "result": 19, "id": 1}, "afterwards, of a plain call: ")


def read(message: Message) -> Json:
    """Return the JSON value of a reply."""
    try:
        return json.loads(message.body.decode(), parse_constant=_reject_constant)
    except ValueError as exc:
        raise Fault(f"the answer is no JSON in UTF-8: {shown(message.body)} ({exc})") from None


def same(got: Json, wanted: Json, where: str = "") -> None:
    """Check that two JSON values are the same; 1, 1.0 and true are three different ones."""
    if written(got) != written(wanted):
        raise Fault(f"{where}the answer is {_cut(got)}, where {_cut(wanted)} is due")


def same_response(got: Json, wanted: Json) -> None:
    """Check that two responses, or batches in any order, are the same but for ``message`` and ``data`` of errors."""
    if written(_comparable(got)) != written(_comparable(wanted)):
        # Show the reply in full, also the texts that were not compared.
        raise Fault(f"the answer is {_cut(got)}, where {_cut(wanted)} is due, with any texts")


def expect_error(got: Json, codes: tuple[int, ...], id: Json) -> None:
    """Check that a response is an error with one of these codes, and with this id."""
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
    """Return JSON text, the same for equal values."""
    return json.dumps(value, sort_keys=True)


def _cut(value: Json) -> str:
    text = written(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def shown(body: bytes) -> str:
    """Return bytes as printable text."""
    return printable(body.decode("utf-8", "backslashreplace"))


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def call(method: str, params: Json = None, id: Json = 1) -> bytes:
    """Return the body of a call."""
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params or [], "id": id}).encode()


SUBTRACT = call("subtract", [42, 23])
RESULT = {"jsonrpc": "2.0", "result": 19, "id": 1}
