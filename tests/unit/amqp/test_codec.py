"""Frames <-> values: the same bytes as py-amqp's, the same events however they are cut, and nothing but FrameError."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from struct import pack, unpack_from
from types import SimpleNamespace
from typing import Any

import pytest
from amqp import spec
from amqp.basic_message import Message
from amqp.method_framing import frame_handler, frame_writer
from amqp.serialization import dumps, loads
from hypothesis import given, settings
from hypothesis import strategies as st

from jsonrpc_amqp.amqp.base import Delivery, Publish, Returned
from jsonrpc_amqp.amqp.decoder import Decoder
from jsonrpc_amqp.amqp.encoder import Encoder, ack, reject
from jsonrpc_amqp.amqp.frames import HEARTBEAT, Confirm, Event, Frame, FrameError, ReturnEvent

# The smallest that AMQP allows, so that small bodies take several frames.
FRAME_MAX = 4096
MIB = 1 << 20
INT64_MAX = (1 << 63) - 1


# -- py-amqp's side -----------------------------------------------------------------------------------


def written(channel: int, method: tuple[int, int], arguments: bytes, content: Message | None = None) -> bytes:
    """Give what py-amqp writes."""
    out = bytearray()
    connection = SimpleNamespace(frame_max=FRAME_MAX, bytes_sent=0)
    frame_writer(connection, SimpleNamespace(write=out.extend))(1, channel, method, arguments, content)
    return bytes(out)


def frames_of(data: bytes) -> list[bytes]:
    frames, start = [], 0
    while start < len(data):
        end = start + unpack_from(">I", data, start + 3)[0] + 8
        frames.append(data[start:end])
        start = end
    return frames


def read_back(data: bytes) -> list[tuple[int, tuple[int, int], bytes, Message | None]]:
    """Give the publishes that py-amqp reads: channel, method, arguments, content."""
    seen: list[Any] = []
    publishes = frozenset([spec.Basic.Publish])
    handle = frame_handler(SimpleNamespace(bytes_recv=0), lambda *event: seen.append(event), content_methods=publishes)
    for each in frames_of(data):
        assert each[-1] == 0xCE
        handle((each[0], unpack_from(">H", each, 1)[0], each[7:-1]))
    return seen


def decode_table(table: bytes) -> dict[str, Any]:
    return dict(loads("F", table, 0)[0][0])


def encode_table(table: Mapping[str, Any]) -> bytes:
    return bytes(dumps("F", (table,)))


def decoder(*, max_body: int = MIB, frame_max: int = FRAME_MAX) -> Decoder:
    return Decoder(max_body=max_body, frame_max=frame_max, decode_table=decode_table)


def encoder() -> Encoder:
    return Encoder(frame_max=FRAME_MAX, encode_table=encode_table)


def deliver(
    body: bytes = b"{}", *, channel: int = 1, tag: int = 1, redelivered: bool = False, exchange: str = "jsonrpc",
    routing_key: str = "a.request.b.1", **properties: Any
) -> bytes:  # fmt: skip
    arguments = dumps("sLbss", ("consumer", tag, redelivered, exchange, routing_key))
    return written(channel, spec.Basic.Deliver, arguments, Message(body, **properties))


def give_back(body: bytes, *, channel: int, code: int, text: str, exchange: str, key: str, **properties: Any) -> bytes:
    arguments = dumps("Bsss", (code, text, exchange, key))
    return written(channel, spec.Basic.Return, arguments, Message(body, **properties))


def get_ok(body: bytes, *, channel: int) -> bytes:
    return written(channel, spec.Basic.GetOk, dumps("Lbssl", (1, False, "e", "k", 0)), Message(body))


def frame(kind: int, channel: int, payload: bytes, end: int = 0xCE) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + bytes([end])


def with_table(table: bytes) -> bytes:
    """Give a delivery whose headers are these bytes, with their length."""
    method, _header, body = frames_of(deliver(b"{}"))
    return method + frame(2, 1, pack(">HHQH", 60, 0, 2, 0x2000) + table) + body


def facts(event: Event) -> Any:
    """Make events comparable: a delivery is no tuple."""
    if isinstance(event, Delivery):
        return {name: getattr(event, name) for name in {*Delivery.__slots__, "headers"} - {"headers_of"}}
    return event


def feed(data: bytes, cuts: Iterable[int] = (), **options: Any) -> list[Any]:
    """Decode a stream, cut at these places."""
    target = decoder(**options)
    pieces = (data[start:end] for start, end in pairwise([0, *sorted(cuts), len(data)]))
    return [facts(event) for piece in pieces for event in target.feed(piece)]


def only_delivery(data: bytes, **options: Any) -> Delivery:
    (event,) = decoder(**options).feed(data)
    assert isinstance(event, Delivery)
    return event


METHOD, HEADER, BODY = frames_of(deliver(b"body"))
BIG = encode_table({"x": "." * FRAME_MAX})
HEADER_OF_BIG = frame(2, 1, pack(">HHQH", 60, 0, len(BIG), 0))
RETURN = frames_of(give_back(b"", channel=1, code=312, text="NO_ROUTE", exchange="e", key="k"))[0]


# -- what is tried ------------------------------------------------------------------------------------

# 63 characters of four bytes each fit a short string.
names = st.text(max_size=63)
optional_names = st.none() | names
channels = st.integers(1, 3)
# No frame, one, one that is full or nearly, two, four.
sizes = st.sampled_from([FRAME_MAX - 9, FRAME_MAX - 8, FRAME_MAX - 7, 3 * FRAME_MAX])
bodies = st.binary(max_size=64) | sizes.map(bytes)
tables = st.dictionaries(
    st.text(max_size=12).filter(lambda name: name != "timeout-ms"),
    st.none() | st.booleans() | st.integers(-INT64_MAX, INT64_MAX) | st.floats(allow_nan=False) | st.text(max_size=20)
    | st.lists(st.integers(0, 9), max_size=3),
    max_size=4,
)  # fmt: skip
publishes = st.builds(
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
properties = st.fixed_dictionaries(
    {},
    optional={
        "content_type": names,
        "content_encoding": names,
        "application_headers": tables
        | st.builds(lambda table, ms: {**table, "timeout-ms": ms}, tables, st.integers(1, 0xFFFFFFFF)),
        "delivery_mode": st.integers(1, 2),
        "priority": st.integers(0, 9),
        "correlation_id": names,
        "reply_to": names,
        "expiration": names,
        "message_id": names,
        "timestamp": st.integers(0, INT64_MAX),
        "type": names,
        "user_id": names,
        "app_id": names,
        "cluster_id": names,
    },
)
deliveries = st.fixed_dictionaries(
    {
        "body": bodies,
        "channel": channels,
        "tag": st.integers(0, (1 << 64) - 1),
        "redelivered": st.booleans(),
        "exchange": names,
        "routing_key": names,
    }
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A stream of a broker: everything that it may send, the frames of the channels in turn or not."""
    by_channel: dict[int, list[bytes]] = {}
    for _ in range(draw(st.integers(1, 6))):
        channel = draw(channels)
        frames = frames_of(draw(st.sampled_from(KINDS))(draw, channel))
        by_channel.setdefault(channel, []).extend(frames)
    stream = []
    while by_channel:
        channel = draw(st.sampled_from(sorted(by_channel)))
        stream.append(by_channel[channel].pop(0))
        if not by_channel[channel]:
            del by_channel[channel]
    return b"".join(stream)


