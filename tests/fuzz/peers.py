"""
A hostile broker, and a hostile server behind an honest broker: targets that talk to a real client or server.

The bytes of the fuzzer are a script: what the broker sends instead of, or beside, what a broker would.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from struct import pack
from typing import Any
from unittest import mock

from pika import spec
from pika.frame import Body, Header, Heartbeat, Method, ProtocolHeader, decode_frame
from pika.spec import BasicProperties

from jsonrpc_amqp import Client, JsonRpcAmqpError, Server
from jsonrpc_amqp.amqp.connection import Connection
from jsonrpc_amqp.amqp.deadline import Deadline
from jsonrpc_amqp.errors import TransportError

from .reader import Reader

# Seconds: of one attempt to connect, what is allowed beyond that, and of a call.
CONNECT_TIMEOUT, TIMEOUT = 0.3, 0.3
SLACK = 1.0
# Beyond an attempt that no answer has extended: less than what an extension gives, so that a wrong one is found.
SHORT_SLACK = 0.75
# Answers extend an attempt to so many times its seconds; bytes of the shortest one (heartbeats have 8).
_MOST_TIMES, _ANSWER = 4, 12
# Bytes: of what is kept of a message, of what a script may have sent, and of the growth that is allowed.
MAX_SIZE, MOST_SENT, MOST_GROWTH = 1 << 16, 48 << 20, 12 << 20
_FRAME_MAX = 4096
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = 0.02


# -- an honest broker ---------------------------------------------------------------------------------------------


class Gone(Exception):
    """The connection has ended."""


class Quiet(Exception):
    """The other side says nothing."""


class Wire:
    """
    One connection, as a broker sees it.

    Attributes:
        is_over: Nothing more is read or sent.
        left: Bytes that may still be sent.
        sent: Bytes that were sent.
        pause: Seconds between one byte that is sent and the next; 0: all are sent at once.
        published: The last message: channel, method, properties and body.
    """

    def __init__(self, sock: socket.socket, is_over: threading.Event) -> None:
        self.sock = sock
        self.is_over = is_over
        self.left, self.pause, self.sent = MOST_SENT, 0.0, 0
        self.consumer_tag, self.consumer_channel, self.tags = "", 1, 0
        self.published: list[Any] = []
        self._read = b""
        sock.settimeout(_TICK)

    def send(self, data: bytes) -> None:
        """Send bytes, as far as they are allowed."""
        view = memoryview(data[: self.left])
        self.left -= len(view)
        while view:
            if self.is_over.is_set():
                raise Gone
            try:
                sent = self.sock.send(view[:1] if self.pause else view)
                self.sent += sent
                view = view[sent:]
                time.sleep(self.pause)
            except TimeoutError:
                continue
            except OSError as exc:
                raise Gone from exc

    def _frame(self, ticks: float) -> Any:
        while True:
            size, frame = decode_frame(self._read)
            if size:
                self._read = self._read[size:]
                return frame
            self._read += self._receive(ticks)

    def _receive(self, ticks: float) -> bytes:
        while not self.is_over.is_set():
            try:
                data = self.sock.recv(1 << 16)
            except TimeoutError:
                ticks -= 1
                if ticks <= 0:
                    raise Quiet from None
                continue
            except OSError as exc:
                raise Gone from exc
            if not data:
                break
            return data
        raise Gone

    def answer(self, ticks: float = math.inf) -> None:
        """
        Read one frame, and do what a broker does.

        Raises:
            Gone: The connection has ended.
            Quiet: Nothing came for so many ticks.
        """
        frame = self._frame(ticks)
        if isinstance(frame, ProtocolHeader):
            self.method(0, spec.Connection.Start(0, 9, {"product": "fuzz"}, "PLAIN", "en_US"))
        elif isinstance(frame, Header):
            self.published[2:] = [frame.properties, b""]
        elif isinstance(frame, Body):
            self.published[3] += frame.fragment
        elif isinstance(frame, Method):
            self._answer_method(frame.channel_number, frame.method)

    def _answer_method(self, channel: int, asked: Any) -> None:
        if isinstance(asked, spec.Basic.Publish):
            self.published = [channel, asked]
        elif isinstance(asked, spec.Basic.Consume):
            self.consumer_tag, self.consumer_channel = asked.consumer_tag or "t", channel
            self.method(channel, spec.Basic.ConsumeOk(self.consumer_tag))
        else:
            reply = _REPLIES.get(type(asked))
            if reply is not None:
                self.method(channel, reply(asked))
        if isinstance(asked, spec.Connection.Close):
            raise Gone

    def method(self, channel: int, method: Any) -> None:
        self.send(Method(channel, method).marshal())

    def deliver(self, exchange: str, key: str, properties: BasicProperties, body: bytes) -> None:
        """Deliver a message to the consumer."""
        self.tags += 1
        channel = self.consumer_channel
        data = Method(channel, spec.Basic.Deliver(self.consumer_tag, self.tags, False, exchange, key)).marshal()
        data += Header(channel, len(body), properties).marshal()
        for start in range(0, len(body), _FRAME_MAX - 8):
            data += Body(channel, body[start : start + _FRAME_MAX - 8]).marshal()
        self.send(data)


_REPLIES: dict[type, Callable[[Any], Any]] = {
    spec.Connection.StartOk: lambda _: spec.Connection.Tune(2047, _FRAME_MAX, 60),
    spec.Connection.Open: lambda _: spec.Connection.OpenOk(),
    spec.Connection.Close: lambda _: spec.Connection.CloseOk(),
    spec.Channel.Open: lambda _: spec.Channel.OpenOk(),
    spec.Channel.Close: lambda _: spec.Channel.CloseOk(),
    spec.Exchange.Declare: lambda _: spec.Exchange.DeclareOk(),
    spec.Queue.Declare: lambda asked: spec.Queue.DeclareOk(asked.queue or "amq.gen-fuzz", 0, 1),
    spec.Queue.Bind: lambda _: spec.Queue.BindOk(),
    spec.Basic.Qos: lambda _: spec.Basic.QosOk(),
    spec.Basic.Cancel: lambda asked: spec.Basic.CancelOk(asked.consumer_tag),
    spec.Confirm.Select: lambda _: spec.Confirm.SelectOk(),
}


class Listening:
    """A port on which one connection after the other is served, on a thread of its own."""

    def __init__(self, serve: Callable[[Wire], None]) -> None:
        self._serve = serve
        self._is_over = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(_TICK)
        self.url = f"amqp://u:p@127.0.0.1:{self._socket.getsockname()[1]}/"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join(120)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with self._socket:
            while not self._is_over.is_set():
                with suppress(TimeoutError, Gone):
                    sock, _address = self._socket.accept()
                    with sock:
                        self._serve(Wire(sock, self._is_over))


# -- what must hold -------------------------------------------------------------------------------------------------


@contextmanager
def watched() -> Iterator[None]:
    """Raise what a thread of ours raised, and what a connection reports as unexpected; and check the memory."""
    found: list[object] = []
    fail = Connection.fail

    def note(connection: Connection, error: BaseException) -> None:
        if not isinstance(error, TransportError):
            found.append(error)
        fail(connection, error)

    Path("/proc/self/clear_refs").write_text("5")  # the peak is measured from here
    before = _memory()
    hook = threading.excepthook
    with mock.patch.object(Connection, "fail", note), mock.patch.object(threading, "excepthook", found.append):
        yield
    assert threading.excepthook is hook
    grown = _peak() - before
    assert not found, found
    assert grown < MOST_GROWTH, f"grown by {grown / 1e6:.1f} MB"


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def _peak() -> int:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


class _Stalls:
    """Measures how long this process does not run although it could: threads wait for a busy machine."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Stalls:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            if self._is_over.wait(_TICK):
                return
            self.seconds += time.monotonic() - began - _TICK


