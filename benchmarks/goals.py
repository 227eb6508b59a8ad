"""The goals, and whether they were reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from jsonrpc_amqp.options import CONCURRENCY

from .cases import CASES
from .samples import Figure, Results, figure
from .suites import (
    ASYNC_HANDLERS,
    ASYNC_SLEEPS_MS,
    BATCH,
    BODIES,
    BURN_MS,
    PENDING,
    SERVERS,
    SLEEP_MS,
)

Verdict = Literal["stretch", "reached", "missed", "not measured"]

# The share of the cores from which on they count as full: client and broker need them, too.
_FULL = 0.9

WHY_MISSED: Mapping[str, str] = {
    "256 in flight, topic reply: calls/s": (
        "Both cores are full, so CPU time decides. Client and server take 109 µs a call together, the floor 22, which "
        "does not parse bodies; the broker takes 124, and 100 for the floor. Deadline, user, headers and `mandatory` "
        "cost it 3 of these, as was found by leaving them out; the rest depends on how many messages arrive at a time. "
        "The work of client and server within the process takes 22 µs in a loop of its own (`benchmarks.micro`): to "
        "decode two deliveries 8.0, to dispatch 6.1, to encode two publishes 4.6. The rest is reads, writes, threads, "
        "and three programs that compete for two cores"
    ),
    "256 in flight, direct reply, request on the topic exchange: calls/s": (
        "As with topic replies; the broker saves 32 µs of its 124, client and server 17"
    ),
    '256 in flight, `route="queue"` with direct reply: calls/s': (
        "As with topic replies; client and server take 96 µs here, the broker 69"
    ),
    "256 in flight, topic: calls/s": (
        "Java's classes, compiled to machine code, take 110 µs a call together, as ours do, and send to the queue by "
        "its name, which costs the broker 42 µs less than the topic exchange; `ours_queue`, which does the same, is "
        "faster than they are"
    ),
    "one at a time: p50": (
        "As with bare py-amqp, the calling thread reads the reply itself, and with less CPU time (150 µs of the "
        "client, 161 there). The server takes 21 µs more, for JSON, the dispatch and the acknowledgement, and the "
        "broker 27. tinyrpc polls without a pause, with 800 µs of CPU time a call on each side"
    ),
    "`AsyncClient`, one at a time: p50": (
        "A call waits for two passes through the broker, which works 270 to 300 µs on it whatever the library: "
        "`Client.call`, whose thread reads the reply itself, is at 0.50x of aio-pika, and the floor in C at 0.31x. The "
        "event loop adds 16 µs of CPU time of the client to those of `Client.call`"
    ),
    "1,000 `async def` handlers that sleep, one process: calls/s": (
        "Handlers that begin together end together, so calls come in bursts of 1,000, and each burst takes the loop of "
        "the server 62 to 70 ms: with 100 ms they are behind one another for 16 ms more than the sleep, with 500 ms "
        "they are not"
    ),
}
"""For the page: why a goal was missed, by its measure. Updated by hand after a full run."""


@dataclass(frozen=True)
class Part:
    """
    One figure of a goal.

    Attributes:
        label: Its subject; empty if the goal has one part only.
        figure: What was measured, if it was.
        goal: The bound to reach.
        stretch: A better bound, if there is one.
        at_least: Whether more is better.
        form: A format string for the figure.
    """

    label: str
    figure: Figure | None
    goal: float
    stretch: float | None = None
    at_least: bool = True
    form: str = "{:.2f}"

    @property
    def verdict(self) -> Verdict:
        if self.figure is None:
            return "not measured"
        if self.stretch is not None and self._meets(self.stretch):
            return "stretch"
        return "reached" if self._meets(self.goal) else "missed"

    def bound(self, value: float | None) -> str:
        """Return a bound as text."""
        return "" if value is None else f"{'≥' if self.at_least else '≤'} {self.form.format(value)}"

    def measured(self) -> str:
        """Return the figure as text, with its spread over rounds."""
        if self.figure is None:
            return "not measured"
        middle, low, high = (self.form.format(each) for each in self.figure[:3])
        return middle if self.figure.rounds == 1 else f"{middle} ({low}..{high})"

    def _meets(self, bound: float) -> bool:
        assert self.figure is not None
        return self.figure.median >= bound if self.at_least else self.figure.median <= bound


@dataclass(frozen=True)
class Goal:
    """One row of the table."""

    measure: str
    against: str
    parts: tuple[Part, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of its parts; parts that were not measured count only if none was."""
        order: tuple[Verdict, ...] = ("missed", "reached", "stretch")
        seen = {part.verdict for part in self.parts}
        return next((each for each in order if each in seen), "not measured")

    @property
    def unmeasured(self) -> list[str]:
        """The parts that were not measured, if others were."""
        return [part.label for part in self.parts if part.figure is None] if self.verdict != "not measured" else []


