"""Publishes, acks, rejects and requeues as bytes: the same as py-amqp's, and nothing that AMQP has no form for."""

from __future__ import annotations

from collections.abc import Callable
from struct import unpack_from
from types import SimpleNamespace
from typing import Any

import pytest
from amqp import spec
from amqp.basic_message import Message
from amqp.method_framing import frame_handler
from amqp.serialization import dumps, loads
from hypothesis import given
from hypothesis import strategies as st

from jsonrpc_amqp.amqp.base import DIRECT_REPLY_TO, Publish
from jsonrpc_amqp.amqp.encoder import ack, barrier, consume, reject, requeue
from jsonrpc_amqp.amqp.tables import Headers
from jsonrpc_amqp.errors import EncodeError

from .tools import (
    FRAME_MAX,
    bodies,
    encoder,
    frames_of,
    names,
    optional_names,
    tables,
    written,
)


def read_back(data: bytes) -> list[tuple[int, tuple[int, int], bytes, Message | None]]:
    """Return the publishes that py-amqp reads: channel, method, arguments, content."""
    seen: list[Any] = []
    publishes = frozenset([spec.Basic.Publish])
    handle = frame_handler(SimpleNamespace(bytes_recv=0), lambda *event: seen.append(event), content_methods=publishes)
    for each in frames_of(data):
        assert each[-1] == 0xCE
        handle((each[0], unpack_from(">H", each, 1)[0], each[7:-1]))
    return seen


