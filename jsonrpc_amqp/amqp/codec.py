"""
Publishes, deliveries, returns and acks: bytes <-> values, without I/O. Rare frames are left to py-amqp.

Every call passes through here four times, so this is written for speed; py-amqp takes several times as long.
All numbers are big-endian. A connection carries frames (AMQP 0-9-1, section 4.2.3):

    octet   short     long                                    octet
    type    channel   size   payload, ``size`` bytes          0xCE
    1 method, 2 header, 3 body, 8 heartbeat

A message ("content", 4.2.6) is one method frame, one header frame, and as many body frames as its size asks for: none
when it is empty. Frames of other channels may come between them, frames of the same channel may not.

    method payload    short class, short method, then the arguments:
      basic.publish   short 0, shortstr exchange, shortstr routing-key, bits (1 mandatory, 2 immediate)
      basic.deliver   shortstr consumer-tag, longlong delivery-tag, bit redelivered, shortstr exchange,
                      shortstr routing-key
      basic.return    short reply-code, shortstr reply-text, shortstr exchange, shortstr routing-key
      basic.ack       longlong delivery-tag, bit multiple
      basic.nack      longlong delivery-tag, bits (1 multiple, 2 requeue)
      basic.reject    longlong delivery-tag, bit requeue
    header payload    short class, short 0, longlong body size, short flags, then the properties whose flag is set,
                      from the highest flag down (``_CONTENT_TYPE`` and so on below)
    body payload      a piece of the body

    shortstr          octet length, then that many bytes
    table             long length in bytes, then for each entry: shortstr name, octet type, value. RabbitMQ's types
                      are those of its errata (https://www.rabbitmq.com/amqp-0-9-1-errata#section_3), where "I" is a
                      signed 32-bit integer and "l" a signed 64-bit one
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from struct import error as StructError
from typing import Any, NamedTuple, TypeAlias

from .base import JSON, Delivery, Publish, Returned

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_END = 0xCE
_OVERHEAD = 8  # of a frame: type, channel, size and end

HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"

_BASIC = 60
_PUBLISH, _ACK, _REJECT = 40, 80, 90
_IS_RETURN, _IS_DELIVER, _IS_GET_OK, _IS_ACK, _IS_NACK = (bytes([0, _BASIC, 0, each]) for each in (50, 60, 71, 80, 120))

_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE, _PRIORITY = 0x8000, 0x4000, 0x2000, 0x1000, 0x0800
_CORRELATION_ID, _REPLY_TO, _EXPIRATION, _MESSAGE_ID, _TIMESTAMP = 0x0400, 0x0200, 0x0100, 0x0080, 0x0040
_TYPE, _USER_ID, _APP_ID, _CLUSTER_ID = 0x0020, 0x0010, 0x0008, 0x0004
# The two lowest flags stand for no property. RabbitMQ passes them on as a publisher set them, so they must not end the
# connection: the message would be redelivered for ever.

# Bound methods: a look-up at each use would cost as much as the unpacking.
_pack_frame = Struct(">BHI").pack  # type, channel, size
_pack_publish = Struct(">BHIHHH").pack  # type, channel, size, class, method, 0
_pack_header = Struct(">BHIHHQH").pack  # type, channel, size, class, 0, body size, flags
_pack_ack = Struct(">BHIHHQBB").pack  # type, channel, size, class, method, delivery tag, bits, end
_pack_class = Struct(">HH").pack  # class, 0
_pack_flags = Struct(">H").pack
_pack_long = Struct(">I").pack
_pack_longlong = Struct(">Q").pack
_frame = Struct(">BHI").unpack_from
_header = Struct(">BHIHHQH").unpack_from
_tag_and_bits = Struct(">QB").unpack_from
_long = Struct(">I").unpack_from
_int32 = Struct(">i").unpack_from

_JSON_TYPE = bytes([len(JSON)]) + JSON.encode()
_OCTETS = tuple(bytes([number]) for number in range(256))
_TIMEOUT = b"\x0atimeout-ms"
_ONLY_TIMEOUT = _pack_long(len(_TIMEOUT) + 5) + _TIMEOUT + b"I"  # the beginning of a table of just this entry
_LONGEST_TIMEOUT_MS = 0xFFFFFFFF
# Bytes. Shorter pieces of a body are joined as they arrive.
_WORTH_A_VIEW = 4096
# Clients choose the lengths of what is in a reply, so the number of templates is bounded.
_MOST_TEMPLATES = 1000


class FrameError(Exception):
    """The peer does not speak AMQP 0-9-1. Neither the connection nor its decoder may be used any more."""


class Frame(NamedTuple):
    """A frame for py-amqp."""

    type: int
    channel: int
    payload: bytes


class Confirm(NamedTuple):
    """The broker took a publish (``basic.ack``), or rejected it (``basic.nack``)."""

    channel: int
    tag: int
    multiple: bool
    nack: bool


class ReturnEvent(NamedTuple):
    """A mandatory message was returned (``basic.return``)."""

    channel: int
    returned: Returned


Event: TypeAlias = Delivery | ReturnEvent | Confirm | Frame


# -- from us to the broker ----------------------------------------------------------------------------


def ack(channel: int, tag: int, multiple: bool) -> bytes:
    """Encode ``basic.ack``; ``multiple`` acknowledges all up to ``tag``."""
    return _pack_ack(_METHOD, channel, 13, _BASIC, _ACK, tag, multiple, _END)


def reject(channel: int, tag: int, requeue: bool) -> bytes:
    """Encode the ``basic.reject`` of one message: back to its queue, or to its dead letters."""
    return _pack_ack(_METHOD, channel, 13, _BASIC, _REJECT, tag, requeue, _END)


class Encoder:
    """
    Encodes publishes.

    Args:
        frame_max: The largest frame that was agreed on, in bytes, with its 8 bytes of overhead.
        encode_table: Returns a table with its length, as ``amqp.serialization.dumps("F", ...)`` does; may raise
            anything.
    """

    def __init__(self, *, frame_max: int, encode_table: Callable[[Mapping[str, Any]], bytes]) -> None:
        self._max_payload = frame_max - _OVERHEAD
        self._encode_table = encode_table
        self._templates: dict[_Shape, bytes] = {}

    def publish(self, channel: int, message: Publish) -> bytes:
        """
        Encode ``basic.publish`` with its header and body frames.

        Raises:
            ValueError: A text is longer than the 255 bytes that it may have, or the headers do not fit a table or
                one frame; the error names it. Nothing may be sent.
        """
        body, number, timeout_ms = message.body, message.correlation_id, message.timeout_ms
        size = len(body)
        if (
            number is None
            or message.persistent
            or message.headers
            or message.message_id is not None
            or message.content_type != JSON
            or not 0 < size <= self._max_payload
            or (timeout_ms is not None and timeout_ms >= 1 << 31)
        ):
            return b"".join(self.pieces(channel, message))
        # Most calls and replies have this shape. Filling in a template takes a tenth of the time of ``pieces``.
        key = message.routing_key.encode("utf-8", "surrogateescape")
        tag = number.encode("utf-8", "surrogateescape")
        digits = b"" if message.expiration_ms is None else b"%d" % message.expiration_ms
        shape = (
            channel,
            message.exchange,
            message.mandatory,
            message.reply_to,
            message.user_id,
            timeout_ms is None,
            len(key),
            len(tag),
            len(digits),
        )
        template = self._templates.get(shape)
        if template is None:
            template = self._new_template(shape)
        if timeout_ms is None:
            return template % (key, _pack_longlong(size), tag, digits, _pack_long(size), body)
        return template % (key, _pack_longlong(size), _pack_long(timeout_ms), tag, digits, _pack_long(size), body)

    def pieces(self, channel: int, message: Publish) -> list[bytes | memoryview]:
        """Encode as ``publish`` does, in pieces, so that a large body is not copied."""
        arguments = _shortstr("exchange", message.exchange) + _shortstr("routing_key", message.routing_key)
        flags = _CONTENT_TYPE | _DELIVERY_MODE
        properties = _JSON_TYPE if message.content_type == JSON else _shortstr("content_type", message.content_type)
        if message.timeout_ms is not None or message.headers:
            flags |= _HEADERS
            properties += self._table(message.timeout_ms, message.headers or {})
        properties += b"\2" if message.persistent else b"\1"
        if message.correlation_id is not None:
            flags |= _CORRELATION_ID
            properties += _shortstr("correlation_id", message.correlation_id)
        if message.reply_to is not None:
            flags |= _REPLY_TO
            properties += _shortstr("reply_to", message.reply_to)
        if message.expiration_ms is not None:
            flags |= _EXPIRATION
            digits = b"%d" % message.expiration_ms
            properties += _OCTETS[len(digits)] + digits
        if message.message_id is not None:
            flags |= _MESSAGE_ID
            properties += _shortstr("message_id", message.message_id)
        if message.user_id is not None:
            flags |= _USER_ID
            properties += _shortstr("user_id", message.user_id)

        body, size = message.body, 14 + len(properties)
        if size > self._max_payload:
            raise ValueError(f"headers: {size} bytes of properties, where one frame takes {self._max_payload}")
        head = (
            _pack_publish(_METHOD, channel, 7 + len(arguments), _BASIC, _PUBLISH, 0)
            + arguments
            + (b"\1\xce" if message.mandatory else b"\0\xce")
            + _pack_header(_HEADER, channel, size, _BASIC, 0, len(body), flags)
            + properties
            + b"\xce"
        )
        pieces: list[bytes | memoryview] = [head]
        if 0 < len(body) <= self._max_payload:
            pieces += (_pack_frame(_BODY, channel, len(body)), body, b"\xce")
        else:
            whole = memoryview(body)  # whose slices are no copies
            for start in range(0, len(body), self._max_payload):
                piece = whole[start : start + self._max_payload]
                pieces += (_pack_frame(_BODY, channel, len(piece)), piece, b"\xce")
        return pieces

    def _new_template(self, shape: _Shape) -> bytes:
        template = _template(*shape)
        if len(self._templates) >= _MOST_TEMPLATES:
            self._templates.clear()
        self._templates[shape] = template
        return template

    def _table(self, timeout_ms: int | None, headers: Mapping[str, Any]) -> bytes:
        if timeout_ms is None:
            return self._encode({name: headers[name] for name in headers if name != "timeout-ms"})
        if timeout_ms < 1 << 31:
            if not headers:
                return _ONLY_TIMEOUT + _pack_long(timeout_ms)
            entry = _TIMEOUT + b"I" + _pack_long(timeout_ms)
        else:
            # py-amqp would write "L". RabbitMQ reads that, too, but its errata say "l", so other clients expect that.
            entry = _TIMEOUT + b"l" + timeout_ms.to_bytes(8, "big")
        entries = entry + self._encode({name: headers[name] for name in headers if name != "timeout-ms"})[4:]
        return _pack_long(len(entries)) + entries

    def _encode(self, headers: Mapping[str, Any]) -> bytes:
        try:
            return self._encode_table(headers)
        except Exception as exc:
            raise ValueError(f"headers: {exc}") from exc


# Channel, exchange, mandatory, reply_to, user_id, whether there is no timeout-ms header, and the lengths in bytes of
# routing key, correlation_id and expiration (0: none).
_Shape: TypeAlias = tuple[int, str, bool, str | None, str | None, bool, int, int, int]


def _template(
    channel: int,
    exchange: str,
    mandatory: bool,
    reply_to: str | None,
    user_id: str | None,
    without_timeout: bool,
    key: int,
    correlation_id: int,
    expiration: int,
) -> bytes:
    """
    Encode a publish with placeholders (``%b``) for what varies: a ``bytes`` format.

    The placeholders: routing key, size of the body (longlong), value of ``timeout-ms`` where there is that header,
    correlation_id, expiration (empty where there is none), size of the body (long), body.

    Raises:
        ValueError: A text is longer than the 255 bytes that it may have.
    """
    for name, length in (("routing_key", key), ("correlation_id", correlation_id)):
        if length > 255:
            raise _too_long(name, length)
    before = _shortstr("exchange", exchange) + _OCTETS[key]
    flags = _CONTENT_TYPE | _DELIVERY_MODE | _CORRELATION_ID
    parts: list[bytes | None] = [_JSON_TYPE]
    variable = correlation_id + expiration
    if not without_timeout:
        flags |= _HEADERS
        parts += [_ONLY_TIMEOUT, None]
        variable += 4
    parts += [b"\1" + _OCTETS[correlation_id], None]
    if reply_to is not None:
        flags |= _REPLY_TO
        parts.append(_shortstr("reply_to", reply_to))
    if expiration:
        flags |= _EXPIRATION
        parts.append(_OCTETS[expiration])
    parts.append(None)
    if user_id is not None:
        flags |= _USER_ID
        parts.append(_shortstr("user_id", user_id))
    properties = sum(len(part) for part in parts if part is not None) + variable
    whole: list[bytes | None] = [
        _pack_publish(_METHOD, channel, 7 + len(before) + key, _BASIC, _PUBLISH, 0) + before,
        None,
        b"\1\xce" if mandatory else b"\0\xce",
        _pack_frame(_HEADER, channel, 14 + properties) + _pack_class(_BASIC, 0),
        None,
        _pack_flags(flags),
        *parts,
        b"\xce" + _pack_frame(_BODY, channel, 0)[:3],
        None,
        None,
        b"\xce",
    ]
    return b"".join(b"%b" if part is None else part.replace(b"%", b"%%") for part in whole)


def _shortstr(name: str, text: str) -> bytes:
    # surrogateescape: a text that a request brought is echoed byte for byte, even where it is not UTF-8.
    raw = text.encode("utf-8", "surrogateescape")
    length = len(raw)
    if length > 255:
        raise _too_long(name, length)
    return _OCTETS[length] + raw


def _too_long(name: str, length: int) -> ValueError:
    return ValueError(f"{name}: {length} bytes, where AMQP takes 255")


# -- from the broker to us ----------------------------------------------------------------------------


class _Arriving:
    """
    A message of which not all frames have arrived.

    Attributes:
        method: Its class and method, as on the wire.
        message: What is known of it. A returned message is not a delivery, but has the same names and properties.
        reply: Code and text of ``basic.return``.
        left: Bytes of the body that are missing; -1: the header is missing.
        pieces: What has arrived of the body; None: it is not kept.
    """

    __slots__ = ("left", "message", "method", "pieces", "reply")

    def __init__(self, method: bytes, message: Delivery, reply: tuple[int, str] = (0, "")) -> None:
        self.method = method
        self.message = message
        self.reply = reply
        self.left = -1
        self.pieces: list[memoryview | bytearray] | None = None

    def add(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of the body."""
        size = end - start
        self.left -= size
        if self.pieces is None:
            return
        piece = memoryview(data)[start:end]
        if size >= _WORTH_A_VIEW and 4 * size >= len(data):
            self.pieces.append(piece)  # no copy, but it keeps all of ``data``
            return
        # A peer that sends byte by byte must not make us keep an object for each.
        last = self.pieces[-1] if self.pieces else None
        if isinstance(last, bytearray):
            last += piece
        else:
            self.pieces.append(bytearray(piece))


