"""Verdicts on goals."""

from __future__ import annotations

import pytest

from benchmarks.goals import Part, goals
from benchmarks.samples import Figure, Results, Sample


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.59, "missed"), (0.6, "reached"), (0.74, "reached"), (0.75, "stretch")]
)
def test_verdict_more_is_better(value: float, verdict: str) -> None:
    assert Part("", Figure(value, value, value), 0.6, 0.75).verdict == verdict


@pytest.mark.parametrize(("value", "verdict"), [(2.6, "missed"), (2.5, "reached"), (1.5, "stretch")])
def test_verdict_less_is_better(value: float, verdict: str) -> None:
    assert Part("", Figure(value, value, value), 2.5, 1.5, at_least=False).verdict == verdict


def test_asyncio_is_compared_with_threads_and_with_peers_on_the_same_loop() -> None:
    def sample(case: str, in_flight: int, **values: float) -> Sample:
        return Sample("asyncio", case, 0, {"in_flight": in_flight}, values)

    results = Results(
        {"cores": 2},
        [
            sample("ours", 256, rate=100.0, client_cpu_us=40.0),
            sample("ours_aclient", 256, rate=90.0, client_cpu_us=40.0),
            sample("ours_aclient_uvloop", 256, rate=120.0, client_cpu_us=40.0),
            sample("ours_async", 256, rate=80.0),
            sample("aiopika_jsonrpc", 256, rate=16.0, client_cpu_us=400.0),
            sample("aiopika_jsonrpc_uvloop", 256, rate=20.0, client_cpu_us=200.0),
            sample("ours", 1, p50_us=100.0),
            sample("ours_aclient", 1, p50_us=110.0),
            sample("aiopika_jsonrpc", 1, p50_us=200.0),
            sample("ours_aserver", 256, rate=160.0),
            sample("ours_aserver_uvloop", 256, rate=180.0),
            Sample("asyncio", "ours_async_sleep", 0, {"sleep_ms": 100}, {"share": 0.95}),
        ],
    )
    parts = {f"{goal.measure} {part.label}": part for goal in goals(results) for part in goal.parts}
    measured = {name: part.measured() for name, part in parts.items() if part.figure is not None}
    client, both = "`AsyncClient`, 256 in flight", "both ends on asyncio, `async def`, 256 in flight"
    assert measured == {
        f"{client}: calls/s asyncio's loop": "0.90x",
        f"{client}: calls/s uvloop": "1.20x",
        f"{client}: CPU of the client asyncio's loop": "0.100x",
        f"{client}: CPU of the client uvloop": "0.200x",
        "`AsyncClient`, one at a time: p50 asyncio's loop, `Client.call`": "1.10x",
        "`AsyncClient`, one at a time: p50 asyncio's loop, aio-pika JsonRPC": "0.55x",
        f"{both}: calls/s `Server`, aio-pika JsonRPC": "5.0x",
        f"{both}: calls/s `AsyncServer`, aio-pika JsonRPC": "10.0x",
        f"{both}: calls/s `AsyncServer`, aio-pika JsonRPC, both on uvloop": "9.0x",
        "1,000 `async def` handlers that sleep, one process: calls/s `Server`, 100 ms": "0.95",
    }