def publishes_with(tables: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[Publish]:
    return st.builds(
        Publish,
        exchange=names,
        routing_key=names,
        body=bodies,
        mandatory=st.booleans(),
        persistent=st.booleans(),
        correlation_id=optional_names,
        reply_to=optional_names,
        expiration_ms=st.none() | st.integers(1, 0xFFFFFFFF),
        timeout_ms=st.none() | st.integers(1, 0x7FFFFFFF),
        message_id=optional_names,
        user_id=optional_names,
        headers=st.none() | tables,
    )


publishes = publishes_with(tables)


def as_message(message: Publish) -> Message:
    timeout = {} if message.timeout_ms is None else {"timeout-ms": message.timeout_ms}
    expiration = None if message.expiration_ms is None else str(message.expiration_ms)
    return Message(
        message.body,
        content_type="application/json",
        application_headers={**timeout, **(message.headers or {})} or None,
        delivery_mode=2 if message.persistent else 1,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        expiration=expiration,
        message_id=message.message_id,
        user_id=message.user_id,
    )


# py-amqp writes large integers as "L", see test_tables.
small_tables = tables.filter(lambda table: not any(isinstance(v, int) and abs(v) >= 1 << 31 for v in table.values()))


@given(message=publishes_with(small_tables), channel=st.integers(1, 65535))
def test_a_publish_is_what_py_amqp_writes(message: Publish, channel: int) -> None:
    arguments = dumps("Bssbb", (0, message.exchange, message.routing_key, message.mandatory, False))
    expected = written(channel, spec.Basic.Publish, arguments, as_message(message))

    assert encoder().publish(channel, message) == expected


@given(message=publishes, timeout_ms=st.integers(1, 0xFFFFFFFF))
def test_py_amqp_reads_a_publish(message: Publish, timeout_ms: int) -> None:
    message.timeout_ms = timeout_ms
    ((channel, method, arguments, content),) = read_back(encoder().publish(7, message))

    assert (channel, method) == (7, spec.Basic.Publish)
    assert content is not None
    assert loads("Bssbb", arguments, 4)[0] == [0, message.exchange, message.routing_key, message.mandatory, False]
    assert (content.body or b"") == message.body
    sent = {name: value for name, value in as_message(message).properties.items() if value is not None}
    assert content.properties == sent


# What most calls and replies look like; the encoder keeps a template for each shape of these.
usual_publishes = st.builds(
    Publish,
    exchange=names,
    routing_key=names | st.just("100%b%%"),
    body=bodies | st.just(b"%b %s"),
    mandatory=st.booleans(),
    correlation_id=names,
    reply_to=optional_names,
    expiration_ms=st.none() | st.integers(1, 0xFFFFFFFF),
    timeout_ms=st.none() | st.integers(1, 0xFFFFFFFF),
    user_id=optional_names,
)


@given(channel=st.integers(1, 65535), messages=st.lists(usual_publishes, min_size=1, max_size=4))
def test_a_template_gives_the_same_bytes(channel: int, messages: list[Publish]) -> None:
    target = encoder()
    for message in messages * 2:  # the second time by the template
        assert target.publish(channel, message) == b"".join(target.pieces(channel, message))


@given(message=publishes, channel=st.integers(1, 65535))
def test_pieces_are_the_same_bytes(message: Publish, channel: int) -> None:
    assert b"".join(encoder().pieces(channel, message)) == encoder().publish(channel, message)


def test_pieces_of_a_large_body_are_no_copies() -> None:
    body = bytes(10 * FRAME_MAX)
    for message in (Publish("e", "k", body), Publish("e", "k", body, correlation_id="1")):
        pieces = encoder().pieces(1, message)
        assert b"".join(pieces) == encoder().publish(1, message)
        assert sum(len(piece) for piece in pieces if isinstance(piece, memoryview) and piece.obj is body) == len(body)


def test_a_text_that_is_too_long_is_refused() -> None:
    for persistent in (False, True):
        with pytest.raises(ValueError, match="routing_key: 256 bytes"):
            encoder().publish(1, Publish("e", "k" * 256, b"x", persistent=persistent, correlation_id="1"))
        with pytest.raises(ValueError, match="correlation_id: 256 bytes"):
            encoder().publish(1, Publish("e", "k", b"x", persistent=persistent, correlation_id="1" * 256))


def test_templates_are_kept_for_a_bounded_number_of_shapes() -> None:
    target = encoder()
    for key in range(200):
        for number in range(1, 12):
            target.publish(1, Publish("e", "r" * key, b"x", correlation_id="1" * number))
    assert 0 < len(target._templates) <= 1000


def test_an_empty_body_has_no_body_frame() -> None:
    assert [each[0] for each in frames_of(encoder().publish(1, Publish("e", "k", b"")))] == [1, 2]


@pytest.mark.parametrize(
    ("timeout_ms", "entry"),
    [
        (1, b"I\0\0\0\x01"),
        (0x7FFFFFFF, b"I\x7f\xff\xff\xff"),
        (0x80000000, b"l\0\0\0\0\x80\0\0\0"),
        (0xFFFFFFFF, b"l\0\0\0\0\xff\xff\xff\xff"),
    ],
)
def test_timeouts_are_signed_integers_as_rabbitmq_reads_them(timeout_ms: int, entry: bytes) -> None:
    assert b"\x0atimeout-ms" + entry in encoder().publish(1, Publish("e", "k", b"", timeout_ms=timeout_ms))


def test_the_timeout_of_the_publish_wins_over_a_header_of_that_name() -> None:
    message = Publish("e", "k", b"", timeout_ms=5, headers={"timeout-ms": 6, "other": 7})
    ((*_, content),) = read_back(encoder().publish(1, message))

    assert content is not None
    assert content.headers == {"timeout-ms": 5, "other": 7}


def test_a_callers_own_timeout_is_left_out_where_there_is_none() -> None:
    message = Publish("e", "k", b"", headers={"timeout-ms": 6, "other": 7})
    ((*_, content),) = read_back(encoder().publish(1, message))
    assert content is not None
    assert content.headers == {"other": 7}


@pytest.mark.parametrize("name", ["exchange", "routing_key", "correlation_id", "reply_to", "message_id", "user_id"])
def test_a_text_of_more_than_255_bytes_is_refused_by_name(name: str) -> None:
    fields: dict[str, Any] = {"exchange": "e", "routing_key": "k", "body": b""}
    longest = "\u00e9" * 127 + "x"

    assert longest.encode() in encoder().publish(1, Publish(**fields | {name: longest}))
    with pytest.raises(ValueError, match=rf"^{name}: 256 bytes"):
        encoder().publish(1, Publish(**fields | {name: longest + "x"}))


@pytest.mark.parametrize(
    "headers",
    [{"x": object()}, {"x" * 256: 1}, {"x": 1 << 64}, {"x": "." * FRAME_MAX}, {1: 2}],
    ids=["no type", "name too long", "number too large", "too long for a frame", "name of no text"],
)
def test_headers_that_do_not_fit_are_refused_by_name(headers: dict[Any, Any]) -> None:
    for timeout_ms in (None, 1):
        with pytest.raises(EncodeError, match=f"header.* {next(iter(headers))!r:.30}"):
            encoder().publish(1, Publish("e", "k", b"", headers=headers, timeout_ms=timeout_ms))


def test_headers_leave_room_for_those_that_rabbitmq_adds() -> None:
    def publish(size: int) -> bytes:
        return encoder().publish(1, Publish("e", "k", b"", headers={"small": 1, "large": b"." * size}))

    largest = max(size for size in range(2000, FRAME_MAX) if not _raises(publish, size))
    _method, header = frames_of(publish(largest))
    assert len(header) == FRAME_MAX - 1024
    with pytest.raises(
        EncodeError, match=r"3065 bytes, where a frame has room for 3064; the largest header is 'large'"
    ):
        publish(largest + 1)


def _raises(publish: Callable[[int], bytes], size: int) -> bool:
    try:
        publish(size)
    except EncodeError:
        return True
    return False


def test_headers_that_were_encoded_before_are_the_same_bytes() -> None:
    headers = {"timeout-ms": 7, "trace": "t", "deep": {"a": [1]}}
    for timeout_ms in (None, 5, 1 << 31):
        message = Publish("e", "k", b"x", headers=headers, timeout_ms=timeout_ms)
        encoded = Publish("e", "k", b"x", headers=Headers(headers), timeout_ms=timeout_ms)
        assert encoder().publish(1, encoded) == encoder().publish(1, message)


@given(channel=st.integers(1, 65535), tag=st.integers(0, (1 << 64) - 1), multiple=st.booleans())
def test_what_settles_is_what_py_amqp_writes(channel: int, tag: int, multiple: bool) -> None:
    assert ack(channel, tag, multiple) == written(channel, spec.Basic.Ack, dumps("Lb", (tag, multiple)))
    assert reject(channel, tag) == written(channel, spec.Basic.Reject, dumps("Lb", (tag, False)))
    # Of one message only ("multiple" is false): others up to this tag may run.
    assert requeue(channel, tag) == written(channel, spec.Basic.Nack, dumps("Lbb", (tag, False, True)))


@given(channel=st.integers(1, 65535))
def test_what_a_server_asks_of_its_channels_is_what_py_amqp_writes(channel: int) -> None:
    assert barrier(channel) == written(channel, spec.Basic.Qos, dumps("lBb", (0, 0, False)))
    arguments: Any = (0, DIRECT_REPLY_TO, "self", False, True, False, True, {})
    assert consume(channel, DIRECT_REPLY_TO, "self") == written(
        channel, spec.Basic.Consume, dumps("BssbbbbF", arguments)
    )
