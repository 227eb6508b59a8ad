"""
kombu and py-amqp: one connection, and everything rare on it. The only module that imports them.

Their quirks stop here. While a link is set up, py-amqp works as its authors intend: it blocks, and each read has a
deadline of ours. Once the link is live, the connection reads and writes the socket and cuts the frames; py-amqp is
given the rare ones, and never waits: a method that would wait registers what to do when its reply comes.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from struct import pack, unpack_from
from typing import Any

import amqp
import kombu
from amqp import spec
from amqp.serialization import dumps as encode_fields
from amqp.serialization import loads as decode_fields
from kombu.transport import pyamqp

from ..errors import NotConnected
from ..logs import contain_handlers
from ..options import ConnectionOptions
from ..runtime.forks import close_when_forked
from .broker_errors import describe
from .decoder import Decoder
from .encoder import Encoder
from .frames import Frame
from .url import BrokerURL, parse_urls, tls_options

# It logs, at DEBUG, on the threads that run it.
contain_handlers(logging.getLogger("amqp"))

_CHANNEL_CLOSE = pack(">HH", *spec.Channel.Close)


class AmqpChannel(pyamqp.Channel):
    """py-amqp's channel, which on a live link never waits and is never reopened in place."""

    def __init__(self, connection: AmqpConnection, channel_id: int) -> None:
        self.number = channel_id  # outlives the channel, unlike channel_id
        self._reply: Callable[[tuple[Any, ...]], None] | None = None
        self._pending: dict[Any, Callable[..., Any]]  # py-amqp's: what awaits a method, once
        super().__init__(connection, channel_id, auto_decode=False)

    def expecting(self, reply: Callable[[tuple[Any, ...]], None] | None) -> None:
        """Pass the reply of the method that is sent next to ``reply``."""
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


class AmqpConnection(pyamqp.Connection):
    """
    py-amqp's connection, with a deadline for what it waits for.

    Args:
        set_up_by: The deadline of the set-up, in monotonic seconds; ``allow`` sets another.

    Attributes:
        live: Nothing may wait any more; what happens is passed to the ``on_...`` callables.
    """

    Channel = AmqpChannel
    live = False

    def __init__(self, *, set_up_by: float, **options: Any) -> None:
        self._read_by = set_up_by
        self.channels: dict[int, Any]  # py-amqp's, by number
        self.on_channel_closing: Callable[[int], None] = lambda number: None
        self.on_channel_closed: Callable[[int, Exception], None] = lambda number, error: None
        self.on_consumer_cancelled: Callable[[], None] = lambda: None
        self.on_closed: Callable[[], None] = lambda: None
        self.on_blocked: Callable[[str], None]  # py-amqp's
        self.on_unblocked: Callable[[], None]  # py-amqp's
        self.channel_max: int  # py-amqp's
        self._transport: Any  # py-amqp's; None before it connects, and after the end
        super().__init__(**options)
        close_when_forked(self)

    def close_in_child(self) -> None:
        """Close this process's copy of the socket, and let py-amqp have it no more: it would shut it down."""
        transport = self._transport
        if transport is not None and transport.sock is not None:
            sock, transport.sock = transport.sock, None
            sock.close()

    def connect(self, callback: Any = None) -> Any:
        try:
            return super().connect(callback)
        except BaseException:
            self.collect()
            raise

    def decoder(self, *, max_body: int) -> Decoder:
        """Return what cuts the bytes of this connection into frames and messages."""
        return Decoder(max_body=max_body, frame_max=self.frame_max, decode_table=_decode_table)

    def encoder(self) -> Encoder:
        """Return what encodes the publishes of this connection."""
        return Encoder(frame_max=self.frame_max, encode_table=_encode_table)

    def open_channel(self, number: int) -> AmqpChannel:
        """Open a channel with a number that is not in use."""
        channel = AmqpChannel(self, number)
        channel.open()
        return channel

    def allow(self, seconds: float) -> None:
        """Set the deadline of all blocking reads from now on: in this many seconds."""
        self._read_by = time.monotonic() + seconds

    def blocking_read(self, timeout: float | None = None) -> Any:
        # drain_events(timeout=) is no deadline: every frame, heartbeats too, starts it anew. With 0, as before each
        # publish, it only looks.
        return super().blocking_read(0 if timeout == 0 else self._left())

    def read_frame(self) -> Frame:
        """Block until there is a frame, and return it unhandled."""
        with self.transport.having_timeout(self._left()):
            return Frame(*self.transport.read_frame())

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


class Transport(pyamqp.Transport):
    Connection = AmqpConnection


def connect(url: BrokerURL, options: ConnectionOptions) -> AmqpConnection:
    """
    Connect, and set up nothing. What blocks on the connection, this included, has ``connect_timeout`` seconds from now.

    Raises:
        NotConnected: Another attempt may succeed.
        AccessRefused: Another attempt would fail, too.
    """
    timeout = url.connect_timeout(options.connect_timeout)
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
        connect_timeout=timeout,
        heartbeat=options.heartbeat,
        transport_options={
            "set_up_by": time.monotonic() + timeout,
            "client_properties": {"product": "jsonrpc-amqp", "connection_name": options.name},
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
    Connect to the first broker of several URLs that answers, for programs that block; raises as ``connect``.

    Returns:
        Its URL, and an ``AmqpConnection``; the stubs of py-amqp know too little of it.

    Args:
        options: Without heartbeats: no thread would send them between two blocking operations.
    """
    *others, last = parse_urls(urls)
    for url in others:
        with suppress(NotConnected):
            return url, connect(url, options)
    return last, connect(last, options)


def raw_message(body: bytes, properties: Mapping[str, Any]) -> Any:
    """Return a message with any properties, under AMQP's names; the headers are ``application_headers``."""
    return amqp.Message(body, **properties)


def _socket_settings() -> dict[int, int]:
    # py-amqp's own second of unacknowledged bytes ends connections at a hiccup of the network, and when an alarm keeps
    # the broker from reading. 0: the system's default; heartbeats notice dead peers.
    return {socket.TCP_USER_TIMEOUT: 0} if hasattr(socket, "TCP_USER_TIMEOUT") else {}


def _decode_table(raw: bytes) -> dict[str, Any]:
    return dict(decode_fields("F", raw, 0)[0][0])


def _encode_table(table: Mapping[str, Any]) -> bytes:
    return bytes(encode_fields("F", (dict(table),)))
