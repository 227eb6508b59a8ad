"""The benchmarks run, on ours and the floor in Python, and produce figures, goals and tables. No speed is asserted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import cases, lab, runner, suites, tables
from benchmarks.goals import goals
from benchmarks.page import document
from benchmarks.samples import Results

from ..broker import Broker

ROOT = Path(__file__).parents[2]


@pytest.fixture
def results(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    """A short run of two suites."""
    monkeypatch.setattr(cases, "WORK", tmp_path / "work")
    monkeypatch.setattr(lab, "WORK", tmp_path / "work")
    monkeypatch.setattr(suites, "MAIN", (1, 16))
    where = lab.Lab(broker.url, broker.pid, 0.1, ["ours", "floor_pyamqp_topic_tuned", "floor_pyamqp_notify_tuned"])
    made = Results(runner.about(where, rounds=2, broker=broker.version))
    runner.run(where, ["main", "notify"], rounds=2, results=made, out=tmp_path / "results.json")
    left = [row["name"] for row in broker.list("queues", "name") if row["name"].startswith("bench-")]
    assert not left
    return Results.read(tmp_path / "results.json")


def test_run_gives_figures_goals_and_tables(results: Results) -> None:
    assert results.failures() == []
    for case in ("ours", "floor_pyamqp_topic_tuned"):
        for in_flight in (1, 16):
            rates = results.by_round("main", case, "rate", in_flight=in_flight)
            assert rates.keys() == {0, 1}
            for value in ("rate", "p50_us", "p99_us", "client_cpu_us", "server_cpu_us", "broker_cpu_us"):
                assert all(each > 0 for each in results.by_round("main", case, value, in_flight=in_flight).values())
    by_measure = {goal.measure: goal for goal in goals(results)}
    bare = by_measure["one at a time: p50"].parts[1]
    assert bare.figure is not None
    assert bare.figure.low <= bare.figure.median <= bare.figure.high
    assert by_measure["notifications, confirmed, pipelined: 1/s"].verdict != "not measured"
    # Nobody was there to compare with.
    assert by_measure["256 in flight, topic reply: calls/s"].verdict == "not measured"

    goal_rows = tables.goal_table(results).splitlines()
    assert len(goal_rows) == len(by_measure) + 2
    shown = tables.suite_tables(results)
    assert "### 16 in flight" in shown
    assert "### Notifications, confirmed" in shown
    page = document(results, ["latency"], "performance")
    assert "**A short run**: 2 round(s) of 0.1 s" in page
    assert goal_rows[2] in page
    assert "performance/latency.svg" in page


def test_program_that_cannot_run_is_named(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = cases.Case("broken", "peer", "no_such_module")
    monkeypatch.setattr(suites, "FLOORS", ("broken",))
    monkeypatch.setattr(cases, "CASES", {"broken": broken})
    monkeypatch.setattr(lab, "CASES", {"broken": broken})
    made = Results({})
    runner.run(lab.Lab(broker.url, None, 0.1, ["broken"]), ["main"], rounds=1, results=made)
    [failure] = made.failures()
    assert failure.startswith("main: broken: ended with status 1")
    assert "no_such_module" in failure


def test_command_lists_cases() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "cases"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "* floor_c_topic" in done.stdout


def test_asyncio_is_measured(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "WORK", tmp_path / "work")
    monkeypatch.setattr(lab, "WORK", tmp_path / "work")
    monkeypatch.setattr(suites, "ASYNC_HANDLERS", 20)
    monkeypatch.setattr(suites, "ASYNC_SLEEPS_MS", (10,))
    ours = [*suites.ASYNC_CLIENTS, *suites.ASYNC_SERVERS]
    made = Results({"cores": 2})
    runner.run(lab.Lab(broker.url, broker.pid, 0.1, ours), ["asyncio"], rounds=1, results=made)
    assert made.failures() == []
    slept = suites.ASYNC_SERVERS[:2]
    assert made.cases("asyncio") == [
        *suites.ASYNC_CLIENTS,
        *reversed(suites.ASYNC_SERVERS),
        *(f"{case}_sleep" for case in slept),
    ]
    for case in slept:
        share = made.get("asyncio", f"{case}_sleep", "share", sleep_ms=10)
        # Two waves of all handlers cannot end sooner, so no more ran at a time.
        assert share is not None
        assert 0 < share.median <= 1
    assert "### On asyncio" in tables.suite_tables(made)
