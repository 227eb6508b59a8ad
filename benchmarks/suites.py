"""The suites. Each returns its experiments for a round; each experiment yields parameters and values."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from . import gateway
from .cases import CASES, Case
from .lab import Experiment, Lab, Meter, Numbers, Order, Taken, calls_in_flight, measure
from .optimizations import optimizations
from .processes import ROOT, Failed

FLOORS = ("floor_c_topic", "floor_c_direct", "floor_pyamqp_topic_tuned", "floor_pyamqp_topic", "floor_pyamqp_direct")
OURS = ("ours", "ours_direct", "ours_queue")
ASYNC_CLIENTS = ("ours_aclient", "ours_aclient_uvloop")
ASYNC_SERVERS = ("ours_async", "ours_aserver", "ours_aserver_uvloop")
ASYNC_PEERS = ("aiopika_jsonrpc_uvloop", "aiopika_jsonrpc", "pjrpc", "faststream")
PEERS = tuple(case.name for case in CASES.values() if case.kind == "peer")

MAIN = (1, 32, 256)
IN_FLIGHT = (1, 4, 16, 64, 256, 1024)
CLIENTS = (1, 4, 16, 64)
SERVICES = (1, 4, 16, 32)
SERVERS = (1, 2, 4, 8)
# Bytes of the body: calls in flight. Eight bodies of 1 MiB keep the broker busy.
BODIES = {1 << 10: 64, 64 << 10: 32, 1 << 20: 8}
BACKLOG = (3_000, 10_000, 30_000, 100_000)
PENDING = (0, 1_000, 10_000, 100_000)
BATCH = 100
_IMPORTS = 15

ASYNC_HANDLERS = 1000
# The longer one leaves cores free.
ASYNC_SLEEPS_MS = (100, 500)

SLEEP_MS = 10
BURN_MS = 5

Suite = Callable[[Lab], list[Experiment]]


def main(lab: Lab) -> list[Experiment]:
    """All cases, with 1, 32 and 256 calls in flight."""
    return [_by_in_flight(case, MAIN) for case in lab.wants(*FLOORS, *OURS, *PEERS)]


def inflight(lab: Lab) -> list[Experiment]:
    """Throughput against calls in flight."""
    return [_by_in_flight(case, IN_FLIGHT) for case in lab.wants("floor_c_topic", *FLOORS[2:3], *OURS[:3])]


def _by_in_flight(case: Case, sizes: Sequence[int]) -> Experiment:
    def take(lab: Lab) -> Taken:
        with lab.running(case, lab.new_name()) as start:
            servers, clients = start.servers(), start.clients()
            for in_flight in sizes:
                if in_flight <= case.most_in_flight:
                    order = calls_in_flight(in_flight)
                    yield {"in_flight": in_flight}, measure(lab, clients, servers, order, least=in_flight)

    return Experiment(case.name, take)


def servers(lab: Lab) -> list[Experiment]:
    """Three servers on one queue; then 1 to 8 with a handler that sleeps, and with one that computes."""

    def three(case: Case) -> Experiment:
        def take(lab: Lab) -> Taken:
            with lab.running(case, lab.new_name()) as start:
                running, clients = start.servers(3), start.clients()
                figures = measure(lab, clients, running, calls_in_flight(32), least=32)
                yield {"servers": 3, "in_flight": 32}, figures

        return Experiment(case.name, take)

    def scaling(case: Case, name: str, setting: str, milliseconds: int, in_flight: int) -> Experiment:
        def take(lab: Lab) -> Taken:
            for count in SERVERS:
                with lab.running(case, lab.new_name(), **{setting: milliseconds}) as start:
                    running, clients = start.servers(count), start.clients()
                    busy = count * in_flight
                    figures = measure(lab, clients, running, calls_in_flight(busy), least=busy)
                    yield {"servers": count, "in_flight": busy}, figures

        return Experiment(f"{case.name}_{name}", take)

    scaled = lab.wants("ours")
    return [
        *(three(case) for case in lab.wants("floor_c_topic", "ours", "ours_direct", "ours_queue")),
        # Enough for each server to run eight handlers and to have more requests at hand.
        *(scaling(case, "sleep", "BENCH_SLEEP_MS", SLEEP_MS, 24) for case in scaled),
        *(scaling(case, "burn", "BENCH_BURN_MS", BURN_MS, 16) for case in scaled),
    ]


def batch(lab: Lab) -> list[Experiment]:
    """A hundred calls in one message, against single calls."""

    def take(case: Case) -> Callable[[Lab], Taken]:
        def taken(lab: Lab) -> Taken:
            with lab.running(case, lab.new_name()) as start:
                running, clients = start.servers(), start.clients()
                for in_flight in (BATCH, 256):
                    figures = measure(lab, clients, running, calls_in_flight(in_flight), least=in_flight)
                    yield {"in_flight": in_flight, "batch": 1}, figures
                for messages in (1, 4):
                    order = _batches(messages)
                    figures = measure(lab, clients, running, order, least=messages, warm=8)
                    yield {"in_flight": messages * BATCH, "batch": BATCH}, figures

        return taken

    return [Experiment(case.name, take(case)) for case in lab.wants("ours", "ours_direct")]


def _batches(messages: int) -> Order:
    return lambda calls: ("batch", calls, messages, BATCH)


def notify(lab: Lab) -> list[Experiment]:
    """Notifications, each confirmed, 256 in flight, with no consumer."""
    in_flight = 256

    def take(case: Case) -> Callable[[Lab], Taken]:
        def taken(lab: Lab) -> Taken:
            name = lab.new_name()
            with lab.running(case, name) as start:
                if case.kind == "ours":
                    # A server declares the queue, which stays after it has stopped.
                    for server in start.servers():
                        server.stop()
                clients = start.clients()
                figures = measure(lab, clients, [], lambda calls: ("notify", calls, in_flight), least=in_flight)
                yield {"in_flight": in_flight}, figures

        return taken

    return [
        Experiment(case.name, take(case))
        for case in lab.wants("floor_pyamqp_notify_tuned", "floor_pyamqp_notify", "ours")
    ]


def bodies(lab: Lab) -> list[Experiment]:
    """Bodies of 1 KiB, 64 KiB and 1 MiB there and back."""

    def take(case: Case) -> Callable[[Lab], Taken]:
        def taken(lab: Lab) -> Taken:
            with lab.running(case, lab.new_name()) as start:
                running, clients = start.servers(), start.clients()
                for size, in_flight in BODIES.items():
                    order = _echoes(in_flight, size)
                    figures = measure(lab, clients, running, order, least=in_flight, warm=3 * in_flight)
                    values = {**figures, "bytes_rate": figures["rate"] * size}
                    yield {"bytes": size, "in_flight": in_flight}, values

        return taken

    names = ("floor_c_topic", "floor_c_direct", "ours", "ours_direct")
    return [Experiment(case.name, take(case)) for case in lab.wants(*names)]


def _echoes(in_flight: int, size: int) -> Order:
    return lambda calls: ("echo", calls, in_flight, size)


def clients(lab: Lab) -> list[Experiment]:
    """1 to 64 processes with a client each, 8 calls in flight each."""
    in_flight = 8

    def take(case: Case) -> Callable[[Lab], Taken]:
        def taken(lab: Lab) -> Taken:
            for count in CLIENTS:
                with lab.running(case, lab.new_name()) as start:
                    running, callers = start.servers(), start.clients(count)
                    figures = measure(lab, callers, running, calls_in_flight(in_flight), least=in_flight)
                    yield {"clients": count, "in_flight": in_flight}, figures

        return taken

    return [Experiment(case.name, take(case)) for case in lab.wants("floor_c_topic", "ours", "ours_direct")]


def services(lab: Lab) -> list[Experiment]:
    """One client that calls 1 to 32 services in turn, all in one server process."""
    in_flight = 64

    def take(case: Case) -> Callable[[Lab], Taken]:
        def taken(lab: Lab) -> Taken:
            for count in SERVICES:
                name = lab.new_name()
                with lab.running(case, name, BENCH_SERVICES=count) as start:
                    running, callers = start.servers(), start.clients()
                    figures = measure(lab, callers, running, calls_in_flight(in_flight), least=in_flight)
                    yield {"services": count, "in_flight": in_flight}, figures
                for i in range(1, count):
                    lab.delete_queue(f"{name}-{i}_req")

        return taken

    return [Experiment(case.name, take(case)) for case in lab.wants("ours", "ours_direct")]


def backlog(lab: Lab) -> list[Experiment]:
    """What a call costs with a backlog in the queue: all calls are sent before a server starts."""

    def one(lab: Lab, case: Case, depth: int) -> Numbers:
        name = lab.new_name()
        with lab.running(case, name) as start:
            for server in start.servers():
                server.stop()
            client = start.client()
            client.ask("flood", depth)
            running = start.servers()
            # Begin to count once at least a tenth has its reply; the client reports the exact number.
            done = client.ask("wait", depth // 10)["done"]
            meter, began = Meter(lab, [client], running), time.perf_counter()
            bad = client.ask("wait", depth, timeout=600)["bad"]
            elapsed, calls = time.perf_counter() - began, depth - done
            if calls < depth / 2:
                raise Failed(f"{done} of {depth} had their reply before the counting began")
            return {**meter.read(calls), "rate": calls / elapsed, "bad": bad, "n": calls}

    def take(case: Case) -> Callable[[Lab], Taken]:
        def taken(lab: Lab) -> Taken:
            for depth in _few(lab, BACKLOG):
                yield {"depth": depth}, one(lab, case, depth)

        return taken

    return [Experiment(case.name, take(case)) for case in lab.wants("ours", "ours_direct")]


def pending(lab: Lab) -> list[Experiment]:
    """What a call costs, in time and memory, while other calls of the client are pending."""

    def take(case: Case) -> Callable[[Lab], Taken]:
        def taken(lab: Lab) -> Taken:
            name, in_flight = lab.new_name(), 64
            with lab.running(case, name) as start, lab.running(case, f"{name}-parked") as unserved:
                for server in unserved.servers():
                    server.stop()
                running, client = start.servers(), start.client()
                client.ask("run", 1000, in_flight)
                parked = 0
                for count in _few(lab, PENDING):
                    memory = client.ask("park", count - parked, timeout=600) if count else {}
                    figures = measure(lab, [client], running, calls_in_flight(in_flight), least=in_flight)
                    values = {"call_bytes": memory["bytes"] / (count - parked)} if memory else {}
                    parked = count
                    yield {"pending": count, "in_flight": in_flight}, {**figures, **values}

        return taken

    return [Experiment(case.name, take(case)) for case in lab.wants("ours")]


def asyncio(lab: Lab) -> list[Experiment]:
    """Coroutines on one side, and on both, beside threads and other libraries; then many handlers that sleep."""
    # Those that are compared one after the other.
    cases = lab.wants("ours", *ASYNC_CLIENTS, *ASYNC_PEERS[:2], *reversed(ASYNC_SERVERS), *ASYNC_PEERS[2:])
    return [
        *(_by_in_flight(case, (1, 256)) for case in cases),
        *(_sleeping(case) for case in lab.wants(*ASYNC_SERVERS[:2])),
    ]


def _sleeping(case: Case) -> Experiment:
    # Twice as many as run, so that more are at hand while replies and requests are on their way.
    in_flight = 2 * ASYNC_HANDLERS

    def whole_waves(calls: int) -> tuple[object, ...]:
        return "run", math.ceil(calls / ASYNC_HANDLERS) * ASYNC_HANDLERS, in_flight

    def take(lab: Lab) -> Taken:
        for milliseconds in ASYNC_SLEEPS_MS:
            env = {"BENCH_SLEEP_MS": milliseconds, "BENCH_ASYNC_CONCURRENCY": ASYNC_HANDLERS}
            with lab.running(case, lab.new_name(), **env) as start:
                servers, clients = start.servers(), start.clients()
                figures = measure(lab, clients, servers, whole_waves, least=in_flight)
                share = figures["rate"] * milliseconds / 1000 / ASYNC_HANDLERS
                yield {"sleep_ms": milliseconds, "in_flight": in_flight}, {**figures, "share": share}

    return Experiment(f"{case.name}_sleep", take)


def _few(lab: Lab, sizes: Sequence[int]) -> Sequence[int]:
    """Return the sizes, in a quick run without the largest: filling a queue takes as long as in a full run."""
    return sizes if lab.seconds >= 1 else sizes[:-1]


def memory(lab: Lab) -> list[Experiment]:
    """The memory of an idle client."""

    def take(lab: Lab) -> Taken:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.fresh", "idle", lab.url], cwd=ROOT, capture_output=True, text=True
        )
        if done.returncode:
            raise OSError(done.stderr.strip().splitlines()[-1])
        yield {}, json.loads(done.stdout)

    return [Experiment("ours", take)] if lab.wants("ours") else []


_STATEMENTS = {
    "nothing": "pass",
    # kombu imports its modules when they are looked up, and its transport when it connects.
    "kombu": "from kombu import Connection; import kombu.transport.pyamqp",
    "package": "import jsonrpc_amqp",
    # Includes what connecting imports.
    "connecting": "import jsonrpc_amqp; jsonrpc_amqp.Client('amqp://', 's'); "
    "from kombu import Connection; import kombu.transport.pyamqp",
}


def imports(lab: Lab) -> list[Experiment]:
    """The time that imports take, each in a fresh interpreter."""

    def seconds(statement: str) -> tuple[float, float]:
        code = f"import time; w, c = time.perf_counter(), time.process_time(); {statement}; "
        code += "print(time.perf_counter() - w, time.process_time() - c)"
        env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
        )
        wall, cpu = map(float, done.stdout.split())
        return wall, cpu

    def take(lab: Lab) -> Taken:
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in _STATEMENTS}
        for i in range(1 + (_IMPORTS if lab.seconds >= 1 else 3)):
            for name, statement in _STATEMENTS.items():
                time_of = seconds(statement)
                if i:  # the first one compiles bytecode
                    times[name].append(time_of)
        yield (
            {},
            {
                **{f"{name}_ms": median(wall for wall, _ in of) * 1000 for name, of in times.items()},
                **{f"{name}_cpu_ms": median(cpu for _, cpu in of) * 1000 for name, of in times.items()},
            },
        )

    return [Experiment("ours", take)] if lab.wants("ours") else []


def http(lab: Lab) -> list[Experiment]:
    """A plain call, the same through a gateway, and through gateway, bridge and an HTTP server."""

    def take(lab: Lab) -> Taken:
        for hops, (_what, figures) in enumerate(gateway.measure(lab.url)):
            yield {"hops": hops}, figures

    return [Experiment("ours", take)] if lab.wants("ours") else []


SUITES: Mapping[str, Suite] = {
    suite.__name__: suite
    for suite in (
        main,
        servers,
        batch,
        notify,
        bodies,
        inflight,
        clients,
        services,
        backlog,
        pending,
        memory,
        imports,
        http,
        asyncio,
        optimizations,
    )
}
