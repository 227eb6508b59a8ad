"""
kombu and py-amqp: connecting, setting up and everything rare. The only module that imports them.

Their quirks stop here. While a link is set up, py-amqp works as its authors mean it: it blocks, each read
bounded by a deadline of ours. Once the link is live, the engine reads and writes the socket and cuts the
frames; py-amqp is handed those that are rare, and never waits: a method that would wait registers what
to do when its reply comes.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from struct import pack, unpack_from
from typing import Any
from urllib.parse import urlsplit

import amqp
import kombu
from amqp import spec
from amqp.serialization import dumps as encode_fields
from amqp.serialization import loads as decode_fields
from kombu.transport import pyamqp
from kombu.utils.url import url_to_parts

from ..errors import ConnectionLost, NotConnected, TransportError
from .base import DIRECT_REPLY_TO, Plan, QueueFacts
from .broker_errors import describe, say
from .codec import Decoder, Encoder, Frame

_DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}
# What py-amqp's TLS takes.
_TLS_OPTIONS = {
    "ca_certs",
    "cert_reqs",
    "certfile",
    "ciphers",
    "keyfile",
    "server_hostname",
    "ssl_version",
    "tls_maximum_version",
    "tls_minimum_version",
}
_CHANNEL_CLOSE = pack(">HH", *spec.Channel.Close)
# Each look at a dead letter counts as a delivery; without a limit RabbitMQ 4 drops it after twenty.
_NO_LIMIT = 1_000_000_000
_TLS_FILES = ("ca_certs", "certfile", "keyfile")
_TLS_QUERY = {"cacertfile", "certfile", "keyfile", "server_name_indication", "verify"}
# The query parameters of RabbitMQ's own URI specification that a JSON-RPC user may need.
_QUERY = {
    "auth_mechanism",
    "cacertfile",
    "certfile",
    "connection_timeout",
    "heartbeat",
    "keyfile",
    "server_name_indication",
    "verify",
}


@dataclass(frozen=True, slots=True)
class BrokerURL:
    """One broker to connect to. Its repr has no password."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    vhost: str
    tls: bool
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Host and port, for messages."""
        return f"{self.host}:{self.port}"


def parse_urls(text: str) -> list[BrokerURL]:
    """
    Read ``amqp://user:password@host:port/vhost``, or several joined by ``;``, tried in turn.

    ``amqps://`` means TLS. Query parameters are those of RabbitMQ's URI specification.

    Raises:
        ValueError: With a message that has no part of the URL which could be secret.
    """
    return [_parse_url(part.strip()) for part in text.split(";")]


def _parse_url(text: str) -> BrokerURL:
    scheme = text.partition("://")[0]
    if scheme not in _DEFAULT_PORTS:
        raise ValueError(
            "a broker URL starts with amqp://, amqps:// or memory://; so does each of several, which are joined by ';' "
            "(one in a password is escaped: %3B)"
        )
    try:
        parts = url_to_parts(text)
        port = parts.port
        if "@" in urlsplit(text).path + urlsplit(text).query:
            raise ValueError  # a "/" or "?" in the password cut the URL in the wrong place
    except ValueError:
        raise ValueError(
            "the broker URL is malformed: is its port no number up to 65535, or is a '/', '?', '#', '@' or ';' in "
            "the password not escaped?"
        ) from None
    unknown = sorted(set(parts.query) - _QUERY)
    if unknown:
        raise ValueError(
            f"unknown parameter in the broker URL: {', '.join(unknown)}; known: {', '.join(sorted(_QUERY))}"
        )
    needless = sorted(set(parts.query) & _TLS_QUERY)
    if needless and scheme != "amqps":
        raise ValueError(f"{', '.join(needless)} in an amqp:// URL, which has no TLS: amqps:// has")
    for name in ("heartbeat", "connection_timeout"):
        value = parts.query.get(name, "0")
        if not (value.isascii() and value.isdigit()):
            raise ValueError(f"{name} in the broker URL must be a number (seconds; connection_timeout: milliseconds)")
    if parts.query.get("verify", "verify_peer") not in ("verify_peer", "verify_none"):
        raise ValueError("verify in the broker URL is verify_peer or verify_none")
    return BrokerURL(
        host=parts.hostname or "localhost",
        port=port or _DEFAULT_PORTS[scheme],
        user=parts.username or "guest",
        password=parts.password or "guest",
        vhost=parts.path or "/",
        tls=scheme == "amqps",
        options=dict(parts.query),
    )


class _Channel(pyamqp.Channel):
    """py-amqp's channel, which on a live link never waits and is never reopened in place."""

    def __init__(self, connection: _Connection, channel_id: int) -> None:
        self.number = channel_id  # outlives the channel, unlike channel_id
        self._reply: Callable[[tuple[Any, ...]], None] | None = None
        self._pending: dict[Any, Callable[..., Any]]  # py-amqp's: what awaits a method, once
        super().__init__(connection, channel_id, auto_decode=False)

    def expecting(self, reply: Callable[[tuple[Any, ...]], None] | None) -> None:
        """Have the reply of the method that is sent next handed to ``reply``."""
        self._reply = reply

    def wait(self, method: Any, callback: Any = None, timeout: Any = None, returns_tuple: bool = False) -> Any:
        if not self.connection.live:
            return super().wait(method, callback, timeout, returns_tuple)
        reply, self._reply = self._reply, None
        self._pending[method] = lambda _sig, *args: reply(args) if reply else None
        return ("", 0, 0) if returns_tuple else ""

    def _on_close(self, reply_code: int, reply_text: str, class_id: int, method_id: int) -> None:
        # py-amqp would reopen the channel without its consumers and call it open: a deaf server.
        connection = self.connection
        if connection.live:
            connection.on_channel_closing(self.number)
        self.send_method(spec.Channel.CloseOk)
        self.collect()
        error = amqp.exceptions.error_for_code(
            reply_code, reply_text, (class_id, method_id), amqp.exceptions.ChannelError
        )
        if not connection.live:
            raise error
        connection.on_channel_closed(self.number, error)

    def close_received(self, payload: bytes) -> None:
        """Handle the payload of a ``channel.close``: short reply-code, shortstr reply-text, shorts class and method."""
        code, length = unpack_from(">HB", payload, 4)
        text = payload[7 : 7 + length].decode("utf-8", "surrogateescape")
        self._on_close(code, text, *unpack_from(">HH", payload, 7 + length))

    def _on_basic_cancel(self, consumer_tag: str) -> None:
        self.connection.on_consumer_cancelled()


