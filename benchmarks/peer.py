"""
One server or one client under load, steered over a line protocol, so that a harness can time it beside other libraries.

    python benchmarks/peer.py server NAME      prints "@@READY" once it consumes; runs until SIGTERM
    python benchmarks/peer.py client NAME      prints "@@READY"; answers each line "run CALLS IN_FLIGHT" on its standard
                                               input with one line "@@{json}"; ends at "quit"

Every answer is checked. The environment sets BENCH_AMQP_URL, BENCH_REPLY (topic, queue or direct), BENCH_ROUTE (topic
or queue), BENCH_CONCURRENCY and BENCH_PREFETCH.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from concurrent.futures import Future
from functools import partial
from typing import Any

from jsonrpc_amqp import Client, Server

URL = os.environ.get("BENCH_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")


def say(text: str) -> None:
    """Print one line of the protocol."""
    sys.stdout.write(f"@@{text}\n")
    sys.stdout.flush()


def serve(name: str) -> None:
    """Serve ``add`` until SIGTERM."""
    prefetch = os.environ.get("BENCH_PREFETCH")
    server = Server(
        URL,
        name,
        concurrency=int(os.environ.get("BENCH_CONCURRENCY", "8")),
        prefetch=int(prefetch) if prefetch else None,
    )

    @server.method
    def add(a: int, b: int) -> int:
        return a + b

    threading.Thread(target=lambda: (server.start(), say("READY")), daemon=True).start()
    server.serve_forever()


def summary(times: list[int], elapsed: float, bad: int) -> dict[str, Any]:
    """Give the counts and latencies (in microseconds) of one run."""
    times.sort()
    count = len(times)
    return {
        "n": count,
        "elapsed": elapsed,
        "p50_us": times[count // 2] / 1000,
        "p99_us": times[min(count - 1, count * 99 // 100)] / 1000,
        "bad": bad,
    }


def one_at_a_time(client: Client, calls: int) -> dict[str, Any]:
    """Make each call after the answer to the one before."""
    now, times, bad = time.perf_counter_ns, [], 0
    began = now()
    for i in range(calls):
        start = now()
        bad += client.call("add", [i, 1]) != i + 1
        times.append(now() - start)
    return summary(times, (now() - began) / 1e9, bad)


def many_at_a_time(client: Client, calls: int, in_flight: int) -> dict[str, Any]:
    """Keep ``in_flight`` calls on their way: each answer makes the next call."""
    now, times, bad = time.perf_counter_ns, [], [0]
    todo = iter(range(calls))
    is_over = threading.Event()

    def submit_next() -> None:
        for i in todo:
            client.submit("add", [i, 1]).add_done_callback(partial(back, i, now()))
            return

    def back(i: int, start: int, future: Future[Any]) -> None:
        times.append(now() - start)
        bad[0] += future.exception() is not None or future.result() != i + 1
        submit_next()
        if len(times) == calls:
            is_over.set()

    began = now()
    for _ in range(in_flight):
        submit_next()
    is_over.wait()
    return summary(times, (now() - began) / 1e9, bad[0])


def call(name: str) -> None:
    """Answer the harness until it quits."""
    reply: Any = os.environ.get("BENCH_REPLY", "topic")
    route: Any = os.environ.get("BENCH_ROUTE", "topic")
    with Client(URL, name, reply=reply, route=route) as client:
        say("READY")
        for line in sys.stdin:
            words = line.split()
            if not words or words[0] == "quit":
                break
            calls, in_flight = int(words[1]), int(words[2])
            run = one_at_a_time(client, calls) if in_flight == 1 else many_at_a_time(client, calls, in_flight)
            say(json.dumps(run))


if __name__ == "__main__":
    (serve if sys.argv[1] == "server" else call)(sys.argv[2])
