"""
The ends of the cases: clients and servers of all kinds, and the methods that are called.

Each kind of server has a service of its own, so that a call says which kind it is for, and a loss says which kind has
lost it. Another kind is another entry of ``CLIENTS`` or ``SERVERS``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from typing import Any, NamedTuple, TypeAlias

from jsonrpc_amqp import Client, Server

from ..loop_client import Loop, LoopClient
from ..loop_server import LoopServer

AnyClient: TypeAlias = Client | LoopClient
AnyServer: TypeAlias = Server | LoopServer
Methods: TypeAlias = dict[str, Callable[..., Any]]

# The values that the bounds in docs/guarantees.md are given for.
DEADLINE = 5.0
HEARTBEAT = 2.0
# Of the names of methods that are ``async def``, where a server has others as well.
PREFIX = "async."
# Seconds between two looks of a coroutine that waits for an event of a thread.
_STEP = 0.01

CLIENTS: dict[str, type[Client] | type[LoopClient]] = {"Client": Client, "AsyncClient": LoopClient}


class Target(NamedTuple):
    """
    What is called.

    Attributes:
        kind: Of the server, a key of ``SERVERS``.
        service: The service's name.
        prefix: Of the names of methods, where one server has methods of both kinds.
    """

    kind: str
    service: str
    prefix: str = ""

    @property
    def queue(self) -> str:
        return f"{self.service}_req"


class Service:
    """
    The methods: ``double`` a number, ``note`` a number, ``nap`` for some seconds, or until ``wake`` is set.

    Attributes:
        methods: On threads.
        coroutines: The same methods as ``async def``.
        handled: The numbers that were noted.
        begun: Released by each nap that begins.
    """

    def __init__(self) -> None:
        self.wake = threading.Event()
        self.handled: set[int] = set()
        self.begun = threading.Semaphore(0)
        self.methods: Methods = {"double": self.double, "note": self.note, "nap": self.nap}
        self.coroutines: Methods = {
            "double": as_coroutine(self.double),
            "note": as_coroutine(self.note),
            "nap": self.nap_on_loop,
        }

    @staticmethod
    def double(number: int) -> int:
        return 2 * number

    def note(self, number: int) -> None:
        self.handled.add(number)

    def nap(self, seconds: float, value: Any = None) -> Any:
        self.begun.release()
        self.wake.wait(seconds)
        return value

    async def nap_on_loop(self, seconds: float, value: Any = None) -> Any:
        self.begun.release()
        await is_set(self.wake, seconds)
        return value

    def servers(self, url: str, service: str, **options: Any) -> Servers:
        """Return a server of each kind for these methods."""
        options = {"heartbeat": HEARTBEAT, **options}
        made = [SERVERS[target.kind](self, url, target.service, options) for target in targets(service)]
        return Servers(dict(zip(SERVERS, made, strict=True)))


def as_coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method as ``async def``, which lets other coroutines run before it does its work."""

    @wraps(function)
    async def method(*args: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args)

    return method


async def is_set(event: threading.Event, seconds: float) -> bool:
    """Wait for an event of a thread, as ``event.wait`` does."""
    give_up = time.monotonic() + seconds
    while not event.is_set() and time.monotonic() < give_up:
        await asyncio.sleep(min(_STEP, seconds))
    return event.is_set()


def _on_threads(service: Service, url: str, name: str, options: dict[str, Any]) -> Server:
    return Server(url, name, methods=service.methods, **options)


def _on_loop(service: Service, url: str, name: str, options: dict[str, Any]) -> Server:
    return Server(url, name, methods=service.coroutines, **options)


def _in_loop(service: Service, url: str, name: str, options: dict[str, Any]) -> LoopServer:
    return LoopServer(url, name, methods=service.coroutines, **options)


SERVERS: dict[str, Callable[[Service, str, str, dict[str, Any]], AnyServer]] = {
    "def": _on_threads,
    "async def": _on_loop,
    "AsyncServer": _in_loop,
}


def targets(service: str) -> list[Target]:
    """Return what the servers of a case serve, for each kind."""
    return [Target(kind, f"{service}-{kind.replace(' ', '-').lower()}") for kind in SERVERS]


def targets_of_one(service: str) -> list[Target]:
    """Return what a single server serves that has methods of both kinds."""
    return [Target("def", service), Target("async def", service, PREFIX)]


def queues(service: str) -> set[str]:
    """Return the names of the queues of the requests, which remain when the servers have stopped."""
    return {target.queue for target in targets(service)}


class Servers:
    """A server of each kind, which start and stop together."""

    def __init__(self, of: dict[str, AnyServer]) -> None:
        self.of = of

    def start(self) -> Servers:
        for server in self.of.values():
            server.start()
        return self

    def stop(self) -> None:
        for server in self.of.values():
            server.stop()

    def stats(self) -> Counter[str]:
        """Return the sums of the counters."""
        total: Counter[str] = Counter()
        for server in self.of.values():
            total.update(server.stats())
        return total

    def __enter__(self) -> Servers:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextmanager
def make_clients(url: str, service: str, **options: Any) -> Iterator[list[AnyClient]]:
    """Connect a client of each kind, with the deadline and heartbeat of the promised bounds."""
    clients = new_clients(url, service, **options)
    with ExitStack() as ends:
        for client in clients:
            ends.enter_context(client)
        yield clients


def new_clients(url: str, service: str, **options: Any) -> list[AnyClient]:
    """Return a client of each kind that does not connect yet; its own service is that of the first kind of server."""
    options = {"timeout": DEADLINE, "heartbeat": HEARTBEAT, **options}
    return [make(url, targets(service)[0].service, **options) for make in CLIENTS.values()]


def kind_of(client: AnyClient) -> str:
    """Return the kind of a client, a key of ``CLIENTS``."""
    return next(kind for kind, made in CLIENTS.items() if isinstance(client, made))


def nap(clients: Sequence[AnyClient], called: Sequence[Target], *params: Any, **options: Any) -> list[Future[Any]]:
    """Have each client call the ``nap`` of each target; return the futures."""
    return [
        client.submit(f"{target.prefix}nap", list(params), service=target.service, **options)
        for client in clients
        for target in called
    ]


def stats_of(clients: Sequence[AnyClient], counter: str) -> int:
    """Return the sum of a counter."""
    return sum(client.stats()[counter] for client in clients)


@cache
def start_loops() -> None:
    """Start the event loops of clients and of servers, which a process keeps once it has had them."""
    Loop.shared().do(lambda: None)
    here, methods = "memory://start-loops", {"double": as_coroutine(Service.double)}
    with Server(here, "loops", methods=methods), Client(here, "loops") as client:
        client.call("double", [1])