def goals(results: Results) -> list[Goal]:
    """Return all goals with their figures."""
    return [
        *_throughput(results),
        _peers(results),
        _cpu(results),
        *_latency(results),
        _three_servers(results),
        _batch(results),
        _notifications(results),
        _bodies(results),
        _memory(results),
        _imports(results),
        _scaling(results),
        *_async_client(results),
        _both_async(results),
        _async_handlers(results),
    ]


def _main(
    results: Results, one: str, other: str, value: str = "rate", in_flight: int = 256, suite: str = "main"
) -> Figure | None:
    """Compare two cases of a suite."""
    ours = results.by_round(suite, one, value, in_flight=in_flight)
    return results.ratio(ours, results.by_round(suite, other, value, in_flight=in_flight))


def _throughput(results: Results) -> Iterable[Goal]:
    floor = "C floor, topic"
    for name, case, goal, stretch in (
        ("256 in flight, topic reply", "ours", 0.60, 0.75),
        ("256 in flight, direct reply, request on the topic exchange", "ours_direct", 0.75, 0.90),
        ('256 in flight, `route="queue"` with direct reply', "ours_queue", 1.0, 1.2),
    ):
        ratio = _main(results, case, "floor_c_topic")
        yield Goal(f"{name}: calls/s", floor, (Part("", ratio, goal, stretch, form="{:.2f}x"),))


def _peers(results: Results) -> Goal:
    wanted = (
        ("pjrpc", "pjrpc", 16.0, 20.0),
        ("aio-pika JsonRPC", "aiopika_jsonrpc", 5.5, 7.0),
        ("pika", "pika", 2.0, 2.5),
        ("Java JSON-RPC", "java_jsonrpc", 2.3, 3.0),
    )
    parts = (
        Part(label, _main(results, "ours", case), goal, stretch, form="{:.1f}x")
        for label, case, goal, stretch in wanted
    )
    return Goal("256 in flight, topic: calls/s", "other libraries", tuple(parts))


def _cpu(results: Results) -> Goal:
    ours, theirs = (
        _added(
            results.by_round("main", case, "client_cpu_us", in_flight=256),
            results.by_round("main", case, "server_cpu_us", in_flight=256),
        )
        for case in ("ours", "floor_pyamqp_topic_tuned")
    )
    part = Part("", results.ratio(ours, theirs), 0.85, 0.6, at_least=False, form="{:.2f}x")
    return Goal("CPU per call at 256, client + server, worker threads", "bare py-amqp, tuned", (part,))