@contextmanager
def _at_most(seconds: float, what: str, slack: Callable[[], float] = lambda: SLACK) -> Iterator[None]:
    began = time.monotonic()
    with _Stalls() as stalls:
        try:
            yield
        except JsonRpcAmqpError:
            _check_time(began, seconds, what, stalls, slack())
            raise
    _check_time(began, seconds, what, stalls, slack())


@contextmanager
def _attempt(sent: Callable[[], int]) -> Iterator[None]:
    """
    Check how long one attempt to connect takes, and that only whole answers extend it.

    Args:
        sent: Returns how many bytes the broker has sent.
    """
    times = 0
    extend = Deadline.extend

    def count(deadline: Deadline) -> None:
        nonlocal times
        times += 1
        extend(deadline)

    def slack() -> float:
        if not times:
            return max(SHORT_SLACK, SLACK - 1 + SHORT_SLACK)
        return (_MOST_TIMES - 1) * CONNECT_TIMEOUT + SLACK

    with mock.patch.object(Deadline, "extend", count), _at_most(CONNECT_TIMEOUT, "an attempt to connect", slack):
        yield
    assert times * _ANSWER <= sent(), f"{times} extensions for {sent()} bytes"


def _check_time(began: float, seconds: float, what: str, stalls: _Stalls, slack: float) -> None:
    # Each step that it waited for, in other threads and in the peer, may have stalled as long.
    took, allowed = time.monotonic() - began, seconds + slack + 4 * stalls.seconds
    assert took <= allowed, f"{what} took {took:.2f} s, of {seconds:g} s; stalled for {stalls.seconds:.2f} s"


