"""
The line protocol between the harness and a program under load: the side of the program.

    PROGRAM server NAME     prints "@@READY" once it consumes; runs until SIGTERM
    PROGRAM client NAME     prints "@@READY" once it is connected; each line on its standard input is a command, a verb
                            and whole numbers, whose result it prints as "@@{json}"; ends at "quit"

All clients know the verb "run CALLS IN_FLIGHT": call ``add(i, 1)`` CALLS times, IN_FLIGHT at a time, and check each
reply. The result is that of ``summary``, or has the member "error". The harness reads CPU time from the kernel, in the
same way for every language.

This module uses only the standard library: it runs in the environment of every peer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

URL = os.environ.get("BENCH_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")
# As many as are in flight at most, so that a server's prefetch does not limit the throughput.
PREFETCH = 256

Numbers = dict[str, Any]
Verb = Callable[..., Numbers]

_PARTS = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p999_us": 0.999}
now = time.perf_counter_ns


def say(text: str) -> None:
    """Print a line of the protocol."""
    sys.stdout.write(f"@@{text}\n")
    sys.stdout.flush()


def role() -> tuple[str, str]:
    """Return what this program is, and the name that it serves or calls."""
    return sys.argv[1], sys.argv[2]


def summary(times: Sequence[int], elapsed: int, bad: int, calls: int | None = None) -> Numbers:
    """
    Return the figures of one run.

    Args:
        times: The duration of each call, in nanoseconds.
        elapsed: From the start of the first to the end of the last, in nanoseconds.
        bad: The number of calls with a wrong reply, or none.
        calls: The number of calls; None: that of ``times``.
    """
    times = sorted(times)
    last = len(times) - 1
    figures = {name: times[min(last, int(part * len(times)))] / 1000 for name, part in _PARTS.items()} if times else {}
    made = len(times) if calls is None else calls
    return {"n": made, "elapsed": elapsed / 1e9, "bad": bad, "max_us": times[-1] / 1000 if times else None, **figures}


def one_at_a_time(call: Callable[[int, int], Any], calls: int) -> Numbers:
    """Make calls, each after the reply to the one before."""
    times, bad = [], 0
    began = now()
    for i in range(calls):
        start = now()
        result = call(i, 1)
        times.append(now() - start)
        bad += result != i + 1
    return summary(times, now() - began, bad)


def in_threads(callers: Sequence[Callable[[int, int], Any]], calls: int) -> Numbers:
    """Make calls in a thread for each caller, one at a time in each."""
    times: list[int] = []
    bad = [0]
    rest = iter(range(calls))
    lock = threading.Lock()

    def work(call: Callable[[int, int], Any]) -> None:
        mine, wrong = [], 0
        for i in rest:  # next() of a range iterator is atomic under the GIL
            start = now()
            try:
                wrong += call(i, 1) != i + 1
            except Exception as exc:
                wrong += 1
                print(f"call {i}: {exc!r}", file=sys.stderr)
            mine.append(now() - start)
        with lock:
            times.extend(mine)
            bad[0] += wrong

    threads = [threading.Thread(target=work, args=(call,)) for call in callers]
    began = now()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return summary(times, now() - began, bad[0])


def windowed(
    send: Callable[[int], str], wait: Callable[[], None], results: dict[str, Any], calls: int, in_flight: int
) -> Numbers:
    """
    Keep a number of calls in flight, on one thread.

    Args:
        send: Sends ``add(i, 1)``, and returns the key of its reply.
        wait: Returns when something has arrived.
        results: ``wait`` puts results here, by key.
        calls: The number of calls.
        in_flight: How many at a time.
    """
    times: list[int] = []
    bad = sent = 0
    under_way: dict[str, tuple[int, int]] = {}
    began = now()
    while len(times) < calls:
        while sent < calls and len(under_way) < in_flight:
            start = now()
            under_way[send(sent)] = sent, start
            sent += 1
        wait()
        for key in list(results):
            i, start = under_way.pop(key)
            bad += results.pop(key) != i + 1
            times.append(now() - start)
    return summary(times, now() - began, bad)


def in_order(send: Callable[[int], Any], result: Callable[[Any], Any], calls: int, in_flight: int) -> Numbers:
    """Keep a number of futures in flight, waiting for the oldest; ``send(i)`` returns the future of ``add(i, 1)``."""
    times: list[int] = []
    bad = sent = 0
    under_way: deque[tuple[int, int, Any]] = deque()
    began = now()
    while len(times) < calls:
        while sent < calls and len(under_way) < in_flight:
            start = now()
            under_way.append((sent, start, send(sent)))
            sent += 1
        i, start, future = under_way.popleft()
        bad += result(future) != i + 1
        times.append(now() - start)
    return summary(times, now() - began, bad)


async def in_tasks(call: Callable[[int, int], Awaitable[Any]], calls: int, in_flight: int) -> Numbers:
    """Make calls in ``in_flight`` tasks, one at a time in each."""
    times, bad = [], [0]
    rest = iter(range(calls))

    async def work() -> None:
        for i in rest:
            start = now()
            result = await call(i, 1)
            times.append(now() - start)
            bad[0] += result != i + 1

    began = now()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return summary(times, now() - began, bad[0])


def run_on_loop(main: Coroutine[Any, Any, object]) -> None:
    """Run a program on an event loop: asyncio's own, or with BENCH_LOOP=uvloop that of uvloop."""
    new_loop = None
    if os.environ.get("BENCH_LOOP") == "uvloop":
        import uvloop

        new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main)


def run_commands(verbs: Mapping[str, Verb]) -> None:
    """Report that this client is ready, and run the harness's commands until "quit"."""
    say("READY")
    for line in sys.stdin:
        if line.split()[:1] in ([], ["quit"]):
            break
        say(json.dumps(_run(verbs, line)))


async def run_commands_with_tasks(call: Callable[[int, int], Awaitable[Any]]) -> None:
    """As ``run_commands``, for an asyncio client that knows the verb "run" alone."""
    loop = asyncio.get_running_loop()
    say("READY")
    while (line := await loop.run_in_executor(None, sys.stdin.readline)).split()[:1] not in ([], ["quit"]):
        try:
            _verb, calls, in_flight = line.split()
            figures = await in_tasks(call, int(calls), int(in_flight))
        except Exception as exc:
            figures = {"error": f"{type(exc).__name__}: {exc}"}
        say(json.dumps(figures))
    os._exit(0)  # do not wait for what the library leaves running


def _run(verbs: Mapping[str, Verb], line: str) -> Numbers:
    verb, *numbers = line.split()
    try:
        return verbs[verb](*map(int, numbers))
    except Exception as exc:
        return {"error": f"{type(exc).__name__}: {exc}"}
