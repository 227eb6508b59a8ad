"""What the tests of the wire contract share."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pika.frame
from hypothesis import strategies as st

from jsonrpc_amqp.amqp.base import DIRECT_REPLY_TO, Delivery, Publish
from jsonrpc_amqp.amqp.encoder import Encoder
from jsonrpc_amqp.wire.names import client_word
from jsonrpc_amqp.wire.publish import Address, call_message

NOW = 1000.0

TOKEN = "0123456789ab"

PLAIN_WORD = re.compile(r"[A-Za-z0-9_~%-]+")

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)

SERVICES = st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True), min_size=1, max_size=6).map(".".join)


def is_legal(service: str) -> bool:
    words = service.split(".")
    return len(service) <= 80 and words[0] != "amq" and not {"request", "response", "control"} & set(words)


def delivery(
    routing_key: str = "S.request.q538", exchange: str = "jsonrpc", *, timeout_ms: int | None = None, **properties: Any
) -> Delivery:
    known = {name: value for name, value in properties.items() if name not in ("headers", "delivery_mode")}
    return Delivery(1, 1, False, exchange, routing_key, b"", timeout_ms=timeout_ms, **known)


def address_of(inputs: dict[str, Any]) -> Address:
    return Address(
        exchange=inputs["exchange"],
        service=inputs["service"],
        client=client_word(inputs["user"], inputs["token"]),
        reply_to=DIRECT_REPLY_TO if inputs.get("reply") == "direct" else None,
        user=inputs["user"],
    )


def request_key(address: Address, qid: str) -> str:
    """Return the routing key of a call, as it is published."""
    return call_message(address, b"{}", number="1", qid=qid, deadline=None, now=0.0).routing_key


def deadline_in(seconds: float | None) -> float | None:
    return None if seconds is None else NOW + seconds


def new_encoder() -> Encoder:
    return Encoder(frame_max=131072)


def on_the_wire(message: Publish) -> dict[str, Any]:
    """Encode a publish, and read its frames with another AMQP library."""
    method, header, *body = frames(new_encoder().publish(1, message))
    return {
        "exchange": method.method.exchange,
        "routing_key": method.method.routing_key,
        "mandatory": method.method.mandatory,
        "properties": {name: value for name, value in vars(header.properties).items() if value is not None},
        "body": b"".join(each.fragment for each in body),
    }


def frames(data: bytes) -> Iterator[Any]:
    while data:
        used, frame = pika.frame.decode_frame(data)
        assert used, "a frame is cut off"
        yield frame
        data = data[used:]


def check_publish(message: Publish, expected: dict[str, Any]) -> None:
    sent = on_the_wire(message)
    sent["body"] = json.loads(sent["body"])
    assert sent == expected


def dead_letter_headers(name: bytes = b"\x07x-death") -> bytes:
    """Return an encoded table of headers with one entry, as RabbitMQ adds it to a dead letter."""
    entry = name + b"A\0\0\0\0"
    return len(entry).to_bytes(4, "big") + entry