# -- a hostile broker -------------------------------------------------------------------------------------------------


def broker(data: bytes) -> None:
    """Whatever a broker sends: attempts to connect end in time, and calls with a result or a typed error."""
    read = Reader(data)
    use = read.choice(_use_client, _use_client, _use_server)
    options = {"reply": read.choice("topic", "direct"), "confirm": bool(read.number(1))}
    wires: list[Wire] = []

    def serve(wire: Wire) -> None:
        wires.append(wire)
        if len(wires) == 1:
            play(wire, read)

    listening = Listening(serve)
    try:
        with watched():
            use(listening.url, options, lambda: sum(wire.sent for wire in wires))
    finally:
        listening.close()


def _use_client(url: str, options: Any, sent: Callable[[], int]) -> None:
    client = Client(
        url, "S", reconnect=False, connect_timeout=CONNECT_TIMEOUT, timeout=TIMEOUT, max_size=MAX_SIZE, **options
    )
    try:
        with suppress(TransportError):
            with _attempt(sent):
                client.start(60)
            with _at_most(TIMEOUT, "calls"):
                for future in (client.submit("m", [1]), client.submit_notify("m", [2])):
                    with suppress(JsonRpcAmqpError):
                        future.result(60)
    finally:
        with _at_most(1.0, "close()"):
            client.close()


def _use_server(url: str, _options: object, _sent: Callable[[], int]) -> None:
    server = Server(
        url, "S", methods={"m": lambda *args: args}, connect_timeout=CONNECT_TIMEOUT, max_size=MAX_SIZE, concurrency=2
    )
    try:
        # It reconnects, so it is this time that bounds what it waits.
        with _at_most(CONNECT_TIMEOUT, "start()"), suppress(TransportError):
            server.start(CONNECT_TIMEOUT)
        time.sleep(_TICK)
    finally:
        # At most 5 s for the broker to confirm that it delivers nothing more, if the grace allows.
        with _at_most(0.2 + 2.0, "stop()"):
            server.stop(0.2)


def play(wire: Wire, read: Reader) -> None:
    """Send what the script says."""
    sent = b""
    for _ in range(64):
        kind = read.number(15)
        if kind <= 3:
            with suppress(Quiet):
                for _ in range(read.choice(1, 1, 3, 20)):
                    wire.answer(1)
            continue
        if kind == 4 or read.is_at_end:
            return
        if kind == 5:
            while True:
                wire.answer()
        if kind == 6:
            time.sleep(0.01)
        elif kind == 7:
            again = sent[-_FRAME_MAX:] or b"\0"  # one frame of a body, if it was a large one
            for _ in range(read.choice(10, 100, 20_000)):
                wire.send(again)
        elif kind == 8:
            wire.pause = read.choice(0.0, 0.001, 0.05, 0.2)
        else:
            sent = _bytes(read, wire)
            wire.send(sent)


