"""Derives texts, numbers and choices from the bytes of a fuzzer."""

from __future__ import annotations

from typing import Any

from jsonrpc_amqp.amqp.base import Delivery

_MEANINGFUL = (
    "alice", "a.b", "a%2Eb", "_", "*", "#", ".", "x_req", "x_dead", "q", "amq.topic", "amq.gen-x", "request",
    "response", "amq.rabbitmq.reply-to", "S", "S.T", "g1h2AA5yZXBseUAxNDk5NTU3MgAADAUAAAAAawYyTg==.k", "CN=a,O=b",
    "\x1b[2J",
)  # fmt: skip


class Reader:
    """Derives values from bytes deterministically; zeros follow the last byte."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        piece = self._data[self.position : self.position + count]
        self.position += count
        return piece.ljust(count, b"\0")

    @property
    def is_at_end(self) -> bool:
        return self.position >= len(self._data)

    def number(self, most: int) -> int:
        return int.from_bytes(self.take(1 if most < 256 else 2), "big") % (most + 1)

    def text(self) -> str:
        """Return text as it is decoded from AMQP (UTF-8 with ``surrogateescape``), often a meaningful one."""
        kind = self.number(5)
        if kind == 0:
            return "x" * self.number(300)
        word = "" if kind == 1 else self.choice(*_MEANINGFUL)
        return word + (self.take(self.number(12)).decode("utf-8", "surrogateescape") if kind < 4 else "")

    def maybe(self) -> str | None:
        return self.text() if self.number(1) else None

    def choice(self, *values: Any) -> Any:
        return values[self.number(len(values) - 1)]

    def rest(self) -> bytes:
        return self._data[self.position :]

    def delivery(self, body: bytes = b"") -> Delivery:
        text = self.text()
        named = f"S.request.{text}-0123456789ab"
        key = self.choice(text, f"S.request.{text}", named, f"{named}.7", "S.request", f"S.response.{text}")
        headers = self.choice(None, self.take(self.number(64)))
        return Delivery(
            1,
            1,
            bool(self.number(1)),
            self.choice("jsonrpc", "", self.text()),
            key,
            body,
            correlation_id=self.maybe(),
            reply_to=self.choice(None, self.text(), f"amq.rabbitmq.reply-to.{self.text()}"),
            user_id=self.choice(text, self.text(), None, ""),
            raw_headers=headers,
            headers_of=lambda _raw: {},
        )