KINDS = [
    lambda draw, channel: deliver(**draw(deliveries) | {"channel": channel}, **draw(properties)),
    lambda draw, channel: deliver(b"{}", channel=channel, application_headers={"timeout-ms": 5}, user_id="guest"),
    lambda draw, channel: give_back(
        draw(bodies), channel=channel, code=312, text="NO_ROUTE", exchange="e", key=draw(names), **draw(properties)
    ),
    lambda draw, channel: get_ok(draw(bodies), channel=channel),
    lambda draw, channel: written(channel, spec.Basic.Ack, dumps("Lb", (draw(st.integers(1, 9)), draw(st.booleans())))),
    lambda draw, channel: written(channel, spec.Queue.DeclareOk, dumps("sll", ("q", 1, 2))),
    lambda draw, channel: HEARTBEAT,
]


# -- encoding -----------------------------------------------------------------------------------------


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


@given(message=publishes, channel=st.integers(1, 65535))
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
def test_headers_that_do_not_fit_are_refused(headers: dict[Any, Any]) -> None:
    for timeout_ms in (None, 1):
        with pytest.raises(ValueError, match=r"^headers: "):
            encoder().publish(1, Publish("e", "k", b"", headers=headers, timeout_ms=timeout_ms))


@given(channel=st.integers(1, 65535), tag=st.integers(0, (1 << 64) - 1), multiple=st.booleans())
def test_acks_are_what_py_amqp_writes(channel: int, tag: int, multiple: bool) -> None:
    assert ack(channel, tag, multiple) == written(channel, spec.Basic.Ack, dumps("Lb", (tag, multiple)))
    for requeue in (True, False):
        assert reject(channel, tag, requeue) == written(channel, spec.Basic.Reject, dumps("Lb", (tag, requeue)))


