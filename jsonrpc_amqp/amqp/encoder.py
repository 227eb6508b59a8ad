"""
Encodes publishes and acks (pure). ``frames`` describes the bytes.

Each call passes through here twice, so this is written for speed; py-amqp takes several times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Any, TypeAlias

from ..errors import EncodeError
from .base import JSON, Publish
from .frames import (
    BASIC,
    BODY,
    CONTENT_TYPE,
    CORRELATION_ID,
    DELIVERY_MODE,
    END,
    EXPIRATION,
    HEADER,
    HEADERS,
    MESSAGE_ID,
    METHOD,
    ONLY_TIMEOUT,
    OVERHEAD,
    REPLY_TO,
    TIMEOUT,
    USER_ID,
)
from .tables import Headers, encode

_QOS, _CONSUME, _PUBLISH, _ACK, _REJECT, _NACK = 10, 20, 40, 80, 90, 120
_NO_ACK, _NO_WAIT = 2, 8  # of basic.consume
_REQUEUE = 2  # the second bit of basic.nack; the first is "multiple"
# Bound methods: a look-up at each use would cost as much as the unpacking.
_pack_frame = Struct(">BHI").pack  # type, channel, size
_pack_publish = Struct(">BHIHHH").pack  # type, channel, size, class, method, 0
_pack_header = Struct(">BHIHHQH").pack  # type, channel, size, class, 0, body size, flags
_pack_ack = Struct(">BHIHHQBB").pack  # type, channel, size, class, method, delivery tag, bits, end
_pack_qos = Struct(">BHIHHIHBB").pack  # type, channel, size, class, method, prefetch size and count, global, end
_pack_class = Struct(">HH").pack  # class, and 0 or a method
_pack_flags = Struct(">H").pack
_pack_long = Struct(">I").pack
_pack_longlong = Struct(">Q").pack
_JSON_TYPE = bytes([len(JSON)]) + JSON.encode()
_OCTETS = tuple(bytes([number]) for number in range(256))
# Bytes that are left free for the headers that RabbitMQ adds (x-delivery-count, x-death: a few hundred for each death),
# since most libraries end a connection that brings a larger frame than was agreed on.
_RESERVE = 4096
# Clients choose the lengths of what is in a reply, so the number of templates is bounded.
_MOST_TEMPLATES = 1000


def ack(channel: int, tag: int, multiple: bool) -> bytes:
    """Encode ``basic.ack``; ``multiple`` acknowledges all up to ``tag``."""
    return _pack_ack(METHOD, channel, 13, BASIC, _ACK, tag, multiple, END)


def reject(channel: int, tag: int) -> bytes:
    """Encode the ``basic.reject`` of one message, without ``requeue``: the queue drops it, or dead-letters it."""
    return _pack_ack(METHOD, channel, 13, BASIC, _REJECT, tag, 0, END)


def requeue(channel: int, tag: int) -> bytes:
    """
    Encode the ``basic.nack`` of one message, with ``requeue``: back to its queue.

    Not ``basic.reject``: with that, RabbitMQ 4.3 counts a failed delivery, up to the queue's delivery limit.
    """
    return _pack_ack(METHOD, channel, 13, BASIC, _NACK, tag, _REQUEUE, END)


def barrier(channel: int) -> bytes:
    """
    Encode a ``basic.qos`` that changes nothing on a channel that does not consume.

    The broker handles a channel in order, so its ``basic.qos-ok`` says that all before it was handled, and not refused.
    """
    return _pack_qos(METHOD, channel, 11, BASIC, _QOS, 0, 0, 0, END)


def consume(channel: int, queue: str, tag: str) -> bytes:
    """Encode a ``basic.consume`` without acknowledgements, which the broker does not answer."""
    arguments = b"\0\0" + _shortstr("queue", queue) + _shortstr("consumer_tag", tag)
    payload = _pack_class(BASIC, _CONSUME) + arguments + bytes([_NO_ACK | _NO_WAIT]) + _pack_long(0)
    return _pack_frame(METHOD, channel, len(payload)) + payload + bytes([END])


class Encoder:
    """
    Encodes publishes.

    Args:
        frame_max: The largest frame that was agreed on, in bytes, with its 8 bytes of overhead.
    """

    def __init__(self, *, frame_max: int) -> None:
        self._max_payload = frame_max - OVERHEAD
        self._max_header = self._max_payload - min(_RESERVE, frame_max // 4)
        self._templates: dict[_Shape, bytes] = {}

    def publish(self, channel: int, message: Publish) -> bytes:
        """
        Encode ``basic.publish`` with its header and body frames.

        Raises:
            ValueError: A text is longer than the 255 bytes that it may have; the error names it.
            EncodeError: RabbitMQ would not take a header, or they do not fit one frame; the error names the header.
                Nothing may be sent in either case.
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
        try:
            key, tag = message.routing_key.encode(), number.encode()
        except UnicodeEncodeError:  # text that was not UTF-8, see ``_shortstr``
            return b"".join(self.pieces(channel, message))
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
        flags = CONTENT_TYPE | DELIVERY_MODE
        properties = _JSON_TYPE if message.content_type == JSON else _shortstr("content_type", message.content_type)
        if message.timeout_ms is not None or message.headers:
            flags |= HEADERS
            properties += _table(message.timeout_ms, message.headers)
        properties += b"\2" if message.persistent else b"\1"
        if message.correlation_id is not None:
            flags |= CORRELATION_ID
            properties += _shortstr("correlation_id", message.correlation_id)
        if message.reply_to is not None:
            flags |= REPLY_TO
            properties += _shortstr("reply_to", message.reply_to)
        if message.expiration_ms is not None:
            flags |= EXPIRATION
            digits = b"%d" % message.expiration_ms
            properties += _OCTETS[len(digits)] + digits
        if message.message_id is not None:
            flags |= MESSAGE_ID
            properties += _shortstr("message_id", message.message_id)
        if message.user_id is not None:
            flags |= USER_ID
            properties += _shortstr("user_id", message.user_id)

        body, size = message.body, 14 + len(properties)
        if size > self._max_header:
            raise _too_large(size, self._max_header, message.headers or {})
        head = (
            _pack_publish(METHOD, channel, 7 + len(arguments), BASIC, _PUBLISH, 0)
            + arguments
            + (b"\1\xce" if message.mandatory else b"\0\xce")
            + _pack_header(HEADER, channel, size, BASIC, 0, len(body), flags)
            + properties
            + b"\xce"
        )
        pieces: list[bytes | memoryview] = [head]
        if 0 < len(body) <= self._max_payload:
            pieces += (_pack_frame(BODY, channel, len(body)), body, b"\xce")
        else:
            whole = memoryview(body)  # whose slices are no copies
            for start in range(0, len(body), self._max_payload):
                piece = whole[start : start + self._max_payload]
                pieces += (_pack_frame(BODY, channel, len(piece)), piece, b"\xce")
        return pieces

    def _new_template(self, shape: _Shape) -> bytes:
        template = _template(*shape)
        if len(self._templates) >= _MOST_TEMPLATES:
            self._templates.clear()
        self._templates[shape] = template
        return template


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
    flags = CONTENT_TYPE | DELIVERY_MODE | CORRELATION_ID
    parts: list[bytes | None] = [_JSON_TYPE]
    variable = correlation_id + expiration
    if not without_timeout:
        flags |= HEADERS
        parts += [ONLY_TIMEOUT, None]
        variable += 4
    parts += [b"\1" + _OCTETS[correlation_id], None]
    if reply_to is not None:
        flags |= REPLY_TO
        parts.append(_shortstr("reply_to", reply_to))
    if expiration:
        flags |= EXPIRATION
        parts.append(_OCTETS[expiration])
    parts.append(None)
    if user_id is not None:
        flags |= USER_ID
        parts.append(_shortstr("user_id", user_id))
    properties = sum(len(part) for part in parts if part is not None) + variable
    whole: list[bytes | None] = [
        _pack_publish(METHOD, channel, 7 + len(before) + key, BASIC, _PUBLISH, 0) + before,
        None,
        b"\1\xce" if mandatory else b"\0\xce",
        _pack_frame(HEADER, channel, 14 + properties) + _pack_class(BASIC, 0),
        None,
        _pack_flags(flags),
        *parts,
        b"\xce" + _pack_frame(BODY, channel, 0)[:3],
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


def _table(timeout_ms: int | None, headers: Mapping[str, Any] | None) -> bytes:
    entries = b""
    if timeout_ms is not None:
        # By the errata of RabbitMQ, a signed integer of 32 bits, or one of 64.
        kind, size = (b"I", 4) if timeout_ms < 1 << 31 else (b"l", 8)
        entries = TIMEOUT + kind + timeout_ms.to_bytes(size, "big")
    if headers:
        entries += headers.entries if type(headers) is Headers else encode(headers)
    return _pack_long(len(entries)) + entries


def _too_large(size: int, most: int, headers: Mapping[str, Any]) -> EncodeError:
    largest = max(headers, key=lambda name: len(encode({name: headers[name]})), default="")
    return EncodeError(
        f"the headers and other properties have {size} bytes, where a frame has room for {most}; the largest header is "
        f"{largest!r:.80}. Nothing was sent"
    )
