"""What a broker sends: the same events however it is cut, within bounds, and nothing but FrameError."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterable
from struct import pack, unpack_from
from typing import Any

import pytest
from amqp import spec
from amqp.serialization import dumps
from hypothesis import given, settings
from hypothesis import strategies as st

from jsonrpc_amqp.amqp.base import Delivery, Publish, Returned
from jsonrpc_amqp.amqp.decoder import MOST_OF_A_HEADER, Decoder
from jsonrpc_amqp.amqp.encoder import Encoder, ack
from jsonrpc_amqp.amqp.frames import HEARTBEAT, Confirm, Frame, FrameError, ReturnEvent, Undecoded
from jsonrpc_amqp.amqp.tables import Unreadable, read

from .tools import (
    BIG,
    BODY,
    FRAME_MAX,
    HEADER,
    HEADER_OF_BIG,
    METHOD,
    MIB,
    RETURN,
    bodies,
    decoder,
    deliver,
    deliveries,
    encode_table,
    encoder,
    facts,
    feed,
    frame,
    frames_of,
    get_ok,
    give_back,
    names,
    only_delivery,
    properties,
    streams,
    with_table,
    written,
)


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
    ids = rest.get("correlation_id"), rest.get("message_id")
    returned = Returned(code, text, exchange, key, *ids, rest.get("reply_to"))

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
    stream = written(1, spec.Queue.DeclareOk, dumps("sll", ("q", 1, 2)))
    stream += written(0, spec.Connection.Blocked, dumps("s", ("low on memory",)))
    events = feed(stream)

    assert events == [Frame(each[0], unpack_from(">H", each, 1)[0], each[7:-1]) for each in frames_of(stream)]


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
    large = Encoder(frame_max=LARGE)
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
def test_headers_are_those_that_can_be_read(entries: bytes) -> None:
    table = pack(">I", len(entries)) + entries
    expected, _unreadable = read(table)
    delivery = only_delivery(with_table(table))

    assert delivery.raw_headers == table
    assert repr(delivery.headers) == repr(expected)  # NaN differs from itself
    assert delivery.timeout_ms in (None, expected.get("timeout-ms"))


def test_what_cannot_be_read_is_reported_once_and_only_where_it_is_looked_at() -> None:
    found: list[Unreadable] = []
    target = decoder()
    target.on_unreadable = found.append
    entries = entry(b"T" + b"\xff" * 8, b"when") + entry(b"t\1", b"other")
    (delivery,) = target.feed(with_table(pack(">I", len(entries)) + entries))
    assert isinstance(delivery, Delivery)
    assert found == []
    assert delivery.headers == delivery.headers == {"other": True}
    assert [each.names for each in found] == [["when"]]


def test_the_timeout_and_the_delivery_count_do_not_depend_on_other_headers() -> None:
    bad = entry(b"T" + b"\xff" * 8, b"when")
    entries = bad + entry(b"I\0\0\x05\xdc") + bad + entry(b"l" + pack(">q", 3), b"x-delivery-count")
    delivery = only_delivery(with_table(pack(">I", len(entries)) + entries))
    delivery.redelivered = True
    assert (delivery.timeout_ms, delivery.delivery_count) == (1500, 3)


def test_a_sender_cannot_have_its_request_redelivered_less_often_than_all_others() -> None:
    entries = entry(b"l" + pack(">q", -3), b"x-delivery-count")
    delivery = only_delivery(with_table(pack(">I", len(entries)) + entries))
    delivery.redelivered = True
    assert (delivery.headers["x-delivery-count"], delivery.delivery_count) == (-3, 0)


def test_a_header_may_be_larger_than_the_frame_that_was_agreed_on() -> None:
    # RabbitMQ adds headers, and sends what results in one frame: 26 bytes at each delivery from a quorum queue.
    for size in (FRAME_MAX, 1 << 19):
        stream = with_table(encode_table({"x": "." * size, "timeout-ms": 5}))
        for cuts in (range(0), range(0, len(stream), 4096)):
            [event] = feed(stream, cuts)
            assert (event["timeout_ms"], event["body"]) == (5, b"{}")


# -- messages that cannot be decoded ------------------------------------------------------------------


def header(properties: bytes, flags: int, size: int = 4) -> bytes:
    return frame(2, 1, pack(">HHQH", 60, 0, size, flags) + properties)


OVER_A_MIB = header(pack(">I", MOST_OF_A_HEADER) + bytes(MOST_OF_A_HEADER), 0x2000)
UNDECODED = [
    pytest.param(OVER_A_MIB, "headers and properties have 1048594 bytes, over the cap of 1048576", id="over a MiB"),
    pytest.param(header(b"x", 0), "do not add up", id="more than the properties"),
    pytest.param(header(b"\x09", 0x400), "do not add up", id="property too long"),
    pytest.param(header(b"\xff", 0x8400), "do not add up", id="property far too long"),
    pytest.param(header(pack(">I", 1 << 31), 0x2000), "do not add up", id="table too long"),
    pytest.param(header(b"", 0x8000), "do not add up", id="property missing"),
    pytest.param(header(b"\1a\1b", 0x600)[:-1] + b"\xce", "", id="control: two properties"),
]


@pytest.mark.parametrize("size", [4, 3 * FRAME_MAX, 0])
@pytest.mark.parametrize(("bad", "why"), UNDECODED)
def test_a_message_that_cannot_be_decoded_costs_itself_only(bad: bytes, why: str, size: int) -> None:
    bad = bad.replace(pack(">HHQ", 60, 0, 4), pack(">HHQ", 60, 0, size), 1)
    most = FRAME_MAX - 8
    body = b"".join(frame(3, 1, bytes(min(most, size - at))) for at in range(0, size, most))
    stream = METHOD + bad + body + deliver(b"next", tag=2)
    for cuts in ((), range(0, len(stream), 4099), range(min(len(stream), 300))):
        first, last = feed(stream, cuts)
        assert last["body"] == b"next"
        if not why:
            assert (first["body"], first["correlation_id"]) == (bytes(size), "a")
            continue
        assert isinstance(first, Undecoded)
        assert why in first.why
        delivery: Any = first.delivery
        assert (delivery["tag"], delivery["routing_key"], delivery["size"]) == (1, "a.request.b.1", size)
        known = {"channel", "tag", "redelivered", "exchange", "routing_key", "size", "headers"}
        assert {name for name, value in delivery.items() if value is not None} == known


def test_a_returned_message_that_cannot_be_decoded_is_returned_without_its_names() -> None:
    stream = RETURN + OVER_A_MIB + BODY + RETURN + header(b"\x09", 0x400) + BODY
    nameless = ReturnEvent(1, Returned(312, "NO_ROUTE", "e", "k", None, None))
    assert feed(stream) == feed(stream, range(0, len(stream), 4099)) == [nameless, nameless]


def test_a_header_over_the_cap_is_thrown_away_as_it_arrives() -> None:
    size = 64 * MIB
    target = decoder()
    piece = bytes(FRAME_MAX)
    tracemalloc.start()
    try:
        assert target.feed(METHOD + pack(">BHIHHQH", 2, 1, size + 14, 60, 0, 4, 0x2000)) == []
        assert all(target.feed(piece) == [] for _ in range(size // FRAME_MAX))
        (event,) = target.feed(b"\xce" + BODY)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(event, Undecoded)
    assert peak < MIB / 4


def test_an_operator_reads_larger_headers() -> None:
    target = Decoder(max_body=4 * MIB, frame_max=FRAME_MAX, max_header=4 * MIB, is_browsing=True)
    table = encode_table({"x": "." * (2 * MIB)})
    (delivery,) = target.feed(with_table(table))
    assert isinstance(delivery, Delivery)
    assert delivery.raw_headers == table


@given(body=bodies, rest=properties)
def test_a_message_that_was_asked_for_is_a_delivery(body: bytes, rest: dict[str, Any]) -> None:
    delivery = only_delivery(get_ok(body, channel=2, **rest))
    assert (delivery.tag, delivery.redelivered, delivery.exchange, delivery.routing_key) == (7, True, "e", "k")
    assert (delivery.body, delivery.message_id) == (body, rest.get("message_id"))


def test_one_that_was_not_asked_for_is_refused() -> None:
    with pytest.raises(FrameError, match="not asked for"):
        Decoder(max_body=MIB, frame_max=FRAME_MAX).feed(get_ok(b"body", channel=1))


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


def test_a_message_that_will_not_be_whole_is_let_go() -> None:
    target = decoder(max_body=2 * MIB, frame_max=2 * MIB)
    method, header, *_ = frames_of(deliver(b"x"))
    tracemalloc.start()
    try:
        target.feed(method + header.replace(pack(">HHQ", 60, 0, 1), pack(">HHQ", 60, 0, 2 * MIB)))
        target.feed(frame(3, 1, bytes(MIB)))
        target.feed(frame(3, 1, bytes(MIB))[:-100])
        held, _peak = tracemalloc.get_traced_memory()
        target.clear()
        left, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held > 2 * MIB - 1000
    assert left < MIB / 100


@pytest.mark.parametrize("size", [1000, 2 * FRAME_MAX])
def test_the_cap_is_on_more_than_its_bytes(size: int) -> None:
    assert only_delivery(deliver(bytes(size)), max_body=size).body == bytes(size)
    assert only_delivery(deliver(bytes(size)), max_body=size - 1).body is None


@pytest.mark.parametrize("method", [METHOD, RETURN])
def test_messages_are_under_way_on_some_channels_only(method: bytes) -> None:
    target = decoder()
    started = [method[:1] + pack(">H", channel) + method[3:] for channel in range(1, 18)]
    assert target.feed(b"".join(started[:16])) == []
    with pytest.raises(FrameError, match="more than 16 channels"):
        target.feed(started[16] + HEADER + BODY)


def test_the_cap_is_for_the_messages_of_all_channels_together() -> None:
    first, second = (frames_of(deliver(bytes(600), channel=at)) for at in (1, 2))
    target = decoder(max_body=1000)
    assert len(target.feed(b"".join(first + second))) == 2
    assert target.feed(first[0] + first[1]) == []
    with pytest.raises(FrameError, match="1200 bytes"):
        target.feed(second[0] + second[1] + second[2])


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
    sent = Encoder(frame_max=frame_max).publish(1, Publish("e", "k", bytes(size)))
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