class _Connection(pyamqp.Connection):
    """py-amqp's connection with a deadline around what it waits for: its set-up, or see ``allow``."""

    Channel = _Channel
    live = False

    def __init__(self, *, set_up_by: float, **options: Any) -> None:
        self._read_by = set_up_by
        self.channels: dict[int, Any]  # py-amqp's, by number
        self.on_channel_closing: Callable[[int], None] = lambda number: None
        self.on_channel_closed: Callable[[int, Exception], None] = lambda number, error: None
        self.on_consumer_cancelled: Callable[[], None] = lambda: None
        self.on_closed: Callable[[], None] = lambda: None
        super().__init__(**options)

    def connect(self, callback: Any = None) -> Any:
        try:
            return super().connect(callback)
        except BaseException:
            self.collect()
            raise

    def decoder(self, *, max_body: int) -> Decoder:
        """Make what cuts the bytes of this connection into frames and messages."""
        return Decoder(max_body=max_body, frame_max=self.frame_max, decode_table=_decode_table)

    def open_channel(self, number: int) -> _Channel:
        """Open a channel with a number that no other has."""
        channel = _Channel(self, number)
        channel.open()
        return channel

    def allow(self, seconds: float) -> None:
        """Give the blocking reads that follow so long, all of them together."""
        self._read_by = time.monotonic() + seconds

    def blocking_read(self, timeout: float | None = None) -> Any:
        # drain_events(timeout=) is no deadline: every frame, heartbeats too, starts it anew. With 0, as before each
        # publish, it only looks.
        return super().blocking_read(0 if timeout == 0 else self._left())

    def read_frame(self) -> Frame:
        """Block until there is a frame, and leave it to the caller."""
        with self.transport.having_timeout(self._left()):
            return Frame(*self.transport.read_frame())

    def handle(self, frame: Frame) -> None:
        """Do with a frame what py-amqp does; raises its errors."""
        if frame.channel and frame.payload.startswith(_CHANNEL_CLOSE):
            # Its text quotes what the message said, cut at some byte: py-amqp cannot decode each of them.
            self.channels[frame.channel].close_received(frame.payload)
        else:
            self.on_inbound_frame(tuple(frame))

    def _left(self) -> float:
        left = self._read_by - time.monotonic()
        if left <= 0:
            raise TimeoutError("the broker did not answer in time")
        return left

    def _on_close_ok(self) -> None:
        # Called when the broker confirms our close, and when we confirm its own.
        if self.live:
            self.on_closed()
        else:
            self.collect()