# -- decoding -----------------------------------------------------------------------------------------


@given(given_facts=deliveries, given_properties=properties)
def test_a_delivery_is_what_py_amqp_wrote(given_facts: dict[str, Any], given_properties: dict[str, Any]) -> None:
    delivery = only_delivery(deliver(**given_facts, **given_properties))

    assert {name: getattr(delivery, name) for name in given_facts} == given_facts
    assert delivery.size == len(given_facts["body"])
    for name in ("correlation_id", "reply_to", "message_id", "user_id"):
        assert getattr(delivery, name) == given_properties.get(name)
    table = given_properties.get("application_headers")
    assert delivery.headers == (table or {})
    assert delivery.raw_headers == (None if table is None else encode_table(table))
    assert delivery.timeout_ms == (table or {}).get("timeout-ms")


@given(body=bodies, code=st.integers(0, 65535), text=names, exchange=names, key=names, rest=properties)
def test_a_return_is_what_py_amqp_wrote(
    body: bytes, code: int, text: str, exchange: str, key: str, rest: dict[str, Any]
) -> None:
    stream = give_back(body, channel=3, code=code, text=text, exchange=exchange, key=key, **rest)
    returned = Returned(code, text, exchange, key, rest.get("correlation_id"), rest.get("message_id"))

    assert feed(stream) == [ReturnEvent(3, returned)]


@pytest.mark.parametrize("multiple", [False, True])
def test_confirms(multiple: bool) -> None:
    stream = written(2, spec.Basic.Ack, dumps("Lb", (1 << 40, multiple)))
    stream += written(3, spec.Basic.Nack, dumps("Lbb", (7, multiple, True)))

    assert feed(stream) == [Confirm(2, 1 << 40, multiple, nack=False), Confirm(3, 7, multiple, nack=True)]


def test_heartbeats_are_swallowed_even_amid_a_message() -> None:
    method, *rest = frames_of(deliver(b"body"))

    assert frame(8, 0, b"") == HEARTBEAT
    assert [event["body"] for event in feed(HEARTBEAT + method + HEARTBEAT + b"".join(rest))] == [b"body"]


def test_what_is_rare_is_handed_on_as_it_came() -> None:
    body = bytes(2 * FRAME_MAX)
    stream = written(1, spec.Queue.DeclareOk, dumps("sll", ("q", 1, 2))) + get_ok(body, channel=2)
    stream += written(0, spec.Connection.Blocked, dumps("s", ("low on memory",)))
    events = feed(stream)

    assert events == [Frame(each[0], unpack_from(">H", each, 1)[0], each[7:-1]) for each in frames_of(stream)]
    assert [event.type for event in events] == [1, 1, 2, 3, 3, 3, 1]


def test_channels_take_turns() -> None:
    first, second = (frames_of(deliver(bytes([at]) * FRAME_MAX, channel=at)) for at in (1, 2))
    stream = b"".join(each for pair in zip(first, second, strict=True) for each in pair)

    assert [(event["channel"], event["body"]) for event in feed(stream)] == [
        (1, b"\1" * FRAME_MAX),
        (2, b"\2" * FRAME_MAX),
    ]


@settings(max_examples=300)
@given(stream=streams(), data=st.data())
def test_cuts_change_nothing(stream: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=30))

    assert feed(stream, cuts) == feed(stream)


@given(stream=streams())
def test_not_even_a_cut_after_every_byte(stream: bytes) -> None:
    stream = stream[:2000]

    assert feed(stream, range(len(stream))) == feed(stream)


LARGE = 1 << 14  # of which some pieces are worth a view, and others are not