class Decoder:
    """
    Decodes what the broker sends, however it is cut into reads.

    Memory is bounded: less than one frame, and for each channel with an incomplete message at most four times what has
    arrived of its body, which has up to ``max_body`` bytes. Mostly it is once, and twice as it completes.

    Args:
        max_body: Bodies over this many bytes are dropped as they arrive.
        frame_max: The largest frame that was agreed on, in bytes, with its 8 bytes of overhead.
        decode_table: Reads a table with its length, as ``amqp.serialization.loads("F", ...)`` does; may raise anything.
            Such a table is what ``Delivery.raw_headers`` holds.
    """

    def __init__(self, *, max_body: int, frame_max: int, decode_table: Callable[[bytes], dict[str, Any]]) -> None:
        self._max_body = max_body
        self._max_payload = frame_max - _OVERHEAD
        self._headers_of = _forgiving(decode_table)
        self._arriving: dict[int, _Arriving] = {}  # by channel
        self._rest = bytearray()  # the beginning of a frame
        self._needed = 0  # its length when there is something to do
        self._open: tuple[int, int] | None = None  # within the frame of a body: its channel, and the missing bytes

    def feed(self, data: bytes) -> list[Event]:
        """
        Take some bytes; return what they complete, in order.

        Raises:
            FrameError: The bytes are not AMQP. Nothing else is raised, whatever the bytes are.
        """
        if self._rest:
            # Joined once for each frame, not for each read: a peer that sends byte by byte costs no more than others.
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
        events: list[Event] = []
        try:
            used = self._read(data, events)
        except (IndexError, StructError) as exc:
            raise FrameError("a length points beyond what was sent") from exc
        self._rest = bytearray(data[used:])
        return events

    def _read(self, data: bytes, events: list[Event]) -> int:
        """Read all frames that are complete, and what is here of a body; return how many bytes that took."""
        length = len(data)
        position = 0 if self._open is None else self._go_on(*self._open, data, 0, events)
        while length - position >= 7:
            kind, channel, size = _frame(data, position)
            if size > self._max_payload:
                raise FrameError(f"a frame with {size} bytes, where {self._max_payload} were agreed on")
            start = position + 7
            end = start + size
            if end >= length:
                if kind == _BODY and self._may_begin(channel, size):
                    return self._go_on(channel, size, data, start, events)
                self._needed = size + _OVERHEAD
                return position
            if data[end] != _END:
                raise FrameError(f"a frame of type {kind} ends in {data[end]:#04x}")
            event: Event | None
            if kind == _METHOD and data.startswith(_IS_DELIVER, start) and channel not in self._arriving:
                event, position = self._deliver(channel, data, start + 4, end)
            else:
                event, position = self._one_frame(kind, channel, data, start, end), end + 1
            if event is not None:
                events.append(event)
        self._needed = 7
        return position

    def _may_begin(self, channel: int, size: int) -> bool:
        """Return whether a body frame may be read piece by piece. What is wrong or rare is read as a whole."""
        arriving = self._arriving.get(channel)
        return arriving is not None and arriving.left >= size and arriving.method != _IS_GET_OK

    def _go_on(self, channel: int, left: int, data: bytes, start: int, events: list[Event]) -> int:
        """
        Read on within a body frame, with ``left`` bytes missing; return where to go on.

        Large bodies take many reads: each piece is stored when it arrives, and not looked at again.
        """
        arriving = self._arriving[channel]
        end = min(start + left, len(data))
        arriving.add(data, start, end)
        if end == len(data):
            self._open = channel, left - (end - start)
            return end
        self._open = None
        if data[end] != _END:
            raise FrameError(f"a frame of type {_BODY} ends in {data[end]:#04x}")
        if arriving.left == 0:
            del self._arriving[channel]
            events.append(_event(arriving))
        return end + 1

    def _deliver(self, channel: int, data: bytes, position: int, end: int) -> tuple[Delivery | None, int]:
        """
        Read ``basic.deliver``, and its header and body if they are here and the body is one frame: nearly always.

        Also returns where to go on. What is unusual is read frame by frame later, errors too.
        """
        position += 1 + data[position]
        tag, bits = _tag_and_bits(data, position)
        start, position = position + 10, position + 10 + data[position + 9]
        exchange = data[start:position].decode("utf-8", "surrogateescape")
        start, position = position + 1, position + 1 + data[position]
        routing_key = data[start:position].decode("utf-8", "surrogateescape")
        if position != end:
            raise _uneven(position, end)
        message = Delivery(channel, tag, bits & 1 == 1, exchange, routing_key, None, headers_of=self._headers_of)

        header = end + 1
        length = len(data)
        if length - header >= 21:
            kind, same_channel, header_size, class_id, _zero, size, flags = _header(data, header)
            header_end = header + 7 + header_size
            body = header_end + 8
            body_end = body + size
            if (
                body_end < length
                and data[header_end] == _END == data[body_end]
                and _frame(data, header_end + 1) == (_BODY, channel, size)
                and kind == _HEADER
                and class_id == _BASIC
                and same_channel == channel
                and header_size <= self._max_payload >= size
                and size <= self._max_body
            ):
                _read_properties(message, flags, data, header + 21, header_end)
                message.size, message.body = size, data[body:body_end]
                return message, body_end + 1
        self._arriving[channel] = _Arriving(_IS_DELIVER, message)
        return None, header

    def _one_frame(self, kind: int, channel: int, data: bytes, start: int, end: int) -> Event | None:
        if kind == _HEARTBEAT:
            return None
        arriving = self._arriving.get(channel)
        if kind == _METHOD:
            if arriving is not None:
                raise FrameError("a method within a message")
            return self._method(channel, data, start, end)
        if kind == _HEADER:
            if arriving is None or arriving.left >= 0:
                raise FrameError("a header without its method")
            self._header(arriving, data, start, end)
        elif kind == _BODY:
            if arriving is None or arriving.left < 0:
                raise FrameError("a body without its header")
            if end - start > arriving.left:
                raise FrameError(f"a body is longer than the {arriving.message.size} bytes that were announced")
            arriving.add(data, start, end)
        else:
            raise FrameError(f"a frame of the unknown type {kind}")
        complete = arriving.left == 0
        if complete:
            del self._arriving[channel]
        if arriving.method == _IS_GET_OK:
            return Frame(kind, channel, data[start:end])
        return _event(arriving) if complete else None

    def _method(self, channel: int, data: bytes, start: int, end: int) -> Event | None:
        if end - start < 4:
            raise FrameError("a method without a name")
        method = data[start : start + 4]
        if method in (_IS_ACK, _IS_NACK):
            if end - start != 13:
                raise _uneven(start + 13, end)
            tag, bits = _tag_and_bits(data, start + 4)
            return Confirm(channel, tag, bits & 1 == 1, method == _IS_NACK)
        if method == _IS_RETURN:
            code = data[start + 4] << 8 | data[start + 5]
            text, position = _text(data, start + 6)
            exchange, position = _text(data, position)
            routing_key, position = _text(data, position)
            if position != end:
                raise _uneven(position, end)
            message = Delivery(channel, 0, False, exchange, routing_key, None)
            self._arriving[channel] = _Arriving(method, message, (code, text))
            return None
        if method == _IS_GET_OK:
            self._arriving[channel] = _Arriving(method, Delivery(channel, 0, False, "", "", None))
        return Frame(_METHOD, channel, data[start:end])

    def _header(self, arriving: _Arriving, data: bytes, start: int, end: int) -> None:
        _kind, _channel, _size, class_id, _zero, size, flags = _header(data, start - 7)
        if class_id != _BASIC:
            raise FrameError(f"a header of class {class_id}")
        _read_properties(arriving.message, flags, data, start + 14, end)
        arriving.message.size = arriving.left = size
        if arriving.method == _IS_DELIVER and size <= self._max_body:
            arriving.pieces = []


