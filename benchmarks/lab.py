"""A broker to measure on, and how one measurement is made."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import amqp

from .cases import CASES, WORK, Case
from .processes import Program, cpu_seconds, machine_cpu_seconds

Order = Callable[[int], tuple[object, ...]]
"""Gives the words that tell a client to make so many calls."""

# So that no run takes for ever, nor is shorter than the warm-up.
_MOST_CALLS = 400_000
_WARM_UP = 64


def calls_in_flight(in_flight: int) -> Order:
    """Have a client make calls, so many at a time."""
    return lambda calls: ("run", calls, in_flight)


@dataclass
class Lab:
    """
    Where a round is measured.

    Attributes:
        url: The broker.
        broker_pid: Its process, for its CPU time; None: it is elsewhere.
        seconds: How long one measurement shall take.
        only: Cases to measure; empty: those that are measured by default.
    """

    url: str
    broker_pid: int | None
    seconds: float
    only: Sequence[str] = ()
    _names: int = 0

    def wants(self, *names: str) -> list[Case]:
        """Give those of these cases that are to be measured."""
        return [CASES[name] for name in names if name in self.only or (not self.only and CASES[name].default)]

    def new_name(self) -> str:
        """Give a name for a service or queue that nobody has yet."""
        self._names += 1
        return f"bench-{os.getpid()}-{self._names}"

    @contextmanager
    def running(self, case: Case, name: str, **env: object) -> Iterator[Start]:
        """Start servers and clients of a case in here; they end with the block, and what they left is deleted."""
        logs = WORK / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            if (queue := case.queue(name)) is not None:
                stack.callback(self.delete_queue, queue)
            log = stack.enter_context((logs / f"{case.name}.log").open("ab"))
            yield Start(self, case, name, log, env, stack)

    def broker_cpu(self) -> float:
        """Give the CPU seconds of the broker so far."""
        return 0.0 if self.broker_pid is None else cpu_seconds(self.broker_pid)

    # -- the broker -------------------------------------------------------------------------------------

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """Give a channel of py-amqp."""
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
        """Delete a queue, if it is there."""
        with suppress(amqp.NotFound), self.channel() as channel:
            channel.queue_delete(name)


class Start:
    """Starts programs of one case, on one name. Made by ``Lab.running``."""

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
        """Start servers; they consume when this returns."""
        return self._start("server", count)

    def clients(self, count: int = 1) -> list[Program]:
        """Start clients; they are connected when this returns."""
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
    # What an URL without one means, libraries do not agree on.
    parts = urlsplit(url)
    return url if parts.path.strip("/") else parts._replace(path="/%2F").geturl()


class Meter:
    """CPU time between its making and ``read``."""

    def __init__(self, lab: Lab, clients: Sequence[Program], servers: Sequence[Program]) -> None:
        self._lab = lab
        self._clients = clients
        self._servers = servers
        self._began = time.perf_counter()
        self._machine = machine_cpu_seconds()
        self._before = self._now()

    def read(self, calls: int) -> dict[str, float]:
        """
        Give the CPU microseconds for each of so many calls.

        Also ``cores``, how many these programs kept busy, and ``other_cores``, how many something else did.
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
    Find out how many calls take ``lab.seconds``, then make so many and count.

    Args:
        lab: Where.
        clients: All of them are told the same at the same time.
        servers: Whose CPU time is counted.
        order: What the clients are told.
        least: Not fewer calls, for each client.
        warm: Calls to begin with; 0: some.

    Returns:
        The figures of ``lines.summary`` with ``rate`` (calls/s of all clients) and the CPU time of each call.

    Raises:
        Failed: A program did not do as told.
    """
    calls = max(warm or _WARM_UP, 2 * least)
    figures = _all(clients, order(calls), 60 + 2 * lab.seconds)
    for _ in range(2):
        wanted = _enough(calls, figures, lab.seconds, least)
        if wanted <= 3 * calls:
            break
        # The first calls of all are slow: what they say is believed step by step.
        calls = max(2 * least, wanted // 5)
        figures = _all(clients, order(calls), 60 + 2 * lab.seconds)
    calls = _enough(calls, figures, lab.seconds, least)
    meter = Meter(lab, clients, servers)
    figures = _all(clients, order(calls), 120 + 4 * lab.seconds)
    return {**figures, **meter.read(int(figures["n"])), "rate": figures["n"] / figures["elapsed"]}


def _enough(calls: int, figures: Mapping[str, float], seconds: float, least: int) -> int:
    # By what was asked for, which for batches is messages.
    return int(min(_MOST_CALLS, max(2 * least, 20, seconds * calls / figures["elapsed"])))


def _all(clients: Sequence[Program], words: tuple[object, ...], timeout: float) -> dict[str, float]:
    for client in clients:
        client.tell(*words)
    answers = [client.figures(timeout) for client in clients]
    together = {"n": sum(each["n"] for each in answers), "bad": sum(each["bad"] for each in answers)}
    # Of several clients the slowest counts.
    rest = {name: max(each[name] for each in answers) for name in answers[0] if name not in together}
    return {**together, **rest}


def note(text: str) -> None:
    """Tell who watches."""
    print(text, file=sys.stderr, flush=True)


def listener(url: str) -> int | None:
    """Give the process that listens where a URL points; None when it is not on this machine, or not ours to see."""
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
