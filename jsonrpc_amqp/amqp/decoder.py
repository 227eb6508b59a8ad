"""
Decodes deliveries, returns and confirms (pure). Other frames are left to py-amqp. ``frames`` describes the bytes.

Each call passes through here twice, so this is written for speed; py-amqp takes several times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from struct import error as StructError
from typing import Any

from .base import Delivery, Returned
from .frames import (
    APP_ID,
    BASIC,
    BODY,
    CLUSTER_ID,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    CORRELATION_ID,
    DELIVERY_MODE,
    END,
    EXPIRATION,
    HEADER,
    HEADERS,
    HEARTBEAT_FRAME,
    MESSAGE_ID,
    METHOD,
    ONLY_TIMEOUT,
    OVERHEAD,
    PRIORITY,
    REPLY_TO,
    TIMEOUT,
    TIMESTAMP,
    TYPE,
    USER_ID,
    Confirm,
    Event,
    Frame,
    FrameError,
    ReturnEvent,
    Undecoded,
)
from .tables import Unreadable, read

_IS_RETURN, _IS_DELIVER, _IS_GET_OK, _IS_ACK, _IS_NACK = (bytes([0, BASIC, 0, each]) for each in (50, 60, 71, 80, 120))
_frame = Struct(">BHI").unpack_from
_header = Struct(">BHIHHQH").unpack_from
_tag_and_bits = Struct(">QB").unpack_from
_long = Struct(">I").unpack_from
_int32 = Struct(">i").unpack_from
_LONGEST_TIMEOUT_MS = 0xFFFFFFFF
# Bytes. RabbitMQ adds headers to messages (x-death grows with each queue that a message has died in), and sends each
# header in one frame, also if it is over the size that was agreed on. Headers over this size are not kept. To end the
# connection because of what a message contains would not help: the message would be delivered again.
MOST_OF_A_HEADER = 1 << 20
# Channels with an incomplete message at a time. We open four.
_MOST_UNDER_WAY = 16
# Bytes. Shorter pieces of a body are joined as they arrive.
_WORTH_A_VIEW = 4096


class _Arriving:
    """
    A message of which not all frames have arrived.

    Attributes:
        method: Its class and method, as on the wire.
        message: What is known of it. A returned message is not a delivery, but has the same names and properties.
        reply: Code and text of ``basic.return``.
        left: Bytes of the body that are missing; -1: the header is missing, or a part of it.
        pieces: What has arrived of the body; None: it is not kept.
        fault: Why the message cannot be decoded; empty where it can.
    """

    __slots__ = ("fault", "left", "message", "method", "pieces", "reply")

    def __init__(self, method: bytes, message: Delivery, reply: tuple[int, str] = (0, "")) -> None:
        self.method = method
        self.message = message
        self.reply = reply
        self.left = -1
        self.fault = ""
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

    def give_up(self, why: str) -> None:
        """Keep of the message only what its method says."""
        known = self.message
        self.fault = why
        self.message = Delivery(
            known.channel, known.tag, known.redelivered, known.exchange, known.routing_key, None, size=known.size
        )


class Decoder:
    """
    Decodes what the broker sends, however it is cut into reads.

    What a message contains never ends the connection: one that cannot be decoded is an ``Undecoded``.

    Memory is bounded: less than one frame (or ``max_header``), and at most four times what has arrived of the bodies of
    incomplete messages, which have up to ``max_body`` bytes together. Mostly it is once, and twice as one completes.

    Args:
        max_body: Bodies over this many bytes are dropped as they arrive.
        frame_max: The largest frame that was agreed on, in bytes, with its 8 bytes of overhead.
        max_header: Headers over this many bytes, and over ``frame_max``, are dropped as they arrive.
        is_browsing: Messages are asked for one by one (``basic.get``).

    Attributes:
        on_unreadable: Called with what could not be read of the headers of a message, by the thread that reads them.
    """

    def __init__(
        self, *, max_body: int, frame_max: int, max_header: int = MOST_OF_A_HEADER, is_browsing: bool = False
    ) -> None:
        self._max_body = max_body
        self._max_payload = frame_max - OVERHEAD
        self._max_header = max(self._max_payload, max_header)
        self._is_browsing = is_browsing
        self.on_unreadable: Callable[[Unreadable], None] = lambda unreadable: None
        self._headers_of = self._read_headers  # bound once, not for each delivery
        self._arriving: dict[int, _Arriving] = {}  # by channel
        self._announced = 0  # bytes of the bodies of these, as far as they are kept
        self._rest = bytearray()  # the beginning of a frame
        self._needed = 0  # its length when there is something to do
        self._open: tuple[int, int] | None = None  # within a frame: its channel, and the missing bytes

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

    def clear(self) -> None:
        """Let go of what has arrived of messages: the rest does not come."""
        self._arriving.clear()
        self._rest = bytearray()
        self._announced = self._needed = 0

    def _read_headers(self, table: bytes) -> dict[str, Any]:
        headers, unreadable = read(table)
        if unreadable.names:
            self.on_unreadable(unreadable)
        return headers

    def _read(self, data: bytes, events: list[Event]) -> int:
        """Read all frames that are complete, and what is here of a body; return how many bytes that took."""
        length = len(data)
        position = 0 if self._open is None else self._go_on(*self._open, data, 0, events)
        while length - position >= 7:
            kind, channel, size = _frame(data, position)
            start = position + 7
            if size > self._max_payload and (kind != HEADER or size > self._max_header):
                if kind != HEADER:
                    raise FrameError(f"a frame with {size} bytes, where {self._max_payload} were agreed on")
                if length < start + 14:
                    self._needed = 21
                    return position
                self._begin_to_skip(channel, size, data, start)
                position = self._go_on(channel, size - 14, data, start + 14, events)
                continue
            end = start + size
            if end >= length:
                if kind == BODY and self._may_begin(channel, size):
                    return self._go_on(channel, size, data, start, events)
                self._needed = size + OVERHEAD
                return position
            if data[end] != END:
                raise FrameError(f"a frame of type {kind} ends in {data[end]:#04x}")
            event: Event | None
            if (
                kind == METHOD
                and data.startswith(_IS_DELIVER, start)
                and (not self._arriving or channel not in self._arriving)
            ):
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
        return arriving is not None and arriving.left >= size

    def _begin_to_skip(self, channel: int, size: int, data: bytes, start: int) -> None:
        """Read the beginning of a header that is too large to be kept."""
        arriving = self._awaiting_header(channel)
        self._read_size(arriving, data, start)
        arriving.give_up(f"its headers and properties have {size} bytes, over the cap of {self._max_header}")

    def _go_on(self, channel: int, left: int, data: bytes, start: int, events: list[Event]) -> int:
        """
        Read on within the frame of a body, or of a header that is skipped, with ``left`` bytes missing.

        Large bodies take many reads: each piece is stored when it arrives, and not looked at again. Returns where to go
        on.
        """
        arriving = self._arriving[channel]
        end = min(start + left, len(data))
        if arriving.left >= 0:
            arriving.add(data, start, end)
        if end == len(data):
            self._open = channel, left - (end - start)
            return end
        self._open = None
        if data[end] != END:
            raise FrameError(f"a frame of a message ends in {data[end]:#04x}")
        if arriving.left < 0:
            arriving.left = arriving.message.size  # what follows the header
        if arriving.left == 0:
            events.append(self._complete(channel, arriving))
        return end + 1

    def _begin(self, channel: int, arriving: _Arriving) -> None:
        if len(self._arriving) >= _MOST_UNDER_WAY:
            raise FrameError(f"messages on more than {_MOST_UNDER_WAY} channels at once")
        self._arriving[channel] = arriving

    def _complete(self, channel: int, arriving: _Arriving) -> Event:
        del self._arriving[channel]
        if arriving.pieces is not None:
            self._announced -= arriving.message.size
        return _event(arriving)

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
        # Not while others are under way, whose number and size are bounded: the result must not depend on cuts.
        if length - header >= 21 and not self._arriving:
            kind, same_channel, header_size, class_id, _zero, size, flags = _header(data, header)
            header_end = header + 7 + header_size
            body = header_end + 8
            body_end = body + size
            if (
                body_end < length
                and data[header_end] == END == data[body_end]
                and _frame(data, header_end + 1) == (BODY, channel, size)
                and kind == HEADER
                and class_id == BASIC
                and same_channel == channel
                and header_size <= self._max_payload >= size
                and size <= self._max_body
            ):
                try:
                    _read_properties(message, flags, data, header + 21, header_end)
                except (FrameError, IndexError, StructError):
                    pass  # read again below, frame by frame
                else:
                    message.size, message.body = size, data[body:body_end]
                    return message, body_end + 1
        self._begin(channel, _Arriving(_IS_DELIVER, message))
        return None, header

    def _one_frame(self, kind: int, channel: int, data: bytes, start: int, end: int) -> Event | None:
        if kind == HEARTBEAT_FRAME:
            return None
        arriving = self._arriving.get(channel)
        if kind == METHOD:
            if arriving is not None:
                raise FrameError("a method within a message")
            return self._method(channel, data, start, end)
        if kind == HEADER:
            arriving = self._awaiting_header(channel)
            self._header(arriving, data, start, end)
        elif kind == BODY:
            if arriving is None or arriving.left < 0:
                raise FrameError("a body without its header")
            if end - start > arriving.left:
                raise FrameError(f"a body is longer than the {arriving.message.size} bytes that were announced")
            arriving.add(data, start, end)
        else:
            raise FrameError(f"a frame of the unknown type {kind}")
        return self._complete(channel, arriving) if arriving.left == 0 else None

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
            self._begin(channel, _Arriving(method, message, (code, text)))
            return None
        if method == _IS_GET_OK:
            self._got(channel, data, start + 4, end)
            return None
        return Frame(METHOD, channel, data[start:end])

    def _got(self, channel: int, data: bytes, start: int, end: int) -> None:
        if not self._is_browsing:
            raise FrameError("a message that was not asked for (basic.get-ok)")
        tag, bits = _tag_and_bits(data, start)
        exchange, position = _text(data, start + 9)
        routing_key, position = _text(data, position)
        if position + 4 != end:  # behind it, the number of messages that are left
            raise _uneven(position + 4, end)
        message = Delivery(channel, tag, bits & 1 == 1, exchange, routing_key, None, headers_of=self._headers_of)
        self._begin(channel, _Arriving(_IS_GET_OK, message))

    def _awaiting_header(self, channel: int) -> _Arriving:
        arriving = self._arriving.get(channel)
        if arriving is None or arriving.left >= 0:
            raise FrameError("a header without its method")
        return arriving

    def _header(self, arriving: _Arriving, data: bytes, start: int, end: int) -> None:
        flags = self._read_size(arriving, data, start)
        if start + 14 > end:
            raise _uneven(start + 14, end)
        size = arriving.left = arriving.message.size
        try:
            _read_properties(arriving.message, flags, data, start + 14, end)
        except (FrameError, IndexError, StructError):
            arriving.give_up("its properties do not add up to the size of their frame")
            return
        if arriving.method != _IS_RETURN and size <= self._max_body:
            self._announced += size
            if self._announced > self._max_body:
                raise FrameError(f"messages on several channels at once, of {self._announced} bytes")
            arriving.pieces = []

    @staticmethod
    def _read_size(arriving: _Arriving, data: bytes, start: int) -> int:
        """Note the size of the body, as the beginning of the header announces it; return the flags of properties."""
        _kind, _channel, _size, class_id, _zero, arriving.message.size, flags = _header(data, start - 7)
        if class_id != BASIC:
            raise FrameError(f"a header of class {class_id}")
        return int(flags)


def _event(arriving: _Arriving) -> Delivery | ReturnEvent | Undecoded:
    message = arriving.message
    if arriving.method != _IS_RETURN:
        if arriving.fault:
            return Undecoded(message, arriving.fault)
        message.body = None if arriving.pieces is None else b"".join(arriving.pieces)
        return message
    code, text = arriving.reply
    names = message.exchange, message.routing_key, message.correlation_id, message.message_id, message.reply_to
    return ReturnEvent(message.channel, Returned(code, text, *names))


def _read_properties(message: Delivery, flags: int, data: bytes, position: int, end: int) -> None:
    # Lengths are trusted while reading; at the end they must add up to the frame's.
    if flags & CONTENT_TYPE:
        position += 1 + data[position]
    if flags & CONTENT_ENCODING:
        position += 1 + data[position]
    if flags & HEADERS:
        start, position = position, position + 4 + _long(data, position)[0]
        message.raw_headers = table = data[start:position]
        if table[:16] == ONLY_TIMEOUT:
            timeout_ms = _int32(table, 16)[0]
            message.timeout_ms = timeout_ms if timeout_ms >= 1 else None
        elif TIMEOUT in table:
            message.timeout_ms = _timeout_ms(message.headers)
    if flags & DELIVERY_MODE:
        position += 1
    if flags & PRIORITY:
        position += 1
    if flags & CORRELATION_ID:
        start, position = position + 1, position + 1 + data[position]
        message.correlation_id = data[start:position].decode("utf-8", "surrogateescape")
    if flags & REPLY_TO:
        start, position = position + 1, position + 1 + data[position]
        message.reply_to = data[start:position].decode("utf-8", "surrogateescape")
    if flags & EXPIRATION:
        position += 1 + data[position]
    if flags & MESSAGE_ID:
        start, position = position + 1, position + 1 + data[position]
        message.message_id = data[start:position].decode("utf-8", "surrogateescape")
    if flags & TIMESTAMP:
        position += 8
    if flags & TYPE:
        position += 1 + data[position]
    if flags & USER_ID:
        start, position = position + 1, position + 1 + data[position]
        message.user_id = data[start:position].decode("utf-8", "surrogateescape")
    if flags & APP_ID:
        position += 1 + data[position]
    if flags & CLUSTER_ID:
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
