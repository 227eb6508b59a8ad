"""
Our server or client under load, controlled over the line protocol of ``lines.py``.

    python benchmarks/peer.py server NAME
    python benchmarks/peer.py client NAME

A client knows, besides "run CALLS IN_FLIGHT":

    echo CALLS IN_FLIGHT BYTES      send strings of BYTES bytes, which come back
    batch MESSAGES IN_FLIGHT SIZE   send batches of SIZE calls, IN_FLIGHT messages at a time
    notify CALLS IN_FLIGHT          send notifications, each confirmed by the broker
    flood CALLS                     submit calls, and do not wait for their results
    wait CALLS                      wait for the results of the first CALLS of these
    park CALLS                      submit calls to the service NAME-parked, which has no server; return their memory

The environment sets:

    BENCH_AMQP_URL                  the broker
    BENCH_SERVICES                  the number of services, NAME, NAME-1 ...: a server for each, called in turn
    BENCH_CONCURRENCY, BENCH_ASYNC_CONCURRENCY, BENCH_PREFETCH      of the server
    BENCH_SLEEP_MS, BENCH_BURN_MS           what ``add`` sleeps, or computes
    BENCH_METHODS=async                     ``add`` is ``async def``; it computes nothing
    BENCH_INLINE_JOBS=0                     the server does not run handlers on the leader
    BENCH_REPLY (topic, direct, queue), BENCH_ROUTE (topic, queue)      of the client
    BENCH_CALLER_DRIVES=0                   a synchronous caller of the client does not drive its connection
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

# Run as a program, Python puts only this folder on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.lines import URL, Numbers, in_threads, now, one_at_a_time, role, run_commands, say, summary
from jsonrpc_amqp import AsyncServer, Client, Server
from jsonrpc_amqp.amqp.base import Transport
from jsonrpc_amqp.options import ASYNC_CONCURRENCY, CONCURRENCY, ConnectionOptions

# Seconds; longer than any measurement.
_NO_TIMEOUT = 3600.0


def _number(name: str, default: float) -> float:
    return float(os.environ.get(name) or default)


def services(name: str) -> list[str]:
    """Return the names of the services: NAME, NAME-1, ..."""
    return [name, *(f"{name}-{i}" for i in range(1, int(_number("BENCH_SERVICES", 1))))]


def transport(role: str) -> Transport | None:
    """
    Return a transport whose runtime lacks the optimisations that the environment turns off.

    None where it turns off none: the client or server then makes its own, as in a program of a user. Its options are
    the same.
    """
    caller_drives = os.environ.get("BENCH_CALLER_DRIVES") != "0"
    inline_jobs = os.environ.get("BENCH_INLINE_JOBS") != "0"
    if caller_drives and inline_jobs:
        return None
    from jsonrpc_amqp.amqp.transport import connect_transport
    from jsonrpc_amqp.runtime.threads import ThreadsRuntime

    options = ConnectionOptions(name=f"jsonrpc-amqp {role} {os.getpid()}")
    runtime = ThreadsRuntime(caller_drives=caller_drives, inline_jobs=inline_jobs)
    return connect_transport(URL, options, runtime=runtime)


# -- the server -----------------------------------------------------------------------------------------------


def burn(seconds: float) -> None:
    """Use this much CPU time on this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def methods() -> Mapping[str, Callable[..., Any]]:
    """Return ``add`` and ``echo``."""
    sleeping, burning = _number("BENCH_SLEEP_MS", 0) / 1000, _number("BENCH_BURN_MS", 0) / 1000

    def add(a: int, b: int) -> int:
        return a + b

    def add_after_sleep(a: int, b: int) -> int:
        time.sleep(sleeping)
        return a + b

    def add_after_work(a: int, b: int) -> int:
        burn(burning)
        return a + b

    async def add_in_coroutine(a: int, b: int) -> int:
        return a + b

    async def add_after_wait(a: int, b: int) -> int:
        await asyncio.sleep(sleeping)
        return a + b

    def echo(value: str) -> str:
        return value

    if os.environ.get("BENCH_METHODS") == "async":
        return {"add": add_after_wait if sleeping else add_in_coroutine, "echo": echo}
    return {"add": add_after_sleep if sleeping else add_after_work if burning else add, "echo": echo}


