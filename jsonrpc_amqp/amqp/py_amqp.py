"""
kombu and py-amqp: one connection, and everything rare on it. The only module that imports them.

Their quirks stop here. While a link is set up, py-amqp works as its authors intend: it blocks, and each read has a
deadline of ours. Once the link is live, the connection reads and writes the socket and cuts the frames; py-amqp is
given the rare ones, and never waits: a method that would wait registers what to do when its reply comes.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from struct import pack, unpack_from
from traceback import walk_tb
from typing import Any

import amqp
import kombu
from amqp import spec
from amqp.transport import SSLTransport, TCPTransport
from kombu.transport import pyamqp

from ..errors import NotConnected, TransportError
from ..logs import contain_handlers
from ..options import MAX_SIZE, ConnectionOptions
from ..runtime.forks import close_when_forked
from ..version import __version__
from .broker_errors import describe, summary
from .deadline import Deadline
from .decoder import MOST_OF_A_HEADER, Decoder
from .encoder import Encoder
from .frames import BODY, HEADER, Frame
from .happy_eyeballs import Address, AddressMemory
from .happy_eyeballs import connect as connect_socket
from .url import BrokerURL, parse_urls, tls_options

# It logs, at DEBUG, on the threads that run it.
contain_handlers(logging.getLogger("amqp"))

_CHANNEL_CLOSE = pack(">HH", *spec.Channel.Close)
# The methods that messages begin with, and the types of the frames that follow.
_OF_MESSAGES = tuple(pack(">HH", *method) for method in (spec.Basic.Deliver, spec.Basic.GetOk, spec.Basic.Return))
_CONTENT = (HEADER, BODY)
# AMQP 0-9-1, section 4.2.3: the least that frames may be limited to, in bytes.
_FRAME_MIN = 4096
# More is not agreed on: py-amqp reserves a buffer of this size, and a whole frame is kept in memory.
_FRAME_MAX = MAX_SIZE


class _Bounded:
    """
    What our transports have in common: a socket that is connected already, and one deadline for all that blocks.

    py-amqp's own limit each system call, so a peer that sends a byte at a time could go on for ever.

    A class puts it before one of py-amqp's transports, which mypy cannot know where ``super`` is called here.
    """

    connection: AmqpConnection
    sock: Any
    connect_timeout: Any
    is_looking = False  # read what is there, and do not wait

    def _connect(self, host: str, port: int, timeout: float | None) -> None:
        connection = self.connection
        # Not to the host that kombu passes on, which has one address where localhost has two.
        self.sock, connection.address = connect_socket(*connection.peer, connection.deadline, connection.memory)

    def _init_socket(self, *args: Any) -> None:
        deadline = self.connection.deadline
        try:
            deadline.watch(self.sock)
            super()._init_socket(*args)  # type: ignore[misc]
        except BaseException as exc:
            deadline.watch(None)  # py-amqp closes the socket
            if isinstance(exc, TimeoutError):
                raise deadline.expired() from None
            raise

    def _setup_transport(self) -> None:
        self.connect_timeout = self.connection.deadline.left()  # of the TLS handshake
        super()._setup_transport()  # type: ignore[misc]
        self.connection.deadline.step = "the login"
        self._quick_recv = self._receive
        self._write = self._send

    def _wrap_socket(self, *args: Any, **options: Any) -> Any:
        self.connection.deadline.step = "the TLS handshake"
        try:
            self.sock = super()._wrap_socket(*args, **options)  # type: ignore[misc]  # see the class
        except BaseException as exc:
            _close_unfinished(exc)
            raise
        self.connection.deadline.watch(self.sock)
        return self.sock

    def _read(self, size: int, initial: bool = False) -> Any:
        # The frame may be the header of a message; which kind it is, is not known here.
        if size > max(self.connection.frame_max, MOST_OF_A_HEADER if self.connection.takes_messages else 0):
            raise ConnectionError(f"a frame of {size} bytes, more than {self.connection.frame_max}")
        return super()._read(size, initial)  # type: ignore[misc]

    def _receive(self, size: int) -> bytes:
        left = self.connection.deadline.left()
        self.sock.settimeout(0 if self.is_looking else left)
        try:
            return bytes(self.sock.recv(size))
        except (BlockingIOError, ssl.SSLWantReadError, TimeoutError):
            raise self.connection.deadline.expired() from None

    def _send(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            self.sock.settimeout(self.connection.deadline.left())
            try:
                view = view[self.sock.send(view) :]
            except TimeoutError:
                raise self.connection.deadline.expired() from None

    def _shutdown_transport(self) -> None:
        # Say goodbye (TLS), and do not wait for the peer to do so.
        self.sock.settimeout(0)
        super()._shutdown_transport()  # type: ignore[misc]

    def close(self) -> None:
        self.connection.deadline.watch(None)
        super().close()  # type: ignore[misc]


def _close_unfinished(exc: BaseException) -> None:
    """Close the SSL socket that was being made: Python leaves it open, as long as the exception is kept."""
    for frame, _line in walk_tb(exc.__traceback__):
        unfinished = frame.f_locals.get("self")
        if isinstance(unfinished, ssl.SSLSocket):
            unfinished.close()


class _TcpTransport(_Bounded, TCPTransport):
    """A connection without TLS."""


class _TlsTransport(_Bounded, SSLTransport):
    """A connection with TLS."""


class AmqpChannel(pyamqp.Channel):
    """py-amqp's channel, which on a live link never waits and is never reopened in place; see ``pipelined``, too."""

    def __init__(self, connection: AmqpConnection, channel_id: int) -> None:
        self.number = channel_id  # outlives the channel, unlike channel_id
        self._reply: Callable[[tuple[Any, ...]], None] | None = None
        # Of each method that is awaited: several may be under way, and are answered in order.
        self._replies: dict[Any, deque[Callable[[tuple[Any, ...]], None] | None]] = {}
        self._pending: dict[Any, Callable[..., Any]]  # py-amqp's: what awaits a method, once
        super().__init__(connection, channel_id, auto_decode=False)

    def expecting(self, reply: Callable[[tuple[Any, ...]], None] | None) -> None:
        """Pass the reply of the method that is sent next to ``reply``."""
        self._reply = reply

    @property
    def unanswered(self) -> int:
        """How many methods are not answered yet that did not wait for that."""
        return sum(map(len, self._replies.values()))

    def wait(self, method: Any, callback: Any = None, timeout: Any = None, returns_tuple: bool = False) -> Any:
        if not self.connection.waits_for_nothing:
            return super().wait(method, callback, timeout, returns_tuple)
        self._replies.setdefault(method, deque()).append(self._reply)
        self._reply = None
        self._pending[method] = self._answered
        return ("", 0, 0) if returns_tuple else ""

    def _answered(self, method: Any, *args: Any) -> None:
        replies = self._replies[method]
        reply = replies.popleft()
        if replies:
            self._pending[method] = self._answered  # py-amqp forgets it at each answer
        if reply is not None:
            reply(args)

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
        self.connection.on_consumer_cancelled(consumer_tag)


