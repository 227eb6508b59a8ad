"""
Our server or client under load, steered over the line protocol of ``lines.py``.

    python benchmarks/peer.py server NAME
    python benchmarks/peer.py client NAME

A client knows, besides "run CALLS IN_FLIGHT":

    echo CALLS IN_FLIGHT BYTES      a string of so many bytes there and back
    batch MESSAGES IN_FLIGHT SIZE   batches of SIZE calls, so many messages at a time
    notify CALLS IN_FLIGHT          notifications, each confirmed by the broker
    flood CALLS                     make so many calls, and do not wait
    wait CALLS                      wait until so many of these are answered
    park CALLS                      make calls to the service NAME-parked, which have no end; what they take in memory

The environment sets, for both, BENCH_AMQP_URL and BENCH_SERVICES (NAME, NAME-1 ...: a server for each, called in turn);
for a server BENCH_CONCURRENCY, BENCH_PREFETCH, BENCH_SLEEP_MS and BENCH_BURN_MS (what ``add`` waits, or computes); for
a client BENCH_REPLY (topic, direct, queue) and BENCH_ROUTE (topic, queue).
"""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

# As a program it has only its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.lines import URL, Numbers, answer_lines, in_threads, now, one_at_a_time, role, say, summary
from jsonrpc_amqp import Client, Server

_FOREVER = 3600.0


def _number(name: str, default: float) -> float:
    return float(os.environ.get(name) or default)


def services(name: str) -> list[str]:
    """Give the names of the services: NAME, NAME-1, ..."""
    return [name, *(f"{name}-{i}" for i in range(1, int(_number("BENCH_SERVICES", 1))))]


# -- the server -----------------------------------------------------------------------------------------------


def burn(seconds: float) -> None:
    """Take so much CPU time of this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def server(name: str) -> Server:
    """Make a server of ``add`` and ``echo``."""
    prefetch = os.environ.get("BENCH_PREFETCH")
    made = Server(
        URL,
        name,
        concurrency=int(_number("BENCH_CONCURRENCY", 8)),
        prefetch=int(prefetch) if prefetch else None,
    )
    sleeping, burning = _number("BENCH_SLEEP_MS", 0) / 1000, _number("BENCH_BURN_MS", 0) / 1000

    def add(a: int, b: int) -> int:
        return a + b

    def add_after_sleep(a: int, b: int) -> int:
        time.sleep(sleeping)
        return a + b

    def add_after_work(a: int, b: int) -> int:
        burn(burning)
        return a + b

    def echo(value: str) -> str:
        return value

    made.method("add")(add_after_sleep if sleeping else add_after_work if burning else add)
    made.method("echo")(echo)
    return made


def serve(name: str) -> None:
    """Serve until SIGTERM."""
    wanted = {signal.SIGTERM, signal.SIGINT}
    # Before there are other threads, which would get it.
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    with ExitStack() as running:
        for each in services(name):
            running.enter_context(server(each))
        say("READY")
        signal.sigwait(wanted)


# -- the client -----------------------------------------------------------------------------------------------


def keep_in_flight(
    send: Callable[[int], Future[Any]], due: Callable[[int], Any], calls: int, in_flight: int
) -> Numbers:
    """
    Keep so many futures under way: the end of each sends the next, as in a loop of a coroutine.

    Args:
        send: Sends the i-th and gives its future.
        due: Its result.
        calls: How many to send.
        in_flight: How many at a time.
    """
    times: list[int] = []
    bad = [0]
    todo = iter(range(calls))
    over = threading.Event()

    def send_next() -> None:
        for i in todo:
            start = now()
            send(i).add_done_callback(partial(back, i, start))
            return

    def back(i: int, start: int, future: Future[Any]) -> None:
        times.append(now() - start)
        try:
            bad[0] += future.result() != due(i)
        except Exception as exc:
            bad[0] += 1
            print(f"call {i}: {exc!r}", file=sys.stderr)
        send_next()
        if len(times) == calls:
            over.set()

    began = now()
    for _ in range(in_flight):
        send_next()
    over.wait()
    return summary(times, now() - began, bad[0])


class Load:
    """
    What a client can be told to do.

    Args:
        client: The client.
        name: The service.
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        names = services(name)
        self._turns = itertools.cycle(names) if len(names) > 1 else None
        self._flood: list[Future[Any]] = []
        self._parked: list[Future[Any]] = []

    def run(self, calls: int, in_flight: int) -> Numbers:
        if in_flight == 1:
            return one_at_a_time(self._call, calls)
        return keep_in_flight(self._submit, _sum, calls, in_flight)

    def echo(self, calls: int, in_flight: int, size: int) -> Numbers:
        text = "x" * size
        return keep_in_flight(lambda _i: self._client.submit("echo", [text]), lambda _i: text, calls, in_flight)

    def batch(self, messages: int, in_flight: int, size: int) -> Numbers:
        def one_batch(first: int, _one: int) -> int:
            with self._client.batch() as batch:
                futures = [batch.call("add", [i, 1]) for i in range(size)]
            good = all(future.result() == i + 1 for i, future in enumerate(futures))
            return first + 1 if good else -1

        figures = in_threads([one_batch] * in_flight, messages)
        return {**figures, "n": messages * size}

    def notify(self, calls: int, in_flight: int) -> Numbers:
        # None is what the future of one holds that the broker has confirmed.
        return keep_in_flight(lambda i: self._client.submit_notify("add", [i, 1]), _none, calls, in_flight)

    def flood(self, calls: int) -> Numbers:
        began = now()
        self._flood = [self._client.submit("add", [i, 1], timeout=_FOREVER) for i in range(calls)]
        return {"n": calls, "elapsed": (now() - began) / 1e9}

    def wait(self, calls: int) -> Numbers:
        # In order, nearly: answers overtake each other by no more than a prefetch.
        bad = sum(future.result() != i + 1 for i, future in enumerate(self._flood[:calls]))
        return {"bad": bad, "done": sum(future.done() for future in self._flood)}

    def park(self, calls: int) -> Numbers:
        before = resident_bytes()
        service = f"{self._name}-parked"
        self._parked += [self._client.submit("add", [i, 1], service=service, timeout=_FOREVER) for i in range(calls)]
        # Until what was to be written is written, so that it does not count.
        self._client.call("add", [1, 1])
        return {"n": calls, "bytes": resident_bytes() - before, "pending": self._client.stats()["pending"]}

    def _call(self, a: int, b: int) -> Any:
        if self._turns is None:
            return self._client.call("add", [a, b])
        return self._client.call("add", [a, b], service=next(self._turns))

    def _submit(self, i: int) -> Future[Any]:
        if self._turns is None:
            return self._client.submit("add", [i, 1])
        return self._client.submit("add", [i, 1], service=next(self._turns))


def _sum(i: int) -> int:
    return i + 1


def _none(_i: int) -> None:
    return None


def resident_bytes() -> int:
    """Give how much memory this process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def call(name: str) -> None:
    """Do what the harness wants until it quits."""
    reply, route = os.environ.get("BENCH_REPLY"), os.environ.get("BENCH_ROUTE")
    options: dict[str, Any] = {"reply": reply or None, "route": route or None, "max_pending": 1_000_000}
    with Client(URL, name, **options) as client:
        load = Load(client, name)
        verbs = ("run", "echo", "batch", "notify", "flood", "wait", "park")
        answer_lines({verb: getattr(load, verb) for verb in verbs})


if __name__ == "__main__":
    what, which = role()
    (serve if what == "server" else call)(which)