_CONNECTED = 24  # answers until a connection is made, and more
# A message on the channel that is first, with a body that is announced to be endless; its frames, many times.
_ENDLESS = bytes([9, 6, 1, 0, 0, 0, 5, 0, 0, 0, 1, 1, 7, 2])
# What comes after so many answers.
_COMES = (
    (0, bytes([9, 0, 0, *range(40)])),
    (1, bytes([8, 2])),
    (2, bytes([8, 3])),
    (6, bytes([8, 2])),
    *((steps, bytes([9, 1, 0, 7, 1])) for steps in (4, 6, 8, 10)),  # heartbeats are no answers
    (3, bytes([9, 6, 1, *range(40)])),
    (5, _ENDLESS),
    (8, bytes([9, 6, 2, *range(1, 40)])),
    (14, bytes([9, 6, 7, *range(40)])),
    (_CONNECTED, _ENDLESS),
    (_CONNECTED, bytes([9, 5, 1, *range(3, 40)])),
    (_CONNECTED, bytes([9, 6, 7, *range(1, 40)])),
)
SCRIPTS = [
    bytes([0, 0, 0]) + bytes([0, 0] * steps) + what + bytes([0, 0] * _CONNECTED) + b"\5" for steps, what in _COMES
]


def _bytes(read: Reader, wire: Wire) -> bytes:
    """Return something that is nearly what a broker sends."""
    kind = read.number(6)
    channel = read.choice(0, 1, 2, 3, 4, 5, 500, wire.consumer_channel)
    if kind == 0:
        return read.take(read.number(40))
    if kind == 1:
        return bytes(Heartbeat().marshal())
    if kind == 2:
        size = read.choice(0, 1, 4088, 4089, 1 << 20, (1 << 20) + 1, 1 << 31, (1 << 32) - 1)
        begun = pack(">BHI", read.choice(1, 2, 3, 8, 9), channel, size) + read.take(read.number(30))
        return begun + bytes(min(size, 1 << 16) * read.number(1))
    if kind == 3:
        return _framed(read.choice(1, 2, 3, 8, 9), channel, read.take(read.number(60)))
    if kind == 4:
        method = read.choice(*_METHODS)
        return _framed(1, channel, pack(">HH", *method) + read.take(read.number(40)))
    if kind == 5:
        return bytes(Method(channel, read.choice(*_OTHERS)).marshal())
    return _message(read, channel, wire)


def _message(read: Reader, channel: int, wire: Wire) -> bytes:
    head = read.choice(
        spec.Basic.Deliver(wire.consumer_tag, read.number(3), bool(read.number(1)), "jsonrpc", "S.request.x"),
        spec.Basic.GetOk(1, False, "jsonrpc", "S.request.x", 0),
        spec.Basic.Return(312, "NO_ROUTE", "jsonrpc", "S.request.x"),
    )
    size = read.choice(0, 2, 4088, MAX_SIZE, MAX_SIZE + 1, 1 << 63)
    properties = BasicProperties(correlation_id=read.choice("1", "2", str(read.number(99))), message_id="x")
    data = bytes(Method(channel, head).marshal())
    header = bytes(Header(channel, size, properties).marshal())
    at = 19 + read.number(20)
    data += header if read.number(1) else header[:at] + read.take(1) + header[at + 1 :]
    parts = read.choice(0, 1, 2, 20)
    return data + _framed(3, channel, bytes(min(size, _FRAME_MAX - 8))) * int(parts)


def _framed(kind: int, channel: int, payload: bytes) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


_METHODS = [
    *((10, method) for method in (10, 20, 30, 41, 50, 51, 60, 61, 70)),
    *((20, method) for method in (11, 20, 21, 40, 41)),
    *((40, method) for method in (11, 21)),
    *((50, method) for method in (11, 21, 31, 41)),
    *((60, method) for method in (11, 21, 30, 31, 50, 60, 71, 72, 80, 111, 120)),
    (85, 11),
    (90, 11),
    (7, 7),
]
_OTHERS: list[Any] = [
    spec.Connection.Start(0, 9, {"capabilities": "none", "product": [1]}, "PLAIN AMQPLAIN", "en_US"),
    spec.Connection.Start(9, 9, {}, "", ""),
    spec.Connection.Secure("x" * 300),
    *(spec.Connection.Tune(most, size, beat) for most, size, beat in ((0, 0, 0), (3, 8, 1), (65535, 1 << 31, 65535))),
    spec.Connection.OpenOk(),
    *(spec.Connection.Close(code, "x" * 255, 60, 40) for code in (200, 320, 403, 501, 530, 541)),
    spec.Connection.CloseOk(),
    spec.Connection.Blocked("memory"),
    spec.Connection.Unblocked(),
    spec.Channel.OpenOk(),
    spec.Channel.Flow(False),
    *(spec.Channel.Close(code, "NOT_FOUND - no exchange 'jsonrpc' in vhost '/'", 60, 40) for code in (404, 403, 406)),
    spec.Channel.CloseOk(),
    spec.Queue.DeclareOk("q" * 255, (1 << 32) - 1, (1 << 32) - 1),
    spec.Basic.ConsumeOk("t"),
    spec.Basic.Cancel("t"),
    spec.Basic.CancelOk("t"),
    spec.Basic.GetEmpty(),
    *(spec.Basic.Ack(tag, multiple) for tag in (0, 1, (1 << 64) - 1) for multiple in (False, True)),
    spec.Basic.Nack(1, True, False),
]