def _event(arriving: _Arriving) -> Delivery | ReturnEvent:
    message = arriving.message
    if arriving.method == _IS_DELIVER:
        message.body = None if arriving.pieces is None else b"".join(arriving.pieces)
        return message
    code, text = arriving.reply
    names = message.exchange, message.routing_key, message.correlation_id, message.message_id
    return ReturnEvent(message.channel, Returned(code, text, *names))


def _read_properties(message: Delivery, flags: int, data: bytes, position: int, end: int) -> None:
    # Lengths are trusted while reading; at the end they must add up to the frame's.
    if flags & _CONTENT_TYPE:
        position += 1 + data[position]
    if flags & _CONTENT_ENCODING:
        position += 1 + data[position]
    if flags & _HEADERS:
        start, position = position, position + 4 + _long(data, position)[0]
        message.raw_headers = table = data[start:position]
        if table[:16] == _ONLY_TIMEOUT:
            timeout_ms = _int32(table, 16)[0]
            message.timeout_ms = timeout_ms if timeout_ms >= 1 else None
        elif _TIMEOUT in table:
            message.timeout_ms = _timeout_ms(message.headers)
    if flags & _DELIVERY_MODE:
        position += 1
    if flags & _PRIORITY:
        position += 1
    if flags & _CORRELATION_ID:
        start, position = position + 1, position + 1 + data[position]
        message.correlation_id = data[start:position].decode("utf-8", "surrogateescape")
    if flags & _REPLY_TO:
        start, position = position + 1, position + 1 + data[position]
        message.reply_to = data[start:position].decode("utf-8", "surrogateescape")
    if flags & _EXPIRATION:
        position += 1 + data[position]
    if flags & _MESSAGE_ID:
        start, position = position + 1, position + 1 + data[position]
        message.message_id = data[start:position].decode("utf-8", "surrogateescape")
    if flags & _TIMESTAMP:
        position += 8
    if flags & _TYPE:
        position += 1 + data[position]
    if flags & _USER_ID:
        start, position = position + 1, position + 1 + data[position]
        message.user_id = data[start:position].decode("utf-8", "surrogateescape")
    if flags & _APP_ID:
        position += 1 + data[position]
    if flags & _CLUSTER_ID:
        position += 1 + data[position]
    if position != end:
        raise _uneven(position, end)


def _timeout_ms(headers: Mapping[str, Any]) -> int | None:
    # Among other headers, or as another integer type, as other clients send it.
    value = headers.get("timeout-ms")
    return value if type(value) is int and 1 <= value <= _LONGEST_TIMEOUT_MS else None


def _text(data: bytes, position: int) -> tuple[str, int]:
    start = position + 1
    end = start + data[position]
    return data[start:end].decode("utf-8", "surrogateescape"), end


def _uneven(position: int, end: int) -> FrameError:
    return FrameError(f"the parts of a frame take {position - end:+d} bytes of what it has")


def _forgiving(decode_table: Callable[[bytes], dict[str, Any]]) -> Callable[[bytes], dict[str, Any]]:
    """Read a malformed table as an empty one: its sender's mistake must not end the connection."""

    def headers_of(table: bytes) -> dict[str, Any]:
        try:
            return decode_table(table)
        except Exception:
            return {}

    return headers_of
