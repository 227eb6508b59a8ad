"""A broker to measure on, and how to take one measurement."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import unquote, urlsplit

import amqp

from .cases import CASES, WORK, Case
from .processes import Program, cpu_seconds, machine_cpu_seconds

Order = Callable[[int], tuple[object, ...]]
"""Returns the command, as words, for a client to make this many calls."""

Numbers = dict[str, float]
Taken = Iterator[tuple[dict[str, int], Numbers]]

# An upper limit for the duration of a run, and the calls before it.
_MOST_CALLS = 400_000
_WARM_UP = 64


def calls_in_flight(in_flight: int) -> Order:
    """Return the order to make calls, ``in_flight`` at a time."""
    return lambda calls: ("run", calls, in_flight)


@dataclass
class Lab:
    """
    The broker and the options of a run.

    Attributes:
        url: The broker.
        broker_pid: Its process, for its CPU time; None if it runs on another machine.
        seconds: How long one measurement should take.
        only: Cases to measure; empty: those that are measured by default.
    """

    url: str
    broker_pid: int | None
    seconds: float
    only: Sequence[str] = ()
    _names: int = 0

    def wants(self, *names: str) -> list[Case]:
        """Return those of these cases that the run should measure."""
        return [CASES[name] for name in names if name in self.only or (not self.only and CASES[name].default)]

    def new_name(self) -> str:
        """Return an unused name for a service or a queue."""
        self._names += 1
        return f"bench-{os.getpid()}-{self._names}"

    @contextmanager
    def running(self, case: Case, name: str, **env: object) -> Iterator[Start]:
        """Yield what starts servers and clients of a case; stop them after the block, and delete their queue."""
        logs = WORK / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            if (queue := case.queue(name)) is not None:
                stack.callback(self.delete_queue, queue)
            log = stack.enter_context((logs / f"{case.name}.log").open("ab"))
            yield Start(self, case, name, log, env, stack)

    def broker_cpu(self) -> float:
        """Return the CPU seconds of the broker so far."""
        return 0.0 if self.broker_pid is None else cpu_seconds(self.broker_pid)

    # -- the broker -------------------------------------------------------------------------------------

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """Yield a channel of py-amqp."""
        url = urlsplit(self.url)
        connection = amqp.Connection(
            f"{url.hostname}:{url.port or 5672}",
            userid=unquote(url.username or "guest"),
            password=unquote(url.password or "guest"),
            virtual_host=unquote(url.path[1:]) or "/",
        )
        with connection:
            yield connection.channel()

    def delete_queue(self, name: str) -> None:
        """Delete a queue, if it exists."""
        with suppress(amqp.NotFound), self.channel() as channel:
            channel.queue_delete(name)


class Experiment(NamedTuple):
    """
    One case of a suite.

    Attributes:
        case: Its name in the results.
        take: Measures, and yields parameters and values.
    """

    case: str
    take: Callable[[Lab], Taken]


class Start:
    """Starts programs of one case, for one service or queue. Made by ``Lab.running``."""

    def __init__(
        self, lab: Lab, case: Case, name: str, log: IO[bytes], env: Mapping[str, object], stack: ExitStack
    ) -> None:
        self.lab = lab
        self.name = name
        self._command = case.command()
        self._env = {
            **case.env,
            **{key: str(value) for key, value in env.items()},
            "BENCH_AMQP_URL": _with_vhost(lab.url),
        }
        self._log = log
        self._stack = stack

    def servers(self, count: int = 1) -> list[Program]:
        """Start servers, and wait until they consume."""
        return self._start("server", count)

    def clients(self, count: int = 1) -> list[Program]:
        """Start clients, and wait until they are connected."""
        return self._start("client", count)

    def client(self) -> Program:
        """Start one client."""
        return self.clients()[0]

    def _start(self, role: str, count: int) -> list[Program]:
        self._log.seek(0, os.SEEK_END)
        made = [Program([*self._command, role, self.name], self._env, self._log) for _ in range(count)]
        for program in made:
            self._stack.callback(program.stop)
        for program in made:
            program.wait_until_ready()
        return made


def _with_vhost(url: str) -> str:
    # Libraries differ in what a URL without a virtual host means.
    parts = urlsplit(url)
    return url if parts.path.strip("/") else parts._replace(path="/%2F").geturl()


class Meter:
    """Measures CPU time from its construction to ``read``."""

    def __init__(self, lab: Lab, clients: Sequence[Program], servers: Sequence[Program]) -> None:
        self._lab = lab
        self._clients = clients
        self._servers = servers
        self._began = time.perf_counter()
        self._machine = machine_cpu_seconds()
        self._before = self._now()

    def read(self, calls: int) -> dict[str, float]:
        """
        Return the CPU microseconds per call.

        Also ``cores``, the number that these programs kept busy, and ``other_cores``, the number that others did.

        Args:
            calls: How many were made since the construction.
        """
        used = {who: after - self._before[who] for who, after in self._now().items()}
        elapsed = time.perf_counter() - self._began
        ours = sum(used.values())
        return {
            **{f"{who}_cpu_us": seconds * 1e6 / calls for who, seconds in used.items()},
            "cores": ours / elapsed,
            "other_cores": max(0.0, machine_cpu_seconds() - self._machine - ours) / elapsed,
        }

    def _now(self) -> dict[str, float]:
        used = {
            "client": sum(program.cpu for program in self._clients),
            "server": sum(program.cpu for program in self._servers),
        }
        return used if self._lab.broker_pid is None else {**used, "broker": self._lab.broker_cpu()}


def measure(
    lab: Lab, clients: Sequence[Program], servers: Sequence[Program], order: Order, *, least: int = 1, warm: int = 0
) -> dict[str, float]:
    """
    Find out how many calls take ``lab.seconds``, then measure this many.

    Args:
        lab: Where.
        clients: All of them get the order at the same time.
        servers: Their CPU time is counted.
        order: What the clients do.
        least: The least number of calls, for each client.
        warm: Calls to begin with; 0: a default.

    Returns:
        The figures of ``lines.summary`` with ``rate`` (calls/s of all clients) and the CPU time of each call.

    Raises:
        Failed: A program ended, reported an error, or did not respond.
    """
    calls = max(warm or _WARM_UP, 2 * least)
    figures = _all(clients, order(calls), 60 + 2 * lab.seconds)
    for _ in range(2):
        wanted = _enough(calls, figures, lab.seconds, least)
        if wanted <= 3 * calls:
            break
        # The first calls are slow, so approach the number in steps.
        calls = max(2 * least, wanted // 5)
        figures = _all(clients, order(calls), 60 + 2 * lab.seconds)
    calls = _enough(calls, figures, lab.seconds, least)
    meter = Meter(lab, clients, servers)
    figures = _all(clients, order(calls), 120 + 4 * lab.seconds)
    return {**figures, **meter.read(int(figures["n"])), "rate": figures["n"] / figures["elapsed"]}


def _enough(calls: int, figures: Mapping[str, float], seconds: float, least: int) -> int:
    # ``calls`` is what was ordered, which for batches is messages.
    return int(min(_MOST_CALLS, max(2 * least, 20, seconds * calls / figures["elapsed"])))


def _all(clients: Sequence[Program], words: tuple[object, ...], timeout: float) -> dict[str, float]:
    for client in clients:
        client.send(*words)
    figures = [client.figures(timeout) for client in clients]
    together = {"n": sum(each["n"] for each in figures), "bad": sum(each["bad"] for each in figures)}
    # Of several clients the slowest counts.
    rest = {name: max(each[name] for each in figures) for name in figures[0] if name not in together}
    return {**together, **rest}


def note(text: str) -> None:
    """Print progress to standard error."""
    print(text, file=sys.stderr, flush=True)


def listener(url: str) -> int | None:
    """Return the process that listens at a URL; None if it is on another machine, or of another user."""
    parts, sockets = urlsplit(url), set()
    if parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        return None
    port = parts.port or 5672
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(os.readlink(each) in sockets for each in (process / "fd").iterdir()):
                return int(process.name)
    return None