def _added(one: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    return {number: one[number] + other[number] for number in one.keys() & other.keys()}


def _latency(results: Results) -> Iterable[Goal]:
    peers = [case.name for case in CASES.values() if case.kind == "peer" and case.program != "java"]
    p50 = {case: results.by_round("main", case, "p50_us", in_flight=1) for case in ("ours", *peers)}
    medians = {case: each.median for case in peers if (each := figure(p50[case].values())) is not None}
    fastest = min(medians, key=medians.__getitem__, default="")
    against_peers = results.ratio(p50["ours"], p50[fastest]) if fastest else None
    bare = _main(results, "ours", "floor_pyamqp_topic_tuned", "p50_us", 1)
    yield Goal(
        "one at a time: p50",
        "the fastest Python peer; bare py-amqp, tuned",
        (
            Part(fastest or "Python peers", against_peers, 1.0, at_least=False, form="{:.2f}x"),
            Part("bare", bare, 1.05, 1.0, at_least=False, form="{:.2f}x"),
        ),
    )
    p99 = _main(results, "ours", "floor_c_topic", "p99_us", 1)
    yield Goal("one at a time: p99", "C floor, topic", (Part("", p99, 2.5, 1.5, at_least=False, form="{:.2f}x"),))


def _three_servers(results: Results) -> Goal:
    ours, floor = (
        results.by_round("servers", case, "rate", servers=3, in_flight=32) for case in ("ours", "floor_c_topic")
    )
    part = Part("", results.ratio(ours, floor), 0.45, 0.6, form="{:.2f}x")
    return Goal("three servers, 32 in flight: calls/s", "C floor, topic, three servers", (part,))


def _batch(results: Results) -> Goal:
    # Each with the number of messages in flight that suits it best.
    single = results.by_round("batch", "ours", "rate", batch=1, in_flight=256)
    batches = results.by_round("batch", "ours", "rate", batch=BATCH, in_flight=4 * BATCH)
    part = Part("", results.ratio(batches, single), 4, 6, form="{:.1f}x")
    return Goal(f"batches of {BATCH} calls, four at a time: calls/s", "our own single calls, 256 in flight", (part,))


def _notifications(results: Results) -> Goal:
    ratio = _main(results, "ours", "floor_pyamqp_notify_tuned", suite="notify")
    part = Part("", ratio, 0.7, 0.9, form="{:.2f}x")
    return Goal("notifications, confirmed, pipelined: 1/s", "bare py-amqp, tuned, with confirms", (part,))


def _bodies(results: Results) -> Goal:
    parts = []
    for size in BODIES:
        ours, floor = (results.by_round("bodies", case, "bytes_rate", bytes=size) for case in ("ours", "floor_c_topic"))
        parts.append(Part(f"{size >> 10} KiB", results.ratio(ours, floor), 0.5, 0.8, form="{:.2f}x"))
    return Goal("bodies: bytes/s", "C floor, topic, with the same bodies", tuple(parts))


def _memory(results: Results) -> Goal:
    most = max(results.sizes("pending", "pending"), default=PENDING[-1])
    call = results.get("pending", "ours", "call_bytes", pending=most)
    clients = [results.get("memory", "ours", name) for name in ("first_bytes", "more_bytes")]
    return Goal(
        f"memory per pending call ({most:,} of them); per idle client",
        "over import",
        (
            _kib("a pending call", call, 2),
            _kib("the first idle client", clients[0], 2048),
            _kib("each further one", clients[1], 2048),
        ),
    )


def _kib(label: str, of: Figure | None, bound: float) -> Part:
    figure = None if of is None else of.scaled(1 / 1024)
    return Part(label, figure, bound, at_least=False, form="{:.1f} KiB" if bound < 100 else "{:.0f} KiB")


def _imports(results: Results) -> Goal:
    kombu = results.by_round("imports", "ours", "kombu_ms")
    parts = []
    for label, name in (("the package", "package_ms"), ("with what connecting imports", "connecting_ms")):
        ours = results.by_round("imports", "ours", name)
        more = figure(ours[number] - kombu[number] for number in ours.keys() & kombu.keys())
        parts.append(Part(label, more, 60, at_least=False, form="{:+.0f} ms"))
    return Goal("import time", "kombu's own import", tuple(parts))


def _scaling(results: Results) -> Goal:
    parts = (
        _of_ideal(results, f"{SLEEP_MS} ms sleep", "ours_sleep", SLEEP_MS, CONCURRENCY),
        _of_ideal(results, f"{BURN_MS} ms CPU", "ours_burn", BURN_MS, 1),
    )
    return Goal(f"1 to {SERVERS[-1]} server processes: the least share of linear while cores are free", "ideal", parts)


_LOOPS = {"asyncio's loop": "", "uvloop": "_uvloop"}


def _async_client(results: Results) -> Iterable[Goal]:
    """Compare ``AsyncClient`` with ``Client``, and with a peer on an event loop of the same kind."""

    def ratio(loop: str, other: str, value: str, in_flight: int) -> Figure | None:
        return _main(results, f"ours_aclient{_LOOPS[loop]}", other, value, in_flight, suite="asyncio")

    rates = (Part(loop, ratio(loop, "ours", "rate", 256), 0.9, 1.1, form="{:.2f}x") for loop in _LOOPS)
    yield Goal("`AsyncClient`, 256 in flight: calls/s", "`Client.submit`", tuple(rates))
    peer = {loop: f"aiopika_jsonrpc{suffix}" for loop, suffix in _LOOPS.items()}
    cpu = (
        Part(loop, ratio(loop, peer[loop], "client_cpu_us", 256), 1 / 9, 1 / 12, at_least=False, form="{:.3f}x")
        for loop in _LOOPS
    )
    yield Goal("`AsyncClient`, 256 in flight: CPU of the client", "aio-pika JsonRPC", tuple(cpu))
    callers = (
        ("`Client.call`", dict.fromkeys(_LOOPS, "ours"), 1.15, 1.0),
        ("aio-pika JsonRPC", peer, 0.45, 0.35),
    )
    p50 = (
        Part(f"{loop}, {label}", ratio(loop, other[loop], "p50_us", 1), goal, stretch, at_least=False, form="{:.2f}x")
        for label, other, goal, stretch in callers
        for loop in _LOOPS
    )
    yield Goal("`AsyncClient`, one at a time: p50", "; ".join(label for label, *_ in callers), tuple(p50))


# The cases of both ends on asyncio, by the names of their servers.
_SERVERS = {"`Server`": "ours_async", "`AsyncServer`": "ours_aserver"}


def _both_async(results: Results) -> Goal:
    wanted = (
        ("aio-pika JsonRPC", "aiopika_jsonrpc", 5.0, 7.0),
        ("pjrpc", "pjrpc", 14.0, 18.0),
        ("FastStream", "faststream", 12.0, 20.0),
    )
    parts = [
        Part(f"{server}, {label}", _main(results, case, peer, suite="asyncio"), goal, stretch, form="{:.1f}x")
        for server, case in _SERVERS.items()
        for label, peer, goal, stretch in wanted
    ]
    on_uvloop = _main(results, "ours_aserver_uvloop", "aiopika_jsonrpc_uvloop", suite="asyncio")
    parts.append(Part("`AsyncServer`, aio-pika JsonRPC, both on uvloop", on_uvloop, 5.0, 7.0, form="{:.1f}x"))
    return Goal("both ends on asyncio, `async def`, 256 in flight: calls/s", "other libraries", tuple(parts))


def _async_handlers(results: Results) -> Goal:
    sleeps = results.sizes("asyncio", "sleep_ms") or ASYNC_SLEEPS_MS
    parts = (
        Part(f"{server}, {sleep} ms", results.get("asyncio", f"{case}_sleep", "share", sleep_ms=sleep), 0.9)
        for server, case in _SERVERS.items()
        for sleep in sleeps
    )
    return Goal(f"{ASYNC_HANDLERS:,} `async def` handlers that sleep, one process: calls/s", "ideal", tuple(parts))


def _of_ideal(results: Results, label: str, case: str, milliseconds: int, at_a_time: int) -> Part:
    """Return the least share of the ideal throughput, over all numbers of processes that leave cores free."""
    shares: dict[int, Figure] = {}
    for count in results.sizes("servers", "servers"):
        rate = results.get("servers", case, "rate", servers=count)
        used = [results.get("servers", case, name, servers=count) for name in ("cores", "other_cores")]
        busy = sum(each.median for each in used if each)
        if rate is not None and busy <= _FULL * results.about["cores"]:
            shares[count] = rate.scaled(milliseconds / 1000 / at_a_time / count)
    what = f"up to {max(shares)} processes" if shares else "no measurement with free cores"
    return Part(f"{label}, {what}", min(shares.values(), default=None), 0.9)
