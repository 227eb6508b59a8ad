"""The suite that measures each optimisation on and off: its programs, and its table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks import peer
from benchmarks.cases import CASES
from benchmarks.lab import Lab
from benchmarks.lines import URL
from benchmarks.optimizations import (
    BASE,
    HANDLERS,
    IN_FLIGHT,
    NEITHER,
    NO_CALLER_DRIVEN,
    NO_INLINE,
    SUITE,
    Handler,
    optimization_table,
    optimizations,
)
from benchmarks.page import document
from benchmarks.samples import Results, Sample
from benchmarks.suites import SUITES
from jsonrpc_amqp.options import ConnectionOptions


def sample(case: str, round: int, *, rate: float, sleep_us: int = 0) -> Sample:
    params = {"sleep_us": sleep_us, "burn_us": 0, "in_flight": 32}
    return Sample(SUITE, case, round, params, {"rate": rate, "p50_us": 1e6 / rate, "both_cpu_us": 100.0})


def test_all_cases_of_a_handler_follow_each_other() -> None:
    assert SUITES[SUITE] is optimizations
    cases = [experiment.case for experiment in optimizations(Lab("amqp://", None, 1.0))]
    assert cases == [BASE, NO_CALLER_DRIVEN, NO_INLINE, NEITHER] * len(HANDLERS)
    assert IN_FLIGHT == (1, 32, 256)
    only = optimizations(Lab("amqp://", None, 1.0, only=[BASE, NO_INLINE]))
    assert [experiment.case for experiment in only] == [BASE, NO_INLINE] * len(HANDLERS)


def test_off_cases_set_the_flags_of_the_program() -> None:
    assert CASES[BASE].env == {}
    assert CASES[NO_CALLER_DRIVEN].env == {"BENCH_CALLER_DRIVES": "0"}
    assert CASES[NO_INLINE].env == {"BENCH_INLINE_JOBS": "0"}
    assert CASES[NEITHER].env == {"BENCH_CALLER_DRIVES": "0", "BENCH_INLINE_JOBS": "0"}


def test_the_program_makes_its_own_transport_with_all_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BENCH_CALLER_DRIVES", "BENCH_INLINE_JOBS"):
        monkeypatch.delenv(name, raising=False)
    assert peer.transport("client") is None


@pytest.mark.parametrize(
    ("env", "flags"),
    [
        ({"BENCH_CALLER_DRIVES": "0"}, {"caller_drives": False, "inline_jobs": True}),
        ({"BENCH_INLINE_JOBS": "0"}, {"caller_drives": True, "inline_jobs": False}),
        ({"BENCH_CALLER_DRIVES": "0", "BENCH_INLINE_JOBS": "0"}, {"caller_drives": False, "inline_jobs": False}),
    ],
)
def test_the_program_passes_the_flags_to_the_runtime(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], flags: dict[str, bool]
) -> None:
    made: list[Any] = []
    transport: Any = object()

    def connect(url: str, options: ConnectionOptions, *, runtime: Any) -> Any:
        made.append((url, options, runtime))
        return transport

    for name in ("BENCH_CALLER_DRIVES", "BENCH_INLINE_JOBS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("jsonrpc_amqp.runtime.threads.ThreadsRuntime", dict, raising=False)
    monkeypatch.setattr("jsonrpc_amqp.amqp.transport.connect_transport", connect)
    assert peer.transport("client") is transport
    [(url, options, runtime)] = made
    assert (url, runtime) == (URL, flags)
    # As those of a client that makes its own transport, but for the name.
    assert replace(options, name="") == ConnectionOptions(name="")
    assert options.name.startswith("jsonrpc-amqp client ")


def test_gains_are_taken_within_a_round() -> None:
    rates = {BASE: (110.0, 300.0), NO_INLINE: (100.0, 200.0)}
    samples = [sample(case, number, rate=rate) for case, of in rates.items() for number, rate in enumerate(of)]
    *_, row = optimization_table(Results({}, samples)).splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == ["inline", "returns at once", "32"]
    # Medians of 1/110 and 1/300 s; a shorter time is a gain.
    assert cells[3:6] == ["6,212", "7,500", "+21% (+9%..+33%)"]
    assert cells[6:9] == ["100", "100", "+0% (+0%..+0%)"]
    assert cells[9:] == ["205", "150", "+30% (+10%..+50%)"]


def test_rows_are_those_that_were_measured() -> None:
    samples = [sample(case, 0, rate=100.0, sleep_us=1000) for case in (BASE, NO_CALLER_DRIVEN)]
    _head, _rule, row = optimization_table(Results({}, samples)).splitlines()
    assert row.startswith("| caller-driven | sleeps 1 ms | 32 | 10,000 | 10,000 | +0% |")
    assert optimization_table(Results({})) == "Not measured in this run."


@pytest.mark.parametrize(
    ("handler", "text"),
    [(Handler(0, 0), "returns at once"), (Handler(200, 0), "sleeps 0.2 ms"), (Handler(0, 200), "computes 0.2 ms")],
)
def test_handlers_are_named(handler: Handler, text: str) -> None:
    assert str(handler) == text


def test_the_page_has_the_table() -> None:
    about = {
        "commit": "abc",
        "changed": False,
        "date": "2026-01-01",
        "rounds": 3,
        "seconds": 3.0,
        "cores": 2,
        "machine": "m",
        "versions": {},
        "peers": [],
    }
    samples = [sample(case, 0, rate=100.0) for case in (BASE, NO_INLINE)]
    page = document(Results(about, samples), [], "performance")
    assert "## Does each optimisation earn its place" in page
    assert "| inline | returns at once | 32 |" in page
