"""Stand-ins for tests of jsonrpc_amqp/amqp/: a link without a socket, and bytes as a broker sends them."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack
from threading import get_ident
from types import SimpleNamespace
from typing import Any

from amqp.serialization import dumps, loads

from jsonrpc_amqp.amqp.base import QueueFacts
from jsonrpc_amqp.amqp.decoder import Decoder
from jsonrpc_amqp.amqp.encoder import Encoder
from jsonrpc_amqp.amqp.frames import BASIC, BODY, END, HEADER, METHOD, Frame
from jsonrpc_amqp.amqp.link import Link
from jsonrpc_amqp.errors import TransportError

FRAME_MAX = 4096
CONSUMER, PUBLISHER, CONFIRMER = 2, 3, 4


class FakeLink(Link):
    """
    A link that a test drives.

    Attributes:
        writes: What was written, and by which thread.
        rooms: How many bytes each of the next writes takes; all, once it is empty.
        reads: What each of the next reads returns, or raises; None, once it is empty.
        within_write: Called within the next write, once.
        events: What else was done, in order.
        handlers: The arguments of ``go_live``.
    """

    def __init__(self, *, sends_requests: bool = False, heartbeat: float = 0, tls: bool = False) -> None:
        self.where = "broker:5672"
        self.user = "guest"
        self.reply_queue = "replies"
        self.sends_requests = sends_requests
        self.heartbeat = heartbeat
        self.consumer, self.publisher, self.confirmer = CONSUMER, PUBLISHER, CONFIRMER
        self.encoder = Encoder(frame_max=FRAME_MAX, encode_table=lambda table: bytes(dumps("F", (table,))))
        self.decoder = Decoder(max_body=1 << 20, frame_max=FRAME_MAX, decode_table=lambda raw: loads("F", raw, 0)[0][0])
        self.discarded = 0
        sock: Any = SimpleNamespace(fileno=lambda: -1 if self.discarded else 77)
        self.sock = sock
        self.writes: list[tuple[bytes, int]] = []
        self.rooms: list[int] = []
        self.reads: list[bytes | Exception | None] = []
        self.read_sizes: list[int] = []
        self.within_write: Callable[[], object] | None = None
        self.events: list[Any] = []
        self.early = b""
        self.handlers: dict[str, Callable[..., Any]] = {}
        self.on_redeclared: Callable[[], None] | None = None
        self.redeclarable = True
        self.busy = False
        self._tls = tls
        self._next_channel = 10

    @property
    def written(self) -> bytes:
        """All that was written."""
        return b"".join(data for data, _thread in self.writes)

    def write(self, data: bytes | memoryview) -> int:
        within, self.within_write = self.within_write, None
        if within is not None:
            within()
        sent = min(len(data), self.rooms.pop(0)) if self.rooms else len(data)
        self.writes.append((bytes(data[:sent]), get_ident()))
        return sent

    def read(self, size: int) -> bytes | None:
        self.read_sizes.append(size)
        data = self.reads.pop(0) if self.reads else None
        if isinstance(data, Exception):
            raise data
        return data

    @property
    def tls(self) -> bool:
        return self._tls

    def buffered(self) -> bool:
        return self._tls and bool(self.reads)

    def discard(self) -> None:
        self.discarded += 1

    def go_live(self, **handlers: Callable[..., Any]) -> bytes:
        self.handlers = handlers
        return self.early

    def handle(self, frame: Frame) -> None:
        self.events.append(frame)

    def reopen_publisher(self) -> None:
        self.publisher = self._new_channel()

    def reopen_confirmer(self) -> None:
        self.confirmer = self._new_channel()

    @property
    def is_busy(self) -> bool:
        return self.busy

    @property
    def can_redeclare(self) -> bool:
        return self.redeclarable

    def redeclare(self, done: Callable[[], None] | None = None, *, attempts: int = 3) -> None:
        self.events.append("redeclare")
        self.on_redeclared = done

    def bind(self, routing_key: str, done: Callable[[TransportError | None], None]) -> None:
        self.events.append(("bind", routing_key))
        done(None)

    def inspect(self, queue: str, found: Callable[[QueueFacts | None], None]) -> None:
        self.events.append(("inspect", queue))
        found(QueueFacts(3, 1))

    def cancel(self, done: Callable[[], None]) -> None:
        self.events.append("cancel")
        done()

    def begin_close(self) -> None:
        self.events.append("begin_close")
        self.handlers["write"](b"<connection.close>")

    def _new_channel(self) -> int:
        self._next_channel += 1
        return self._next_channel


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return one frame."""
    return pack(">BHI", kind, channel, len(payload)) + payload + bytes([END])


def delivery(tag: int, body: bytes = b"{}", channel: int = CONSUMER) -> bytes:
    """Return the frames of a delivery (``basic.deliver``)."""
    method = pack(">HH", BASIC, 60) + b"\1c" + pack(">QB", tag, 0) + b"\0" + b"\1k"
    header = pack(">HHQH", BASIC, 0, len(body), 0)
    return frame(METHOD, channel, method) + frame(HEADER, channel, header) + frame(BODY, channel, body)


def returned(channel: int, routing_key: str) -> bytes:
    """Return the frames of a returned message (``basic.return``) with an empty body."""
    key = routing_key.encode()
    method = pack(">HHH", BASIC, 50, 312) + b"\x08NO_ROUTE" + b"\3rpc" + bytes([len(key)]) + key
    return frame(METHOD, channel, method) + frame(HEADER, channel, pack(">HHQH", BASIC, 0, 0, 0))
