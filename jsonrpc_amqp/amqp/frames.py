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
      basic.get-ok    longlong delivery-tag, bit redelivered, shortstr exchange, shortstr routing-key, long messages
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

from struct import Struct
from typing import NamedTuple, TypeAlias

from .base import Delivery, Returned

METHOD, HEADER, BODY, HEARTBEAT_FRAME = 1, 2, 3, 8
END = 0xCE
OVERHEAD = 8  # of a frame: type, channel, size and end

HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"

BASIC = 60
QOS_OK = b"\x00\x3c\x00\x0b"  # a whole payload

CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE, PRIORITY = 0x8000, 0x4000, 0x2000, 0x1000, 0x0800
CORRELATION_ID, REPLY_TO, EXPIRATION, MESSAGE_ID, TIMESTAMP = 0x0400, 0x0200, 0x0100, 0x0080, 0x0040
TYPE, USER_ID, APP_ID, CLUSTER_ID = 0x0020, 0x0010, 0x0008, 0x0004
# The two lowest flags stand for no property. RabbitMQ passes them on as a publisher set them, so they must not end the
# connection: the message would be redelivered for ever.

TIMEOUT = b"\x0atimeout-ms"
# The beginning of a headers table with just this entry, as a signed 32-bit integer.
ONLY_TIMEOUT = Struct(">I").pack(len(TIMEOUT) + 5) + TIMEOUT + b"I"


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


class Undecoded(NamedTuple):
    """
    A delivery of which only its method could be read: its properties are missing, and its body was not kept.

    Attributes:
        why: What is wrong with it.
    """

    delivery: Delivery
    why: str


Event: TypeAlias = Delivery | ReturnEvent | Confirm | Undecoded | Frame