# -- a hostile server -------------------------------------------------------------------------------------------------


class _Victim:
    """A client on an honest broker, to which all that a server may send is delivered before the reply."""

    def __init__(self) -> None:
        self.script = b""
        self._listening = Listening(self._serve)
        client = Client(self._listening.url, "S", timeout=TIMEOUT, max_size=MAX_SIZE, heartbeat=0, connect_timeout=60)
        self.client = client.start(60)

    def _serve(self, wire: Wire) -> None:
        while True:
            wire.answer()
            if len(wire.published) == 4 and wire.published[3]:
                published, wire.published = wire.published, []
                wire.left = MOST_SENT
                _reply(wire, Reader(self.script), *published)


def _reply(wire: Wire, read: Reader, _channel: int, asked: Any, properties: Any, _body: bytes) -> None:
    key, number = asked.routing_key.replace(".request.", ".response."), properties.correlation_id
    id = int(key.rsplit(".", 1)[1])
    genuine = b'{"jsonrpc": "2.0", "result": "genuine", "id": %d}' % id
    for _ in range(read.number(8)):
        times = read.choice(1, 1, 1, 100)
        body = read.choice(genuine.replace(b'"genuine"', read.take(8)), read.take(read.number(60)), genuine, b"x")
        body *= read.choice(1, 1, 1, MAX_SIZE // len(body or b"x") + 1)
        headers = read.choice(None, {"timeout-ms": read.number(999)}, {"x-death": [{"count": 1}]}, {"x": "A" * 5000})
        changed = BasicProperties(
            correlation_id=read.choice(number, number, None, "0", "9" * 255),
            headers=headers,
            user_id=read.choice(None, "u", "x"),
            content_type=read.choice(None, "application/json", "x" * 255),
        )
        exchange, other = read.choice("jsonrpc", "jsonrpc", "", "x"), read.choice(key, key, key + ".x", "", "x" * 255)
        for _ in range(times):
            if wire.left < 4 << 20:
                break
            _deliver(wire, read, exchange, other, changed, body)
    wire.deliver("jsonrpc", key, BasicProperties(correlation_id=number), genuine)


def _deliver(wire: Wire, read: Reader, exchange: str, key: str, properties: BasicProperties, body: bytes) -> None:
    bad = read.number(5)
    if bad > 1:
        wire.deliver(exchange, key, properties, body)
        return
    # Its properties do not add up, or there are more than are kept.
    wire.tags += 1
    channel = wire.consumer_channel
    data = bytes(Method(channel, spec.Basic.Deliver(wire.consumer_tag, wire.tags, False, exchange, key)).marshal())
    filler = read.take(read.number(20)) if bad == 0 else bytes((1 << 20) + 1)
    data += _framed(2, channel, pack(">HHQH", 60, 0, 2, read.number(65535)) + filler)
    wire.send(data + _framed(3, channel, b"{}"))


_victims: list[_Victim] = []


def server(data: bytes) -> None:
    """Whatever a server sends: a call ends with a result or a typed error, and the connection is kept."""
    if not _victims:
        _victims.append(_Victim())
    victim = _victims.pop()
    victim.script = data
    client = victim.client
    with watched(), _at_most(TIMEOUT, "a call"), suppress(JsonRpcAmqpError):
        client.call("m", [1])
    stats = client.stats()
    assert stats.get("connections_lost") == stats["pending"] == 0, f"the connection was lost: {stats}"
    _victims.append(victim)  # one that has failed is not used again