def server_options() -> dict[str, Any]:
    """Return the arguments of a server that the environment sets."""
    prefetch = os.environ.get("BENCH_PREFETCH")
    return {
        "concurrency": int(_number("BENCH_CONCURRENCY", CONCURRENCY)),
        "async_concurrency": int(_number("BENCH_ASYNC_CONCURRENCY", ASYNC_CONCURRENCY)),
        "prefetch": int(prefetch) if prefetch else None,
    }


def register(server: Server | AsyncServer) -> None:
    """Register the methods at a server."""
    for name, function in methods().items():
        server.method(name)(function)


def serve(name: str) -> None:
    """Serve until SIGTERM."""
    signals = {signal.SIGTERM, signal.SIGINT}
    # Block them before other threads start, which inherit the mask; otherwise one of those would receive them.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with ExitStack() as running:
        for each in services(name):
            server = Server(URL, each, transport=transport("server"), **server_options())
            register(server)
            running.enter_context(server)
        say("READY")
        signal.sigwait(signals)


# -- the client -----------------------------------------------------------------------------------------------


def keep_in_flight(
    send: Callable[[int], Future[Any]], expected: Callable[[int], Any], calls: int, in_flight: int
) -> Numbers:
    """
    Keep a number of futures in flight: the callback of each sends the next one.

    Args:
        send: Sends the i-th call, and returns its future.
        expected: Returns its result.
        calls: The number of calls.
        in_flight: How many at a time.
    """
    times: list[int] = []
    bad = [0]
    todo = iter(range(calls))
    all_done = threading.Event()

    def send_next() -> None:
        for i in todo:
            start = now()
            send(i).add_done_callback(partial(on_done, i, start))
            return

    def on_done(i: int, start: int, future: Future[Any]) -> None:
        times.append(now() - start)
        try:
            bad[0] += future.result() != expected(i)
        except Exception as exc:
            bad[0] += 1
            print(f"call {i}: {exc!r}", file=sys.stderr)
        send_next()
        if len(times) == calls:
            all_done.set()

    began = now()
    for _ in range(in_flight):
        send_next()
    all_done.wait()
    return summary(times, now() - began, bad[0])


class Load:
    """
    The commands of a client; each returns figures.

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
        # The future of a notification that the broker has confirmed holds None.
        return keep_in_flight(lambda i: self._client.submit_notify("add", [i, 1]), _none, calls, in_flight)

    def flood(self, calls: int) -> Numbers:
        began = now()
        self._flood = [self._client.submit("add", [i, 1], timeout=_NO_TIMEOUT) for i in range(calls)]
        return {"n": calls, "elapsed": (now() - began) / 1e9}

    def wait(self, calls: int) -> Numbers:
        # Waiting in order is exact enough: a reply overtakes others by no more than a prefetch.
        bad = sum(future.result() != i + 1 for i, future in enumerate(self._flood[:calls]))
        return {"bad": bad, "done": sum(future.done() for future in self._flood)}

    def park(self, calls: int) -> Numbers:
        before = resident_bytes()
        service = f"{self._name}-parked"
        self._parked += [self._client.submit("add", [i, 1], service=service, timeout=_NO_TIMEOUT) for i in range(calls)]
        # Wait until the requests are written, so that output buffers do not count.
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
    """Return the resident memory of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def client_options() -> dict[str, Any]:
    """Return the arguments of a client that the environment sets."""
    reply, route = os.environ.get("BENCH_REPLY"), os.environ.get("BENCH_ROUTE")
    return {"reply": reply or None, "route": route or None, "max_pending": 1_000_000}


def call(name: str) -> None:
    """Run the harness's commands until it quits."""
    with Client(URL, name, transport=transport("client"), **client_options()) as client:
        load = Load(client, name)
        verbs = ("run", "echo", "batch", "notify", "flood", "wait", "park")
        run_commands({verb: getattr(load, verb) for verb in verbs})


if __name__ == "__main__":
    what, which = role()
    (serve if what == "server" else call)(which)