@given(cuts=st.lists(st.integers(0, 5 * LARGE) | st.integers(0, 5 * LARGE).map(lambda at: at // LARGE * LARGE + 60)))
def test_cuts_change_nothing_in_large_bodies(cuts: list[int]) -> None:
    large = Encoder(frame_max=LARGE, encode_table=encode_table)
    sent = [
        large.publish(1, Publish("e", "k", bytes([at]) * size)) for at, size in enumerate((3 * LARGE, 9000, 40, 7000))
    ]
    stream = b"".join(METHOD + b"".join(frames_of(each)[1:]) for each in sent)
    events = feed(stream, [cut for cut in cuts if cut < len(stream)], frame_max=LARGE)

    assert [event["body"] for event in events] == [b"\0" * 3 * LARGE, b"\1" * 9000, b"\2" * 40, b"\3" * 7000]


def test_text_that_is_not_utf_8_goes_back_as_it_came() -> None:
    stream = deliver(routing_key="a.request.K", correlation_id="C").replace(b"request.K", b"request.\xff")
    delivery = only_delivery(stream.replace(b"\x01C", b"\x01\xe9"))
    answer = Publish("e", delivery.routing_key, b"", correlation_id=delivery.correlation_id)

    assert delivery.correlation_id == "\udce9"
    sent = encoder().publish(1, answer)
    assert b"\x0ba.request.\xff" in sent
    assert b"\x01\xe9" in sent


# -- timeout-ms and other headers ---------------------------------------------------------------------


def entry(value: bytes, name: bytes = b"timeout-ms") -> bytes:
    return bytes([len(name)]) + name + value


@pytest.mark.parametrize(
    ("value", "timeout_ms"),
    [
        (b"I" + pack(">i", 1500), 1500),
        (b"I" + pack(">i", 0x7FFFFFFF), 0x7FFFFFFF),
        (b"I" + pack(">i", 0), None),
        (b"I" + pack(">i", -5), None),
        (b"l" + pack(">q", 1500), 1500),
        (b"l" + pack(">q", 0xFFFFFFFF), 0xFFFFFFFF),
        (b"l" + pack(">q", 0x100000000), None),
        (b"l" + pack(">q", -1), None),
        (b"L" + pack(">q", 1500), 1500),
        (b"i" + pack(">I", 0xFFFFFFFF), 0xFFFFFFFF),
        (b"s" + pack(">h", 1500), 1500),
        (b"u" + pack(">H", 65535), 65535),
        (b"b" + pack(">b", 100), 100),
        (b"B" + pack(">B", 200), 200),
        (b"t\x01", None),
        (b"d" + pack(">d", 1500), None),
        (b"S" + pack(">I", 4) + b"1500", None),
        (b"V", None),
        (b"?", None),
        (b"", None),
        (b"I\0", None),
    ],
)
@pytest.mark.parametrize("others", [b"", entry(b"I\0\0\0\x09", b"other")], ids=["alone", "with others"])
def test_timeouts(value: bytes, timeout_ms: int | None, others: bytes) -> None:
    entries = others + entry(value)

    assert only_delivery(with_table(pack(">I", len(entries)) + entries)).timeout_ms == timeout_ms


@given(entries=st.binary(max_size=60) | st.binary(max_size=20).map(lambda end: entry(b"I\0\0\0\x01") + end))
def test_headers_that_cannot_be_read_are_no_headers(entries: bytes) -> None:
    table = pack(">I", len(entries)) + entries
    try:
        expected = decode_table(table)
    except Exception:
        expected = {}
    delivery = only_delivery(with_table(table))

    assert delivery.raw_headers == table
    assert repr(delivery.headers) == repr(expected)  # NaN differs from itself
    assert delivery.timeout_ms in (None, expected.get("timeout-ms"))


def test_tables_nested_without_end_are_no_headers() -> None:
    table = pack(">I", 0)
    for _ in range(3000):
        table = pack(">I", len(table) + 2) + b"\0F" + table

    with pytest.raises(RecursionError):
        decode_table(table)
    assert only_delivery(with_table(table), frame_max=131072).headers == {}


# -- bounds -------------------------------------------------------------------------------------------


def test_a_body_over_the_cap_is_thrown_away_as_it_arrives() -> None:
    method, header, *_ = frames_of(deliver(b"x"))
    size = 64 * MIB
    header = header.replace(pack(">HHQ", 60, 0, 1), pack(">HHQ", 60, 0, size))
    piece = frame(3, 1, bytes(FRAME_MAX - 8))
    target = decoder(max_body=MIB)
    whole, rest = divmod(size, FRAME_MAX - 8)
    tracemalloc.start()
    try:
        assert target.feed(method + header) == []
        assert all(target.feed(piece) == [] for _ in range(whole))
        (big, small) = target.feed(frame(3, 1, bytes(rest)) + deliver(b"small"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert isinstance(big, Delivery)
    assert isinstance(small, Delivery)
    assert (big.body, big.size, small.body) == (None, size, b"small")
    assert peak < MIB / 4


@pytest.mark.parametrize(
    "reads",
    [
        pytest.param(lambda each: (each[at : at + 1] for at in range(len(each))), id="byte by byte"),
        pytest.param(lambda each: [each + HEARTBEAT * len(each)], id="among much else"),
    ],
)
def test_what_is_here_of_a_body_takes_little_more_than_its_size(reads: Callable[[bytes], Iterable[bytes]]) -> None:
    size, piece = MIB // 16, 5000
    target = decoder(max_body=size, frame_max=size)
    method, header, *_ = frames_of(deliver(b"x"))
    assert target.feed(method + header.replace(pack(">HHQ", 60, 0, 1), pack(">HHQ", 60, 0, size))) == []
    tracemalloc.start()
    try:
        for _ in range(size // piece):
            assert all(target.feed(data) == [] for data in reads(frame(3, 1, bytes(piece))))
        held, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < 1.5 * size


@pytest.mark.parametrize("size", [1000, 2 * FRAME_MAX])
def test_the_cap_is_on_more_than_its_bytes(size: int) -> None:
    assert only_delivery(deliver(bytes(size)), max_body=size).body == bytes(size)
    assert only_delivery(deliver(bytes(size)), max_body=size - 1).body is None


def test_an_announced_size_reserves_nothing() -> None:
    method, header, *_ = frames_of(deliver(b"x"))
    header = header.replace(pack(">HHQ", 60, 0, 1), pack(">HHQ", 60, 0, (1 << 64) - 1))

    assert feed(method + header, max_body=1 << 64) == []


@pytest.mark.parametrize(
    ("frame_max", "read"), [(4096, 65536), (1 << 19, 1)], ids=["a large body", "a frame that drips byte by byte"]
)
def test_time_is_linear_in_bytes(frame_max: int, read: int) -> None:
    # What is quadratic takes many seconds here.
    size = 16 * MIB if read > 1 else frame_max - 8
    sent = Encoder(frame_max=frame_max, encode_table=encode_table).publish(1, Publish("e", "k", bytes(size)))
    _publish, *header_and_body = frames_of(sent)
    stream = b"".join([METHOD, *header_and_body])
    target = decoder(max_body=size, frame_max=frame_max)
    started = time.process_time()
    events = [event for at in range(0, len(stream), read) for event in target.feed(stream[at : at + read])]

    assert time.process_time() - started < 2
    assert [facts(event)["size"] for event in events] == [size]


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"AMQP\0\0\x09\x01", id="another version of the protocol"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n", id="another protocol"),
        pytest.param(frame(4, 1, b""), id="unknown type"),
        pytest.param(frame(1, 1, b"\0\x0a\0\x0a", end=0), id="bad end"),
        pytest.param(pack(">BHI", 1, 1, FRAME_MAX - 7), id="over frame_max, known from its first bytes"),
        pytest.param(METHOD[:-1] + b"\0", id="bad end of a method"),
        pytest.param(METHOD + HEADER[:-1] + b"\0" + BODY, id="bad end of a header"),
        pytest.param(METHOD + HEADER + BODY[:-1] + b"\0", id="bad end of a body"),
        pytest.param(METHOD + HEADER[:-1] + bytes(FRAME_MAX), id="header over its size"),
        pytest.param(METHOD + frame(2, 1, pack(">HHQH", 60, 0, 4, 0x2000) + BIG) + BODY, id="header over frame_max"),
        pytest.param(METHOD + HEADER_OF_BIG + frame(3, 1, BIG), id="body over frame_max"),
        pytest.param(frame(1, 1, b"\0\x3c\0"), id="half a method"),
        pytest.param(HEADER, id="header without method"),
        pytest.param(BODY, id="body without method"),
        pytest.param(METHOD + BODY, id="body without header"),
        pytest.param(METHOD + frame(3, 1, HEADER[7:-1]) + BODY, id="header in a frame for bodies"),
        pytest.param(METHOD + HEADER + HEADER, id="two headers"),
        pytest.param(METHOD + METHOD, id="two methods"),
        pytest.param(METHOD + HEADER + METHOD, id="method before the body"),
        pytest.param(METHOD + HEADER + frame(1, 1, b"\0\x14\0\x28"), id="channel.close before the body"),
        pytest.param(METHOD + frame(2, 2, HEADER[7:-1]) + BODY, id="header on another channel"),
        pytest.param(METHOD + HEADER + frame(3, 2, b"body"), id="body on another channel"),
        pytest.param(METHOD + HEADER + frame(3, 1, b"body."), id="more body than announced"),
        pytest.param(METHOD + HEADER + frame(3, 1, b"bod") + BODY, id="more body than announced, in two"),
        pytest.param(METHOD + HEADER.replace(b"\0\x3c\0\0", b"\0\x0a\0\0") + BODY, id="header of another class"),
        pytest.param(METHOD + frame(2, 1, bytes([0, 60, 0, 0])), id="half a header"),
        pytest.param(METHOD + frame(2, 1, pack(">HHQH", 60, 0, 4, 0) + b"x") + BODY, id="more than the properties"),
        pytest.param(METHOD + frame(2, 1, pack(">HHQHB", 60, 0, 4, 0x400, 9)) + BODY, id="property too long"),
        pytest.param(METHOD + frame(2, 1, pack(">HHQHB", 60, 0, 4, 0x8400, 255)), id="property far too long"),
        pytest.param(METHOD + frame(2, 1, pack(">HHQHI", 60, 0, 4, 0x2000, 1 << 31)) + BODY, id="table too long"),
        pytest.param(METHOD + frame(2, 1, pack(">HHQH", 60, 0, 4, 0x8000)), id="property missing"),
        pytest.param(frame(1, 1, METHOD[7:-1] + b"."), id="more than the arguments of deliver"),
        pytest.param(METHOD.replace(b"\x07jsonrpc", b"\xffjsonrpc"), id="exchange beyond the frame"),
        pytest.param(frame(1, 1, METHOD[7:-2]), id="routing key beyond the frame"),
        pytest.param(frame(1, 1, METHOD[7:12]), id="hardly any arguments"),
        pytest.param(frame(1, 1, RETURN[7:-1] + b"."), id="more than the arguments of return"),
        pytest.param(frame(1, 1, RETURN[7:-2]), id="key of a return beyond the frame"),
        pytest.param(frame(1, 1, ack(1, 1, False)[7:-2]), id="ack too short"),
        pytest.param(frame(1, 1, ack(1, 1, False)[7:-1] + b"."), id="ack too long"),
    ],
)
@pytest.mark.parametrize("behind", [b"", bytes(2 * FRAME_MAX)], ids=["alone", "more behind it"])
def test_what_is_not_amqp_is_refused(stream: bytes, behind: bytes) -> None:
    with pytest.raises(FrameError):
        feed(stream + behind)
    with pytest.raises(FrameError):
        feed(stream, range(len(stream)))


def outcome(data: bytes, cuts: Iterable[int] = ()) -> Any:
    try:
        return feed(data, cuts)
    except FrameError:
        return FrameError


@settings(max_examples=300)
@given(stream=st.binary(max_size=300), data=st.data())
def test_bytes_at_random_raise_nothing_else(stream: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=5))

    assert outcome(stream, cuts) == outcome(stream)


@settings(max_examples=300)
@given(stream=streams(), data=st.data())
def test_streams_with_mistakes_raise_nothing_else(stream: bytes, data: st.DataObject) -> None:
    mistaken = bytearray(stream)
    for at in data.draw(st.lists(st.integers(0, min(len(stream) - 1, 200)), min_size=1, max_size=3)):
        mistaken[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    cuts = data.draw(st.lists(st.integers(0, len(mistaken)), max_size=5))

    # repr: a damaged table may hold NaN, which differs from itself.
    assert repr(outcome(bytes(mistaken), cuts)) == repr(outcome(bytes(mistaken)))


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_property_flags_that_stand_for_nothing_are_ignored(bits: int) -> None:
    # RabbitMQ passes them on as they came; a message must not cost the connection, and come again, and again.
    [delivery] = decoder().feed(METHOD + frame(2, 1, pack(">HHQH", 60, 0, 4, bits)) + BODY)
    assert isinstance(delivery, Delivery)
    assert delivery.body is not None
    assert len(delivery.body) == 4
