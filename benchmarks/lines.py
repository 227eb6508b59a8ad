"""
The line protocol between the harness and a program under load, as the program speaks it.

    PROGRAM server NAME     prints "@@READY" once it consumes; runs until SIGTERM
    PROGRAM client NAME     prints "@@READY" once it is connected; answers each line on its standard input, a verb and
                            whole numbers, with one line "@@{json}"; ends at "quit"

"run CALLS IN_FLIGHT" is the verb that all know: ``add(i, 1)``, so often, so many at a time, each answer checked. The
answer is what ``summary`` gives, or has the member "error". CPU time is read by the harness, from the kernel, so that
every language is measured alike.

Only the standard library is used here: this runs in the environment of every peer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

URL = os.environ.get("BENCH_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")
# As many as are in flight at most: a server that takes fewer would measure its prefetch.
PREFETCH = 256

Numbers = dict[str, Any]
Verb = Callable[..., Numbers]

_PARTS = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p999_us": 0.999}
now = time.perf_counter_ns


def say(text: str) -> None:
    """Print one line of the protocol."""
    sys.stdout.write(f"@@{text}\n")
    sys.stdout.flush()


def role() -> tuple[str, str]:
    """Give what this program is, and the name that it serves or calls."""
    return sys.argv[1], sys.argv[2]


def summary(times: Sequence[int], elapsed: int, bad: int, calls: int | None = None) -> Numbers:
    """
    Give the figures of one run.

    Args:
        times: Of each call, in nanoseconds.
        elapsed: From the first to the last, in nanoseconds.
        bad: Calls with a wrong answer, or none.
        calls: How many there were; None: as many as times.
    """
    times = sorted(times)
    last = len(times) - 1
    figures = {name: times[min(last, int(part * len(times)))] / 1000 for name, part in _PARTS.items()} if times else {}
    made = len(times) if calls is None else calls
    return {"n": made, "elapsed": elapsed / 1e9, "bad": bad, "max_us": times[-1] / 1000 if times else None, **figures}


def one_at_a_time(call: Callable[[int, int], Any], calls: int) -> Numbers:
    """Make each call after the answer to the one before."""
    times, bad = [], 0
    began = now()
    for i in range(calls):
        start = now()
        answer = call(i, 1)
        times.append(now() - start)
        bad += answer != i + 1
    return summary(times, now() - began, bad)


def in_threads(callers: Sequence[Callable[[int, int], Any]], calls: int) -> Numbers:
    """Let each caller have a thread, where one call at a time is made."""
    times: list[int] = []
    bad = [0]
    rest = iter(range(calls))
    lock = threading.Lock()

    def work(call: Callable[[int, int], Any]) -> None:
        mine, wrong = [], 0
        for i in rest:  # next() of a range is one step under the interpreter's lock
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
    send: Callable[[int], str], wait: Callable[[], None], answers: dict[str, Any], calls: int, in_flight: int
) -> Numbers:
    """
    Keep a window full, on one thread.

    Args:
        send: Sends ``add(i, 1)`` and gives the key of its answer.
        wait: Returns when something has come.
        answers: Where answers turn up, by key.
        calls: How many to make.
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
        for key in list(answers):
            i, start = under_way.pop(key)
            bad += answers.pop(key) != i + 1
            times.append(now() - start)
    return summary(times, now() - began, bad)


def in_order(send: Callable[[int], Any], result: Callable[[Any], Any], calls: int, in_flight: int) -> Numbers:
    """Keep a window full with futures of some kind, waiting for the oldest: ``send(i)`` gives one for ``add(i, 1)``."""
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
    """Let so many tasks make one call at a time each."""
    times, bad = [], [0]
    rest = iter(range(calls))

    async def work() -> None:
        for i in rest:
            start = now()
            answer = await call(i, 1)
            times.append(now() - start)
            bad[0] += answer != i + 1

    began = now()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return summary(times, now() - began, bad[0])


def answer_lines(verbs: Mapping[str, Verb]) -> None:
    """Say that this client is ready, and do what the harness wants until it quits."""
    say("READY")
    for line in sys.stdin:
        if line.split()[:1] in ([], ["quit"]):
            break
        say(json.dumps(_answer(verbs, line)))


async def answer_lines_with_tasks(call: Callable[[int, int], Awaitable[Any]]) -> None:
    """Do the same for a client of asyncio."""
    loop = asyncio.get_running_loop()
    say("READY")
    while (line := await loop.run_in_executor(None, sys.stdin.readline)).split()[:1] not in ([], ["quit"]):
        try:
            _verb, calls, in_flight = line.split()
            figures = await in_tasks(call, int(calls), int(in_flight))
        except Exception as exc:
            figures = {"error": f"{type(exc).__name__}: {exc}"}
        say(json.dumps(figures))
    os._exit(0)  # what its library leaves running is of no interest any more


def _answer(verbs: Mapping[str, Verb], line: str) -> Numbers:
    verb, *numbers = line.split()
    try:
        return verbs[verb](*map(int, numbers))
    except Exception as exc:
        return {"error": f"{type(exc).__name__}: {exc}"}