class _Transport(pyamqp.Transport):
    Connection = _Connection


class Link:
    """One live connection: its socket, its channels, and py-amqp for what is rare."""

    def __init__(self, connection: _Connection, plan: Plan, url: BrokerURL, *, max_body: int) -> None:
        self._connection: Any = connection
        self._plan = plan
        self._url = url
        self._next_channel = 1
        self._operations: deque[_Operation] = deque()
        self.reply_queue = ""
        self._bindings: list[str] = []
        self._consumer_tag = ""
        self.where = url.where
        self.sends_requests = plan.queue is None
        self.user = url.user
        self.heartbeat: float = connection.heartbeat or 0
        self.decoder = connection.decoder(max_body=max_body)
        self.encoder = Encoder(frame_max=connection.frame_max, encode_table=_encode_table)
        self._set_up(plan)

    # -- setting up (blocking) ------------------------------------------------------------------------

    def _set_up(self, plan: Plan) -> None:
        self._control = self._open_channel()
        if plan.exchange:
            self._declare_exchange(self._control, passive=not plan.declare)
        consumer = self._open_channel()
        self.consumer = consumer.number
        direct = plan.reply_queue == "direct"
        self.publisher = self.consumer if direct else self._open_channel().number
        if direct and plan.confirm:
            consumer.confirm_select()
        self.confirmer = self.publisher if direct and plan.confirm else self._open_confirmer().number
        queue = self._declare_queue(plan)
        if plan.prefetch:
            consumer.basic_qos(0, plan.prefetch, False)
        if queue:
            # Last, so that no delivery comes while py-amqp still reads the socket.
            self._consumer_tag = consumer.basic_consume(queue, no_ack=plan.reply_queue is not None)

    def _declare_queue(self, plan: Plan) -> str | None:
        if plan.reply_queue == "direct":
            return DIRECT_REPLY_TO
        if plan.reply_queue == "exclusive":
            # A fresh name each time: an exclusive name used again after a half-open link is locked for a while.
            declared: Any = self._control.queue_declare("", durable=False, exclusive=True, auto_delete=True)
            self.reply_queue = declared.queue
        elif plan.queue is not None:
            self._declare_durable(plan.queue, _queue_arguments(plan), passive=not plan.declare)
            if plan.dead_letters and plan.declare:
                self._declare_dead_letters(plan.dead_letters, plan.queue, plan.queue_type)
        queue = self.reply_queue or plan.queue
        if queue and (plan.declare or self.reply_queue):
            self._bindings = list(plan.bindings)
            for key in self._bindings:
                self._bind(self._control, key)
        return queue

    def _declare_exchange(self, channel: _Channel, *, passive: bool = False) -> None:
        channel.exchange_declare(self._plan.exchange, "topic", durable=True, auto_delete=False, passive=passive)

    def _bind(self, channel: _Channel, key: str) -> None:
        channel.queue_bind(self.reply_queue or self._plan.queue or "", self._plan.exchange, key)

    def _declare_durable(self, queue: str, arguments: dict[str, Any], *, passive: bool = False) -> None:
        self._control.queue_declare(
            queue, passive=passive, durable=True, exclusive=False, auto_delete=False, arguments=arguments
        )

    def _declare_dead_letters(self, name: str, request_queue: str, queue_type: str | None) -> None:
        """
        Declare where dead letters go: an exchange, and a queue for all but what merely expired in ``request_queue``.

        What expired goes to an exchange where it ends, and the rest takes the way of what is not routed: a message may
        bring headers of an earlier death along, so the reasons to keep one cannot be counted up.
        """
        kept, expired = f"{name}_kept", f"{name}_expired"
        declare = partial(self._control.exchange_declare, durable=True, auto_delete=False)
        declare(kept, "fanout")
        declare(expired, "fanout")
        declare(name, "headers", arguments={"alternate-exchange": kept})
        self._declare_durable(name, _typed(queue_type, delivery_limit=_NO_LIMIT))
        self._control.queue_bind(name, kept, "")
        # https://www.rabbitmq.com/docs/dlx
        death = {"x-first-death-reason": "expired", "x-first-death-queue": request_queue}
        self._control.exchange_bind(expired, name, "", arguments={"x-match": "all-with-x", **death})

    def _open_channel(self) -> _Channel:
        # Numbers are not used again: a tag of a closed channel would be accepted by its successor.
        while True:
            number, self._next_channel = self._next_channel, self._next_channel % self._connection.channel_max + 1
            if number not in self._connection.channels:
                break
        channel: _Channel = self._connection.open_channel(number)
        return channel

    def _open_confirmer(self) -> _Channel:
        channel = self._open_channel()
        channel.confirm_select()
        return channel

    # -- live -------------------------------------------------------------------------------------------

    def go_live(
        self,
        *,
        write: Callable[[bytes], None],
        on_channel_closing: Callable[[int], None],
        on_channel_closed: Callable[[int, TransportError], None],
        on_consumer_cancelled: Callable[[], None],
        on_blocked: Callable[[bool], None],
        on_closed: Callable[[], None],
    ) -> bytes:
        """Hand the socket over. Gives the bytes that py-amqp had read already."""
        connection = self._connection
        transport = connection.transport
        connection.on_channel_closing = on_channel_closing
        connection.on_channel_closed = lambda number, error: self._channel_closed(number, error, on_channel_closed)
        connection.on_consumer_cancelled = on_consumer_cancelled
        connection.on_blocked = lambda _reason: on_blocked(True)
        connection.on_unblocked = lambda: on_blocked(False)
        connection.on_closed = on_closed
        connection.live = True
        self.sock: socket.socket = transport.sock
        self.sock.setblocking(False)
        transport._write = lambda data: write(bytes(data))
        early, transport._read_buffer = transport._read_buffer, b""
        return bytes(early)

    def handle(self, frame: Frame) -> None:
        """
        Let py-amqp see to a rare frame.

        Raises:
            ConnectionLost: When the broker closed the connection, or does not speak AMQP.
        """
        channels = self._connection.channels  # None once the connection is closed
        if channels is None or frame.channel not in channels:
            return
        try:
            self._connection.handle(frame)
        except TransportError:
            raise
        except Exception as exc:
            raise ConnectionLost(f"the connection to the broker at {self.where} ended: {say(exc)}") from exc

    def read(self, size: int) -> bytes | None:
        """Read what is there. None: nothing yet; b"": the broker closed the connection."""
        try:
            return self.sock.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, InterruptedError):
            return None

    def write(self, data: bytes | memoryview) -> int:
        """Write as much as the socket takes now; gives how many bytes that was."""
        try:
            return self.sock.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, InterruptedError):
            return 0

    @property
    def tls(self) -> bool:
        """True when one lock must cover reading and writing: an SSL object is not for two threads at once."""
        return isinstance(self.sock, ssl.SSLSocket)

    def buffered(self) -> bool:
        """True when the TLS layer holds bytes that no poll of the socket will announce."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def reopen_publisher(self) -> None:
        """Open a fresh channel for ``publish``. RabbitMQ takes publishes right behind ``channel.open``."""
        self.publisher = self._open_channel().number

    def reopen_confirmer(self) -> None:
        """Open a fresh channel in confirm mode."""
        self.confirmer = self._open_confirmer().number

    def bind(self, routing_key: str, done: Callable[[TransportError | None], None]) -> None:
        """Bind the reply queue with one more key."""

        def bound(_args: object) -> None:
            self._bindings.append(routing_key)
            done(None)

        self._perform(partial(self._bind, key=routing_key), bound, done)

    @property
    def is_busy(self) -> bool:
        """True while what was asked of the broker before is not answered."""
        return bool(self._operations)

    @property
    def can_redeclare(self) -> bool:
        """True when an exchange that is gone can be declared, and nothing but answers was to go over it."""
        return self._plan.declare and not self.sends_requests

    def redeclare(self, done: Callable[[], None] | None = None, *, attempts: int = 3) -> None:
        """Declare and bind once more, in case that somebody has deleted the exchange or a binding."""

        steps: list[Callable[[_Channel], Any]] = [partial(self._bind, key=key) for key in self._bindings]
        if self._plan.declare and self._plan.exchange:
            steps.insert(0, self._declare_exchange)
        problems: list[TransportError | None] = []

        def ended(problem: TransportError | None) -> None:
            problems.append(problem)
            if len(problems) < len(steps):
                return
            first = next((each for each in problems if each is not None), None)
            if first is not None and (attempts == 1 or not self.can_redeclare):
                raise ConnectionLost(f"what was declared is gone, and cannot be declared again: {first}")
            if first is not None:
                # It was deleted between two of the steps.
                self.redeclare(done, attempts=attempts - 1)
            elif done is not None:
                done()

        for step in steps:
            self._perform(step, lambda _args: ended(None), ended)

    def inspect(self, queue: str, found: Callable[[QueueFacts | None], None]) -> None:
        """Ask how many messages and consumers a queue has (passive ``queue.declare``)."""
        self._perform(
            lambda channel: channel.queue_declare(queue, passive=True),
            lambda args: found(QueueFacts(args[1], args[2])),
            lambda _error: found(None),
        )

    def cancel(self, done: Callable[[], None]) -> None:
        """Stop consuming; ``done`` when no delivery can follow."""
        channel = self._connection.channels.get(self.consumer)
        if channel is None or not self._consumer_tag:
            done()
            return
        tag, self._consumer_tag = self._consumer_tag, ""
        channel.expecting(lambda _args: done())
        channel.basic_cancel(tag)

    def begin_close(self) -> None:
        """Ask the broker to close the connection (``connection.close``)."""
        self._connection.send_method(spec.Connection.Close, "BsBB", (0, "", 0, 0))

    def discard(self) -> None:
        """Let go of the socket, without a word to the broker."""
        self._connection.collect()

    def _perform(
        self,
        start: Callable[[_Channel], Any],
        done: Callable[[tuple[Any, ...]], None],
        failed: Callable[[TransportError], None],
    ) -> None:
        self._operations.append(_Operation(start, done, failed))
        if len(self._operations) == 1:
            self._start_operation()

    def _start_operation(self) -> None:
        self._control.expecting(self._operation_done)
        self._operations[0].start(self._control)

    def _operation_done(self, args: tuple[Any, ...]) -> None:
        operation = self._operations.popleft()
        if self._operations:
            self._start_operation()
        operation.done(args)

    def _channel_closed(self, number: int, error: Exception, tell: Callable[[int, TransportError], None]) -> None:
        problem = describe(error, self._url, self._plan)
        if self._control.channel_id is not None:
            tell(number, problem)
            return
        self._control = self._open_channel()
        if self._operations:
            operation = self._operations.popleft()
            if self._operations:
                self._start_operation()
            operation.failed(problem)


def _queue_arguments(plan: Plan) -> dict[str, Any]:
    arguments = _typed(plan.queue_type, delivery_limit=plan.delivery_limit)
    if plan.dead_letters:
        arguments["x-dead-letter-exchange"] = plan.dead_letters
    return arguments


def _typed(queue_type: str | None, *, delivery_limit: int | None) -> dict[str, Any]:
    arguments: dict[str, Any] = {"x-queue-type": queue_type} if queue_type else {}
    if queue_type == "quorum" and delivery_limit is not None:
        # Only quorum queues count; others refuse the argument.
        arguments["x-delivery-limit"] = delivery_limit
    return arguments


@dataclass(slots=True)
class _Operation:
    start: Callable[[_Channel], Any]
    done: Callable[[tuple[Any, ...]], None]
    failed: Callable[[TransportError], None]


def dial(
    url: BrokerURL,
    plan: Plan,
    *,
    timeout: float,
    heartbeat: float,
    max_body: int,
    connection_name: str,
    tls: Mapping[str, Any] | None,
) -> Link:
    """
    Connect and set up what the plan says. Blocks for about ``timeout`` seconds at most.

    Raises:
        NotConnected: Worth another attempt.
        AccessRefused, TopologyMismatch: Not worth one.
    """
    heartbeat = float(url.options.get("heartbeat", heartbeat))
    raw = connect(url, timeout=timeout, heartbeat=heartbeat, connection_name=connection_name, tls=tls)
    try:
        return Link(raw, plan, url, max_body=max_body)
    except Exception as exc:
        raw.collect()
        raise describe(exc, url, plan) from exc.with_traceback(None)


def connect(
    url: BrokerURL, *, timeout: float, heartbeat: float, connection_name: str, tls: Mapping[str, Any] | None
) -> _Connection:
    """
    Connect, and set up nothing. What blocks on the connection, this included, has until ``timeout`` seconds from now.

    Raises:
        NotConnected, AccessRefused: As ``dial``.
    """
    timeout = float(url.options.get("connection_timeout", timeout * 1000)) / 1000
    try:
        tls_options = _tls_options(url, tls) if url.tls else False
    except OSError as exc:
        raise NotConnected(f"no connection to the broker at {url.where}: a file for TLS cannot be read: {exc}") from exc
    connection = kombu.Connection(
        hostname=url.host,
        port=url.port,
        userid=url.user,
        password=url.password,
        virtual_host=url.vhost,
        transport=_Transport,
        ssl=tls_options,
        login_method=url.options.get("auth_mechanism", "PLAIN").upper(),
        connect_timeout=timeout,
        heartbeat=heartbeat,
        transport_options={
            "set_up_by": time.monotonic() + timeout,
            "client_properties": {"product": "jsonrpc-amqp", "connection_name": connection_name},
            "socket_settings": _socket_settings(),
        },
    )
    try:
        raw: _Connection = connection.transport.establish_connection()
        return raw
    except Exception as exc:
        # Without its traceback, which leads through two libraries and helps nobody.
        raise describe(exc, url) from exc.with_traceback(None)


def connect_to_first(
    text: str, *, timeout: float, connection_name: str, tls: Mapping[str, Any] | None
) -> tuple[BrokerURL, Any]:
    """
    Connect to the first broker of a URL that answers, for what blocks; raises as ``connect``.

    Without heartbeats: nobody would send them while something else is done between two verbs.
    """
    *others, last = parse_urls(text)
    options: dict[str, Any] = {"timeout": timeout, "heartbeat": 0, "connection_name": connection_name, "tls": tls}
    for url in others:
        with suppress(NotConnected):
            return url, connect(url, **options)
    return last, connect(last, **options)


def raw_message(body: bytes, properties: Mapping[str, Any]) -> Any:
    """Make a message with any properties at all, under the names of AMQP; headers are ``application_headers``."""
    return amqp.Message(body, **properties)


def _socket_settings() -> dict[int, int]:
    # py-amqp's own second of unacknowledged bytes ends connections at a hiccup of the network, and when an alarm keeps
    # the broker from reading. 0: the system's default; heartbeats notice dead peers.
    return {socket.TCP_USER_TIMEOUT: 0} if hasattr(socket, "TCP_USER_TIMEOUT") else {}


def check_tls(urls: list[BrokerURL], given: Mapping[str, Any] | None) -> None:
    """
    Refuse TLS options that would not be used: what was meant to be encrypted must not go out in the clear.

    Raises:
        ValueError: One is not known, or a URL is not ``amqps://``.
    """
    if given is None:
        return
    unknown = sorted(set(given) - _TLS_OPTIONS)
    if unknown:
        raise ValueError(f"unknown TLS option: {', '.join(unknown)}; known: {', '.join(sorted(_TLS_OPTIONS))}")
    if not all(url.tls for url in urls):
        raise ValueError("TLS options were given for an amqp:// URL, which has no TLS: amqps:// has")


def _tls_options(url: BrokerURL, given: Mapping[str, Any] | None) -> dict[str, Any]:
    options = url.options
    chosen: dict[str, Any] = {
        "ca_certs": options.get("cacertfile"),
        "certfile": options.get("certfile"),
        "keyfile": options.get("keyfile"),
        # ca_certs alone would accept a certificate for any host: naming the host makes Python verify it.
        "server_hostname": options.get("server_name_indication", url.host),
        "cert_reqs": ssl.CERT_REQUIRED,
    }
    if options.get("verify") == "verify_none":
        chosen["cert_reqs"] = ssl.CERT_NONE
    chosen |= {key: value for key, value in (given or {}).items() if value is not None}
    if chosen["cert_reqs"] == ssl.CERT_NONE:
        chosen["server_hostname"] = None  # there is no verifying a name without a certificate
    for name in _TLS_FILES:
        if chosen[name] is not None:
            # ssl's own error does not name the file.
            open(chosen[name], "rb").close()
    return {key: value for key, value in chosen.items() if value is not None}


def _decode_table(raw: bytes) -> dict[str, Any]:
    return dict(decode_fields("F", raw, 0)[0][0])


def _encode_table(table: Mapping[str, Any]) -> bytes:
    return bytes(encode_fields("F", (dict(table),)))
