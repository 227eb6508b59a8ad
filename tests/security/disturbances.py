"""
Attacks on the calls of others: the victim calls all the time, and no call of it may fail, or run its method twice.

Eve sends what an ordinary client may send, so that the server cannot, or must not, deliver its replies to her.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from struct import pack
from typing import TYPE_CHECKING, Any

import pika
from pika.exceptions import ChannelClosedByBroker

from ..tools import wait_for
from .node import EVE, EXCHANGE, SERVICE

if TYPE_CHECKING:
    from .attacks import Eve, Scene

UNHARMED = "harms only her own calls"
# Seconds. A server that reconnects over and over again takes long.
LONG = 60.0
CALLERS = 4
# More than a server remembers of what it has published, in bytes.
LARGE = 5_000_000
# 2,000 of these took seconds of CPU when each caused those behind it to be sent again.
MANY = 2000
LAST = "eve"


class Calls:
    """
    What the victim calls.

    Attributes:
        failures: The errors of its calls.
        done: How many have succeeded.
    """

    def __init__(self, scene: Scene) -> None:
        self.failures: list[Exception] = []
        self.done = 0
        self._scene = scene
        self._stopped = threading.Event()
        self._numbers = count()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Call from some threads during a ``with`` block."""
        threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            self.go_on()
            yield
            self.go_on()
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()

    def go_on(self) -> None:
        """Wait for further calls."""
        before = self.done
        wait_for(lambda: self.done >= before + 20 or self.failures, LONG)

    def _call(self) -> None:
        while not self._stopped.is_set():
            try:
                self._scene.victim.call("note", [f"victim {next(self._numbers)}"])
                self.done += 1
            except Exception as exc:
                self.failures.append(exc)


def disturb(scene: Scene, attack: Callable[[Eve], None], *, succeeds: str, refused: str) -> str:
    """Let Eve attack while the victim calls. Return how it ends."""
    calls = Calls(scene)
    with calls.running(), scene.eve() as eve:
        try:
            attack(eve)
        except ChannelClosedByBroker as exc:
            if exc.reply_code != 403:
                raise
            return refused
        # With checks, a server that cannot verify who sent them refuses all.
        wait_for(lambda: LAST in scene.notes or scene.server.stats()["refused"] >= eve.sent, LONG)
    runs = [note for note in scene.notes if note != LAST]
    is_harmed = calls.failures or len(runs) > len(set(runs)) or scene.server.stats()["connections"] > 1
    return succeeds if is_harmed else UNHARMED


def send(eve: Eve, body: bytes, *, queue: bool = False, **properties: Any) -> None:
    """Send a request as an ordinary client does; ``queue``: to the queue of the service, by its name."""
    exchange, key = ("", f"{SERVICE}_req") if queue else (EXCHANGE, eve.own_key)
    eve.sent += 1
    channel = eve.channel if queue else eve.plain  # the first one raises where she may not
    channel.basic_publish(exchange, key, body, pika.BasicProperties(user_id=EVE, **properties))


def request(method: str, *params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode()


def finish(eve: Eve, *, queue: bool = False) -> None:
    """Send a last request, so that the end of the attack is noticed."""
    send(eve, request("end", LAST), queue=queue, reply_to="nobody")


def invalid(size: int) -> bytes:
    """Return an invalid call with a large id, which its error repeats."""
    return json.dumps({"jsonrpc": "1.0", "method": "echo", "id": "x" * size}).encode()


def refused_and_large(**refused: Any) -> Callable[[Eve], None]:
    """Have a reply refused, and another one push it out of what the server remembers."""

    def attack(eve: Eve) -> None:
        for _ in range(3):
            for _ in range(5):
                send(eve, request("echo", "x"), correlation_id="1", **refused)
            send(eve, invalid(LARGE), correlation_id="2")
            send(eve, invalid(LARGE), correlation_id="2", reply_to="nobody")
        finish(eve)

    return attack


def many_refused(**refused: Any) -> Callable[[Eve], None]:
    def attack(eve: Eve) -> None:
        for _ in range(MANY):
            send(eve, request("echo", "x"), correlation_id="1", **refused)
        finish(eve)

    return attack


def made_up(node: bytes, number: int = 700, serial: int = 0, *, tag: int = 118, key: str = "k") -> str:
    """Return a name of direct reply-to."""
    length = pack(">H" if tag in (100, 118) else ">B", len(node))
    term = b"\x83X" + bytes([tag]) + length + node + pack(">III", number, serial, 1_700_000_000)
    return f"amq.rabbitmq.reply-to.{base64.b64encode(term).decode()}.{key}"


MADE_UP = (
    "amq.rabbitmq.reply-to.g1h2AAAAAAAAAAAAAAAAAAA=.k",
    made_up(b"reply@1234"),
    made_up(b"reply@none"),
    made_up(b"rabbit@localhost", tag=100),
    made_up(b"rabbit", tag=119),
)


def made_up_names(*, queue: bool = False, real: Callable[[Scene], str] | None = None) -> Callable[[Eve], None]:
    """Name direct reply-tos that the broker has not made, and with which it ends a connection."""

    def attack(eve: Eve) -> None:
        names = [*MADE_UP, *(altered(real(eve.scene)) if real else ())]
        for _ in range(3):
            for name in names:
                send(eve, request("echo", "x"), queue=queue, correlation_id="1", reply_to=name)
        finish(eve, queue=queue)

    return attack


def altered(name: str) -> list[str]:
    """Return a genuine name with other numbers."""
    term = base64.b64decode(name.removeprefix("amq.rabbitmq.reply-to.").partition(".")[0])
    end = 5 + term[4]
    node = term[5:end]
    return [made_up(node + b"0"), made_up(node, 1 << 28), made_up(node, 700, 1 << 13), made_up(node, tag=100)]
