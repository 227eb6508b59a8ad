"""What the tests of the encoder and of the decoder share: what py-amqp writes, and streams of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from struct import pack, unpack_from
from types import SimpleNamespace
from typing import Any

from amqp import spec
from amqp.basic_message import Message
from amqp.method_framing import frame_writer
from amqp.serialization import dumps, loads
from hypothesis import strategies as st

from jsonrpc_amqp.amqp.base import Delivery
from jsonrpc_amqp.amqp.decoder import Decoder
from jsonrpc_amqp.amqp.encoder import Encoder
from jsonrpc_amqp.amqp.frames import HEARTBEAT, Event, Undecoded

# The smallest that AMQP allows, so that small bodies take several frames.
FRAME_MAX = 4096
MIB = 1 << 20
INT64_MAX = (1 << 63) - 1


# -- py-amqp's side -----------------------------------------------------------------------------------


def written(channel: int, method: tuple[int, int], arguments: bytes, content: Message | None = None) -> bytes:
    """Return what py-amqp writes."""
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


def decode_table(table: bytes) -> dict[str, Any]:
    return dict(loads("F", table, 0)[0][0])


def encode_table(table: Mapping[str, Any]) -> bytes:
    return bytes(dumps("F", (table,)))


def decoder(*, max_body: int = MIB, frame_max: int = FRAME_MAX) -> Decoder:
    return Decoder(max_body=max_body, frame_max=frame_max, is_browsing=True)


def encoder() -> Encoder:
    return Encoder(frame_max=FRAME_MAX)


def deliver(
    body: bytes = b"{}", *, channel: int = 1, tag: int = 1, redelivered: bool = False, exchange: str = "jsonrpc",
    routing_key: str = "a.request.b.1", **properties: Any
) -> bytes:  # fmt: skip
    arguments = dumps("sLbss", ("consumer", tag, redelivered, exchange, routing_key))
    return written(channel, spec.Basic.Deliver, arguments, Message(body, **properties))


def give_back(body: bytes, *, channel: int, code: int, text: str, exchange: str, key: str, **properties: Any) -> bytes:
    arguments = dumps("Bsss", (code, text, exchange, key))
    return written(channel, spec.Basic.Return, arguments, Message(body, **properties))


def get_ok(body: bytes, *, channel: int, **properties: Any) -> bytes:
    return written(channel, spec.Basic.GetOk, dumps("Lbssl", (7, True, "e", "k", 3)), Message(body, **properties))


def frame(kind: int, channel: int, payload: bytes, end: int = 0xCE) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + bytes([end])


def with_table(table: bytes) -> bytes:
    """Return a delivery whose headers are these bytes, with their length."""
    method, _header, body = frames_of(deliver(b"{}"))
    return method + frame(2, 1, pack(">HHQH", 60, 0, 2, 0x2000) + table) + body


def facts(event: Event) -> Any:
    """Make events comparable: a delivery is no tuple."""
    if isinstance(event, Delivery):
        return {name: getattr(event, name) for name in {*Delivery.__slots__, "headers"} - {"headers_of"}}
    if isinstance(event, Undecoded):
        return event._replace(delivery=facts(event.delivery))
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
header_names = st.text(max_size=12).filter(lambda name: name not in ("timeout-ms", "CC", "BCC", "x-death"))
numbers = st.integers(-INT64_MAX, INT64_MAX) | st.floats(allow_nan=False, allow_infinity=False)
tables = st.dictionaries(
    header_names,
    st.none() | st.booleans() | numbers | st.text(max_size=20) | st.lists(st.integers(0, 9), max_size=3),
    max_size=4,
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