class AmqpConnection(pyamqp.Connection):
    """
    py-amqp's connection, with a deadline for what it waits for.

    Args:
        peer: Host and port to connect to.
        deadline: Of connecting and setting up; ``Deadline.allow`` sets that of another operation.
        memory: Which addresses of the host to try first.

    Attributes:
        address: The address that it is connected to, or tried last; None before that.
        live: Nothing may wait any more; what happens is passed to the ``on_...`` callables.
        takes_messages: py-amqp is to assemble messages, which takes as much memory as the broker sends.
    """

    Channel = AmqpChannel
    live = False
    takes_messages = False
    _is_pipelined = False

    def __init__(self, *, peer: tuple[str, int], deadline: Deadline, memory: AddressMemory, **options: Any) -> None:
        self.peer = peer
        self.deadline = deadline
        self.memory = memory
        self.address: Address | None = None
        self.channels: dict[int, Any]  # py-amqp's, by number
        self.on_channel_closing: Callable[[int], None] = lambda number: None
        self.on_channel_closed: Callable[[int, Exception], None] = lambda number, error: None
        self.on_consumer_cancelled: Callable[[str], None] = lambda consumer_tag: None
        self.on_closed: Callable[[], None] = lambda: None
        self.on_blocked: Callable[[str], None]  # py-amqp's
        self.on_unblocked: Callable[[], None]  # py-amqp's
        self.channel_max: int  # py-amqp's
        self._frame_writer: Any  # py-amqp's
        self._transport: Any  # py-amqp's; None before it connects, and after the end
        super().__init__(**options)
        close_when_forked(self)

    def close_in_child(self) -> None:
        """Close this process's copy of the socket, and let py-amqp have it no more: it would shut it down."""
        transport = self._transport
        if transport is not None and transport.sock is not None:
            sock, transport.sock = transport.sock, None
            sock.close()
        self.deadline = Deadline(0.0)  # another thread may have held the lock of the former at the fork

    def connect(self, callback: Any = None) -> Any:
        try:
            return super().connect(callback)
        except BaseException:
            self.note_failure()
            self.collect()
            raise

    def collect(self) -> None:
        super().collect()
        # A buffer of a whole frame; a closed connection is part of a cycle, so it would be kept until that is found.
        self._frame_writer = None

    def Transport(
        self,
        host: str,
        connect_timeout: float | None,
        ssl: bool | dict[str, Any] = False,
        read_timeout: float | None = None,
        write_timeout: float | None = None,
        socket_settings: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        kind: Any = _TlsTransport if ssl else _TcpTransport
        transport = kind(host, connect_timeout, ssl=ssl, socket_settings=socket_settings, **options)
        transport.connection = self
        return transport

    def note_success(self) -> None:
        """Note that all was set up: the next connection is made to the same address."""
        if self.address is not None:
            self.memory.note_success(*self.peer, self.address)

    def note_failure(self) -> None:
        """Note that it could not be set up: the next connection is made to another address, if there is one."""
        if self.address is not None:
            self.memory.note_failure(*self.peer, self.address)

    def decoder(self, *, max_body: int) -> Decoder:
        """Return what cuts the bytes of this connection into frames and messages."""
        return Decoder(max_body=max_body, frame_max=self.frame_max)

    def browsing_decoder(self, *, max_body: int) -> Decoder:
        """Return one for ``basic.get``, which keeps headers of as many bytes as bodies."""
        return Decoder(max_body=max_body, frame_max=self.frame_max, max_header=max_body, is_browsing=True)

    def encoder(self) -> Encoder:
        """Return what encodes the publishes of this connection."""
        return Encoder(frame_max=self.frame_max)

    def open_channel(self, number: int) -> AmqpChannel:
        """Open a channel with a number that is not in use."""
        channel = AmqpChannel(self, number)
        channel.open()
        return channel

    def blocking_read(self, timeout: float | None = None) -> Any:
        # drain_events(timeout=) is no deadline: every frame, heartbeats too, starts it anew. With 0, as before each
        # publish, it only looks.
        frame = self.read_frame(is_looking=timeout == 0)
        if not self.takes_messages and (frame.type in _CONTENT or frame.payload.startswith(_OF_MESSAGES)):
            raise ConnectionError("a message from the broker, before any was asked for")
        return self.on_inbound_frame(tuple(frame))

    def read_frame(self, *, is_looking: bool = False) -> Frame:
        """Block until there is a frame, or only look; return it unhandled."""
        self.transport.is_looking = is_looking
        return Frame(*self.transport.read_frame())

    @property
    def waits_for_nothing(self) -> bool:
        """Whether no method of a channel waits for its answer."""
        return self.live or self._is_pipelined

    @contextmanager
    def pipelined(self) -> Iterator[None]:
        """
        Send the methods of a block without waiting in between, and wait for all answers at its end.

        An answer is progress: each one extends the deadline (``Deadline.extend``), and nothing else does.
        """
        self._is_pipelined = True
        try:
            yield
            unanswered = self._unanswered()
            while unanswered:
                self.drain_events()
                before, unanswered = unanswered, self._unanswered()
                if unanswered < before:
                    self.deadline.extend()
        finally:
            self._is_pipelined = False

    def _unanswered(self) -> int:
        return sum(channel.unanswered for number, channel in self.channels.items() if number)

    def read_in_pieces(self) -> Iterator[bytes]:
        """Block until there is a frame, and yield its bytes as they arrive, so that none has to be kept."""
        read, most = self.transport._read, self.frame_max
        self.transport.is_looking = False
        head = read(7)
        yield head
        left = unpack_from(">I", head, 3)[0] + 1
        while left:
            piece = read(min(left, most))
            left -= len(piece)
            yield piece

    def begin_close(self) -> None:
        """Ask the broker to close the connection (``connection.close``)."""
        self.send_method(spec.Connection.Close, "BsBB", (0, "", 0, 0))

    def handle(self, frame: Frame) -> None:
        """Have py-amqp handle a frame; raises its errors."""
        if frame.channel and frame.payload.startswith(_CHANNEL_CLOSE):
            # Its text quotes what the message said, cut at some byte: py-amqp cannot decode each of them.
            self.channels[frame.channel].close_received(frame.payload)
        else:
            self.on_inbound_frame(tuple(frame))

    def _on_tune(self, channel_max: int, frame_max: int, server_heartbeat: int, argsig: str = "BlB") -> None:
        if frame_max and frame_max < _FRAME_MIN:
            raise amqp.exceptions.FrameSyntaxError(f"a limit of {frame_max} bytes a frame; {_FRAME_MIN} is the least")
        super()._on_tune(  # type: ignore[misc]  # py-amqp's; its stubs leave it out
            channel_max, min(frame_max, _FRAME_MAX), server_heartbeat, argsig
        )

    def _on_close_ok(self) -> None:
        # Called when the broker confirms our close, and when we confirm its own.
        if self.live:
            self.on_closed()
        else:
            self.collect()


class Transport(pyamqp.Transport):
    Connection = AmqpConnection

    @property
    def default_connection_params(self) -> dict[str, Any]:
        return {}  # kombu would log in as "guest" with an empty user or password


def connect(
    url: BrokerURL, options: ConnectionOptions, deadline: Deadline, memory: AddressMemory | None = None
) -> AmqpConnection:
    """
    Connect, and set up nothing.

    Args:
        deadline: Of this, and of what blocks on the connection later.
        memory: Which addresses of the host to try first.

    Raises:
        NotConnected: Another attempt may succeed.
        AccessRefused: Another attempt would fail, too.
    """
    try:
        tls = tls_options(url, options.tls) if url.tls else False
    except OSError as exc:
        raise NotConnected(f"no connection to the broker at {url.where}: a file for TLS cannot be read: {exc}") from exc
    connection = kombu.Connection(
        hostname=url.host,
        port=url.port,
        userid=url.user,
        password=url.password,
        virtual_host=url.vhost,
        transport=Transport,
        ssl=tls,
        login_method=url.auth_mechanism,
        heartbeat=options.heartbeat,
        transport_options={
            "peer": (url.host, url.port),
            "deadline": deadline,
            "memory": memory or AddressMemory(),
            "client_properties": _client_properties(options.name),
            "socket_settings": _socket_settings(),
        },
    )
    try:
        raw: AmqpConnection = connection.transport.establish_connection()
        return raw
    except Exception as exc:
        # Without its traceback, which leads through two libraries and helps no reader.
        raise describe(exc, url) from exc.with_traceback(None)


def connect_to_first(urls: str, options: ConnectionOptions) -> tuple[BrokerURL, Any]:
    """
    Connect to the first broker of several URLs that takes the connection, for programs that block.

    Returns:
        Its URL, and an ``AmqpConnection``; the stubs of py-amqp know too little of it.

    Args:
        options: Without heartbeats: no thread would send them between two blocking operations.

    Raises:
        NotConnected: Another attempt may succeed.
        AccessRefused: Each broker refused the user.
    """
    failures: list[TransportError] = []
    for url in parse_urls(urls):
        try:
            return url, connect(url, options, Deadline(url.connect_timeout(options.connect_timeout)))
        except TransportError as exc:
            failures.append(exc)
    raise summary(failures)


def raw_message(body: bytes, properties: Mapping[str, Any]) -> Any:
    """Return a message with any properties, under AMQP's names; the headers are ``application_headers``."""
    return amqp.Message(body, **properties)


def _client_properties(name: str) -> dict[str, str]:
    """Return what a connection says of itself, and RabbitMQ's management shows of it (``connection.start-ok``)."""
    return {
        "product": "jsonrpc-amqp",
        "version": __version__,
        "product_version": __version__,  # else py-amqp says its own there
        "platform": f"Python {sys.version.partition(' ')[0]}",
        "connection_name": name,
    }


def _socket_settings() -> dict[int, int]:
    # py-amqp's own second of unacknowledged bytes ends connections at a hiccup of the network, and when an alarm keeps
    # the broker from reading. 0: the system's default; heartbeats notice dead peers.
    return {socket.TCP_USER_TIMEOUT: 0} if hasattr(socket, "TCP_USER_TIMEOUT") else {}
