"""
A TCP proxy that fails on request: it cuts, delays and drips what it forwards, or falls silent.

It stands for the network between a client and the broker, and does only what a network can do.
"""

from __future__ import annotations

import queue
import selectors
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from .broker import HOST, free_ports

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
READ_SIZE = 65_536
# Nothing is read from a side while so many bytes wait for the other: a sender has to notice a slow reader.
MOST_WAITING = 1024 * 1024
# Time for the peer to read a byte before the next is sent; without it most reads find several.
DRIP_PAUSE = 0.0001
# Closed with this, a socket sends a reset and drops what waits in it: linger on, for 0 s.
ABRUPTLY = struct.pack("ii", 1, 0)
# An order takes less than a millisecond on an idle machine.
PATIENCE = 10.0


class _Chunk(NamedTuple):
    """What one read brought, and when (monotonic seconds). Without data it is the end of the stream."""

    since: float
    data: memoryview


@dataclass(eq=False)
class _End:
    """One of the two sockets of a connection, and what waits to be written to it."""

    sock: socket.socket
    direction: str
    other: _End = field(init=False)
    waiting: deque[_Chunk] = field(default_factory=deque)
    size: int = 0
    readable: bool = True
    writable: bool = True
    silent: bool = False


class Proxy:
    """
    Forwards connections to its own port of 127.0.0.1, and fails them on request.

    Its methods may be called from any thread. When one returns, it is in effect, for living and for new connections.

    Args:
        port: Where to forward to.
        host: The machine of that port.

    Attributes:
        port: Where it listens, inside its ``with`` block.
        connections: How many it has accepted so far.
    """

    def __init__(self, port: int, host: str = HOST) -> None:
        self.port = 0
        self.connections = 0
        self._target = (host, port)
        self._ends: set[_End] = set()
        self._forwarded: Counter[str] = Counter()
        self._running = True
        self._delay = 0.0
        self._drip: float | None = None
        self._hole = False
        self._orders: queue.SimpleQueue[tuple[Callable[[], None], Future[None]]] = queue.SimpleQueue()

    def __enter__(self) -> Proxy:
        [self.port] = free_ports(1)
        self._listener = socket.create_server((HOST, self.port))
        self._listener.setblocking(False)
        self._bell, self._ear = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, READ, self._accept)
        self._selector.register(self._ear, READ, self._obey)
        self._thread = threading.Thread(target=self._run, name=f"proxy {self.port}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._order(self._stop)
        self._thread.join(PATIENCE)

    @property
    def url(self) -> str:
        """The URL to connect to a broker behind it."""
        return f"amqp://guest:guest@{HOST}:{self.port}/"

    @property
    def open(self) -> int:
        """How many connections there are now; a silent one counts until the proxy closes it."""
        return len(self._ends) // 2

    @property
    def bytes_up(self) -> int:
        """How many bytes it has written to the server so far."""
        return self._forwarded["up"]

    @property
    def bytes_down(self) -> int:
        """How many bytes it has written to clients so far."""
        return self._forwarded["down"]

    def cut(self) -> None:
        """End the present connections abruptly: both sides get a reset, and what is under way is lost."""
        self._order(lambda: self._reset(self._ends))

    def delay(self, seconds: float) -> None:
        """Forward everything, in both directions and in order, so much later than it came; 0 lets go what waits."""
        self._order(lambda: setattr(self, "_delay", seconds))

    def drip(self, pause: float = DRIP_PAUSE) -> None:
        """Forward a byte at a time, in both directions, with a pause of so many seconds after each."""
        self._order(lambda: setattr(self, "_drip", pause))

    def half_open(self) -> None:
        """
        Forget the present connections and close none, as a firewall does that restarts; new ones are served.

        Nothing is forwarded on them any more, and neither side learns what becomes of the other.
        """
        self._order(self._fall_silent)

    def black_hole(self) -> None:
        """As ``half_open``, and new connections are accepted into the same silence."""
        self._order(lambda: self._fall_silent(hole=True))

    def heal(self) -> None:
        """Go back to plain forwarding. Connections that fell silent are reset: what they lost would show."""
        self._order(self._heal)

    def _order(self, order: Callable[[], None]) -> None:
        done: Future[None] = Future()
        self._orders.put((order, done))
        self._bell.send(b"!")
        done.result(PATIENCE)

    # -- on the proxy's own thread ------------------------------------------------------------------

    def _run(self) -> None:
        while self._running:
            for key, events in self._selector.select(self._write_all()):
                if events & READ:
                    key.data()
            if self._drip:
                time.sleep(self._drip)  # a selector counts in whole milliseconds
        self._reset(self._ends)
        for each in (self._listener, self._bell, self._ear, self._selector):
            each.close()

    def _obey(self) -> None:
        self._ear.recv(1)
        order, done = self._orders.get()
        order()
        done.set_result(None)

    def _stop(self) -> None:
        self._running = False

    def _fall_silent(self, hole: bool = False) -> None:
        self._hole = hole
        for end in self._ends:
            end.silent = True
            end.waiting.clear()
            self._want(end, 0)

    def _heal(self) -> None:
        self._delay, self._drip, self._hole = 0.0, None, False
        self._reset(end for end in self._ends if end.silent)

    def _accept(self) -> None:
        client, server = _End(self._listener.accept()[0], "down"), _End(socket.socket(), "up")
        client.other, server.other = server, client
        for end in (client, server):
            end.silent = self._hole
            end.sock.setblocking(False)
            end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends.add(end)
        server.sock.connect_ex(self._target)  # a refusal shows when it is read or written
        self.connections += 1

    def _read(self, end: _End) -> None:
        if end not in self._ends or end.silent:  # since the selector found it ready
            return
        try:
            data = end.sock.recv(READ_SIZE)
        except OSError:
            self._reset([end])
            return
        end.readable = bool(data)
        end.other.waiting.append(_Chunk(time.monotonic(), memoryview(data)))
        end.other.size += len(data)

    def _write_all(self) -> float | None:
        """Write what is due and tell the selector what to wait for; return the seconds until more is due."""
        latest = time.monotonic() - self._delay
        for end in [end for end in self._ends if not end.silent]:
            try:
                self._write(end, latest)
            except OSError:
                self._reset([end])
        for end in [end for end in self._ends if not end.silent]:
            blocked = bool(end.waiting) and end.waiting[0].since <= latest
            takes = end.readable and end.other.size < MOST_WAITING
            self._want(end, READ * takes | WRITE * blocked)
        later = [end.waiting[0].since for end in self._ends if end.waiting and end.waiting[0].since > latest]
        return min(later) - latest if later else None

    def _write(self, end: _End, latest: float) -> None:
        while end.waiting and end.waiting[0].since <= latest:
            since, data = end.waiting.popleft()
            if not data:
                self._finish(end)
                return
            try:
                sent = end.sock.send(data if self._drip is None else data[:1])
            except BlockingIOError:
                sent = 0
            end.size -= sent
            self._forwarded[end.direction] += sent
            if sent < len(data):
                end.waiting.appendleft(_Chunk(since, data[sent:]))
            if sent < len(data) or self._drip is not None:
                return

    def _finish(self, end: _End) -> None:
        """Pass on the end of one direction; after that of both, close."""
        end.sock.shutdown(socket.SHUT_WR)
        end.writable = False
        if not end.other.writable:
            self._close(end)

    def _reset(self, ends: Iterable[_End]) -> None:
        for end in list(ends):
            self._close(end, abruptly=True)

    def _close(self, end: _End, *, abruptly: bool = False) -> None:
        for each in {end, end.other} & self._ends:
            self._want(each, 0)
            if abruptly:
                each.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABRUPTLY)
            each.sock.close()
            self._ends.remove(each)

    def _want(self, end: _End, events: int) -> None:
        """Tell the selector what to report about a socket; it does not take 0."""
        registered = end.sock in self._selector.get_map()
        if not events and registered:
            self._selector.unregister(end.sock)
        elif events and not registered:
            self._selector.register(end.sock, events, partial(self._read, end))
        elif events:
            self._selector.modify(end.sock, events, partial(self._read, end))
