"""
Connects to the address of a host that answers first (RFC 8305, "Happy Eyeballs").

A host name may have several addresses, and the first may lead to a machine that is down, or to a firewall that answers
nothing. So the next address is tried while the one before is still awaited. What is remembered of one attempt decides
the order in the next: first what worked, last what failed.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from ..runtime.forks import close_when_forked
from .deadline import Deadline

# Seconds until the next address is tried (RFC 8305, section 5), unless there are so many that they would not all get a
# turn.
DELAY = 0.25
# Seconds between two looks at whether the attempt was cancelled.
_LOOK = 0.25
# Addresses that an error names.
_MOST_NAMED = 4


class Address(NamedTuple):
    """One address of a host, as ``socket.socket`` and its ``connect`` take it."""

    family: int
    kind: int
    protocol: int
    where: Any

    def __str__(self) -> str:
        return str(self.where[0])


class AddressMemory:
    """
    What became of the addresses of each host, for one client or server.

    One attempt at a time uses it; one that was given up may add to it late, which does no harm.
    """

    def __init__(self) -> None:
        self._worked: dict[tuple[str, int], Address] = {}
        self._failed: dict[tuple[str, int], list[Address]] = {}

    def order(self, host: str, port: int, found: Iterable[Address]) -> list[Address]:
        """Return the addresses in the order in which to try them: families alternate (RFC 8305, section 4)."""
        unique = list(dict.fromkeys(found))
        # The oldest failure first; those that the name does not stand for any more are forgotten.
        failed = [each for each in self._failed.get((host, port), []) if each in unique]
        self._failed[host, port] = failed
        fresh = _interleave([each for each in unique if each not in failed])
        worked = self._worked.get((host, port))
        return sorted(fresh, key=lambda each: each != worked) + failed

    def note_success(self, host: str, port: int, address: Address) -> None:
        """Note that a broker was connected to, and set up, at this address."""
        self._worked[host, port] = address
        self._failed.pop((host, port), None)

    def note_failure(self, host: str, port: int, address: Address) -> None:
        """Note that there was no broker at this address, or none that does its work."""
        failed = self._failed.setdefault((host, port), [])
        with suppress(ValueError):
            failed.remove(address)
        failed.append(address)


def _interleave(addresses: Sequence[Address]) -> list[Address]:
    first = [each for each in addresses if each.family == addresses[0].family]
    others = [each for each in addresses if each.family != addresses[0].family]
    return [each for each in chain(*zip_longest(first, others)) if each is not None]


def connect(host: str, port: int, deadline: Deadline, memory: AddressMemory) -> tuple[socket.socket, Address]:
    """
    Connect to one of the addresses of a host.

    Returns:
        The socket, which blocks, and its address.

    Raises:
        OSError: There is no such host; or no address took the connection, or not by the deadline.
    """
    deadline.step = "the lookup of its name"
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if host == "localhost":
        # A port that is forwarded into a container often takes connections to ::1, too, and leads nowhere.
        found.sort(key=lambda each: each[0] != socket.AF_INET)
    addresses = memory.order(
        host, port, (Address(family, kind, protocol, where) for family, kind, protocol, _name, where in found)
    )
    deadline.step = f"the connection to {_named(addresses)}"
    race = _Race(addresses, deadline)
    try:
        return race.run()
    finally:
        for each in race.failed:
            memory.note_failure(host, port, each)


class _Race:
    """
    Connects to several addresses, and keeps the first connection.

    Attributes:
        failed: What came of each address that failed.
    """

    def __init__(self, addresses: Sequence[Address], deadline: Deadline) -> None:
        self._waiting = deque(addresses)
        self._deadline = deadline
        self._delay = min(DELAY, deadline.left() / (len(addresses) + 1))
        self._next_start = 0.0
        self._selector = selectors.DefaultSelector()
        self.failed: dict[Address, OSError] = {}
        close_when_forked(self)

    def close_in_child(self) -> None:
        """Close this process's copies; to unregister them would take them out of the parent's selector, too."""
        for key in list((self._selector.get_map() or {}).values()):
            key.fileobj.close()  # type: ignore[union-attr]  # only sockets are registered
        self._selector.close()

    def run(self) -> tuple[socket.socket, Address]:
        try:
            while self._waiting or self._selector.get_map():
                if won := self._step():
                    return won
            raise self._error()
        finally:
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]  # only sockets are registered
            self._selector.close()

    def _step(self) -> tuple[socket.socket, Address] | None:
        """Start an address that is due, or wait for what happens next; return the first connection."""
        left, now = self._deadline.left(), time.monotonic()
        if self._waiting and (now >= self._next_start or not self._selector.get_map()):
            self._start(self._waiting.popleft())
            self._next_start = now + self._delay
            return None
        pause = self._next_start - now if self._waiting else _LOOK
        for key, _events in self._selector.select(min(left, pause, _LOOK)):
            sock, address = key.fileobj, key.data
            assert isinstance(sock, socket.socket)
            self._selector.unregister(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0:
                sock.setblocking(True)
                return sock, address
            self._fail(sock, address, code)
        return None

    def _start(self, address: Address) -> None:
        try:
            sock = socket.socket(address.family, address.kind, address.protocol)
        except OSError as exc:  # a system without IPv6, for one
            self.failed[address] = exc
            return
        try:
            sock.setblocking(False)
            # Ready to write: it is connected, or has failed.
            self._selector.register(sock, selectors.EVENT_WRITE, address)
            with suppress(BlockingIOError):
                sock.connect(address.where)
        except OSError as exc:
            self._selector.unregister(sock)
            self._fail(sock, address, exc.errno or 0)

    def _fail(self, sock: socket.socket, address: Address, code: int) -> None:
        sock.close()
        self.failed[address] = OSError(code, os.strerror(code))
        self._next_start = 0.0  # the next at once

    def _error(self) -> OSError:
        if len(self.failed) == 1:
            [error] = self.failed.values()
            return error
        return OSError("; ".join(f"{address}: {exc.strerror}" for address, exc in self.failed.items()))


def _named(addresses: Sequence[Address]) -> str:
    more = len(addresses) - _MOST_NAMED
    return ", ".join(map(str, addresses[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
