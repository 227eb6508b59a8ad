"""What the tests of a session's parts share: a link without a socket, and a listener that writes down what it hears."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any

from jsonrpc_amqp.amqp.base import Delivery, Plan, Publish, QueueFacts, Returned, Session
from jsonrpc_amqp.amqp.decoder import Decoder
from jsonrpc_amqp.amqp.encoder import Encoder
from jsonrpc_amqp.amqp.frames import Frame
from jsonrpc_amqp.amqp.session import LiveSession
from jsonrpc_amqp.errors import TransportError

from .tools import FRAME_MAX, MIB

PATIENCE = 10.0

CONSUMER, PUBLISHER, CONFIRMER, DEFAULT = 2, 3, 4, 5


class FakeLink:
    """
    A link: what is written to it is kept, and what it reads is given to it.

    Attributes:
        written: What was written, a ``bytes`` for each write.
        room: How many bytes each write takes; all, once there are no more numbers.
        on_write: Called within each write, before anything is taken.
        incoming: What ``read`` returns in turn, or raises.
        on_read: Called within each read.
        unread: What ``has_unread`` returns.
        calls: The methods that were called, with their arguments.
        calls_of_consumer: The methods of the channel that consumes that were called.
        redeclared: What ``redeclare`` is to call once it is done.
        callbacks: What ``go_live`` was given.
    """

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.calls_of_consumer: list[tuple[Any, ...]] = []
        self.room: list[int] = []
        self.on_write: Callable[[], None] = lambda: None
        self.on_read: Callable[[], None] = lambda: None
        self.incoming: list[bytes | BaseException | None] = []
        self.consumer_channel, self.publisher_channel, self.confirmer_channel = CONSUMER, PUBLISHER, CONFIRMER
        self.default_channel = DEFAULT
        self.opened = 20
        self.url: Any = None
        self.connect_again: Any = None
        self.encoder = Encoder(frame_max=FRAME_MAX)
        self.decoder = Decoder(max_body=MIB, frame_max=FRAME_MAX)
        self.where = "there:5672"
        self.heartbeat = 10.0
        self.unread = False
        self.tls = False
        self.sends_requests = False
        self.can_redeclare = True
        self.is_busy = False
        self.reply_queue = "amq.gen-1"
        self.queue = "q"
        self.consumer: FakeConsumer | None = FakeConsumer(self.calls_of_consumer)
        self.consumer_tag = "tag-1"
        self.redeclared: Callable[[], None] | None = None
        self.sock = FakeSocket()
        self.early = b""
        self.is_discarded = False
        self.calls: list[tuple[str, Any]] = []
        self.callbacks: dict[str, Any] = {}
        self.frames: list[Frame] = []

    @property
    def stream(self) -> bytes:
        """All that was written."""
        return b"".join(self.written)

    def write(self, data: memoryview) -> int:
        self.on_write()
        taken = bytes(data[: self.room.pop(0)] if self.room else data)
        self.written.append(taken)
        return len(taken)

    def read(self, size: int) -> bytes | None:
        self.on_read()
        data = self.incoming.pop(0) if self.incoming else None
        if isinstance(data, BaseException):
            raise data
        return data

    def buffered(self) -> bool:
        return bool(self.incoming)

    def describe(self, exc: OSError) -> str:
        return f"the connection ended: {exc}"

    def has_unread(self) -> bool:
        return self.unread

    def discard(self) -> None:
        self.is_discarded = True

    def go_live(self, **callbacks: Any) -> bytes:
        self.callbacks = callbacks
        return self.early

    def handle(self, frame: Frame) -> None:
        self.frames.append(frame)

    def open_channel(self) -> int:
        self.opened += 1
        return self.opened

    def reopen_publisher(self) -> None:
        self.publisher_channel += 10

    def reopen_confirmer(self) -> None:
        self.confirmer_channel += 10

    def redeclare(
        self, done: Callable[[], None] | None = None, *, bindings: Collection[str] | None = None, queue: bool = False
    ) -> None:
        self.calls.append(("redeclare", "queue" if queue else bindings))
        self.redeclared = done

    def bind(self, routing_key: str, done: Callable[[TransportError | None], None]) -> None:
        self.calls.append(("bind", routing_key))

    def inspect(self, queue: str, found: Callable[[QueueFacts | None], None]) -> None:
        self.calls.append(("inspect", queue))

    def begin_close(self) -> None:
        self.calls.append(("begin_close", None))


class FakeConsumer:
    """The channel of py-amqp that consumes."""

    def __init__(self, calls: list[tuple[Any, ...]]) -> None:
        self._calls = calls
        self._expecting: Callable[[tuple[Any, ...]], None] | None = None
        self.reply: Callable[[tuple[Any, ...]], None] | None = None

    def expecting(self, reply: Callable[[tuple[Any, ...]], None] | None) -> None:
        self._expecting = reply

    def basic_consume(self, queue: str, tag: str) -> None:
        self._calls.append(("consume", queue, tag))
        self.reply = self._expecting

    def basic_cancel(self, tag: str, *, nowait: bool = False) -> None:
        self._calls.append(("cancel", tag, nowait))
        if not nowait:
            self.reply = self._expecting


class FakeSocket:
    """Has a descriptor until it is closed."""

    fd = 7

    def fileno(self) -> int:
        return self.fd


class FakeListener:
    """
    A listener: writes down what it hears.

    Attributes:
        heard: The name of each call, with what it was given.
        due: What ``on_tick`` returns.
        raises: What a method of this name raises.
    """

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.due: float | None = None
        self.raises: dict[str, BaseException] = {}
        self.handled: list[Publish] = []
        self.ticks = 0

    def names(self) -> list[str]:
        return [name for name, *_ in self.heard]

    def plan(self) -> Plan:
        self._hear("plan")
        return Plan("jsonrpc")

    def on_open(self, session: Session) -> None:
        self._hear("open", session)

    def on_failed(self, error: TransportError, retry_in: float | None) -> None:
        self._hear("failed", error, retry_in)

    def on_lost(self, session: Session, error: TransportError) -> None:
        self._hear("lost", session, error)

    def on_deliveries(self, session: Session, deliveries: list[Delivery]) -> None:
        self._hear("deliveries", [delivery.body for delivery in deliveries])

    def on_undecoded(self, session: Session, delivery: Delivery, why: str) -> None:
        self._hear("undecoded", delivery.tag, why)

    def on_returned(self, session: Session, returned: Returned) -> None:
        self._hear("returned", returned)

    def awaits(self, message: Publish) -> bool:
        return message not in self.handled

    def on_rejected(self, session: Session, error: TransportError, message: Publish) -> None:
        self._hear("rejected", error, message)

    def on_congested(self, session: Session, congested: bool) -> None:
        self._hear("congested", congested)

    def on_tick(self, now: float) -> float | None:
        self.ticks += 1
        return self.due

    def _hear(self, *what: Any) -> None:
        self.heard.append(what)
        if what[0] in self.raises:
            raise self.raises[what[0]]


class FakeOwner:
    """A connection, as a session sees it: what is posted waits until ``run``."""

    name = "test"

    def __init__(self) -> None:
        self.runtime: Any = SimpleNamespace(writes_behind=False)
        self.stats: Counter[str] = Counter()
        self.wakes = 0
        self.posted: list[Callable[[], None]] = []
        self.ended: list[tuple[LiveSession, TransportError, bool]] = []
        self.finishes = 0

    def wake(self) -> None:
        self.wakes += 1

    def post(self, action: Callable[[], None]) -> None:
        self.posted.append(action)

    def end(self, session: LiveSession, error: TransportError, *, again_at_once: bool = False) -> None:
        self.ended.append((session, error, again_at_once))

    def finish(self) -> None:
        self.finishes += 1

    def run(self) -> None:
        """Do what was posted."""
        while self.posted:
            self.posted.pop(0)()


class Clock:
    """A clock that a test sets, in place of a module's ``time``."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now
