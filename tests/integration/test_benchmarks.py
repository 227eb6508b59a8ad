"""The benchmarks run, on ours and the floor in Python: figures, goals and tables come out of it. No speed is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases, lab, micro, runner, suites, tables
from benchmarks.goals import Part, goals
from benchmarks.page import document
from benchmarks.samples import Figure, Results, Sample

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


def test_wrong_answers_are_named_and_do_not_count() -> None:
    fast = Sample("main", "ours", 0, {"in_flight": 256}, {"rate": 9.0, "bad": 1.0})
    slow = Sample("main", "ours", 1, {"in_flight": 256}, {"rate": 5.0, "bad": 0.0})
    made = Results({}, [fast, slow])
    assert made.get("main", "ours", "rate", in_flight=256) == Figure(5.0, 5.0, 5.0, 1)
    assert made.failures() == ["main: ours (in_flight 256): 1 wrong or missing answers"]


def test_ratios_are_taken_within_a_round() -> None:
    values: list[dict[str, Any]] = [
        {"ours": 4.0, "floor": 8.0},
        {"ours": 9.0, "floor": 10.0},
        {"ours": 3.0, "floor": 5.0},
    ]
    samples = [
        Sample("main", case, number, {}, {"rate": rate})
        for number, each in enumerate(values)
        for case, rate in each.items()
    ]
    made = Results({}, samples)
    ratio = made.ratio(made.by_round("main", "ours", "rate"), made.by_round("main", "floor", "rate"))
    assert ratio == Figure(0.6, 0.5, 0.9, 3)


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.59, "missed"), (0.6, "reached"), (0.74, "reached"), (0.75, "stretch")]
)
def test_verdict_more_is_better(value: float, verdict: str) -> None:
    assert Part("", Figure(value, value, value), 0.6, 0.75).verdict == verdict


@pytest.mark.parametrize(("value", "verdict"), [(2.6, "missed"), (2.5, "reached"), (1.5, "stretch")])
def test_verdict_less_is_better(value: float, verdict: str) -> None:
    assert Part("", Figure(value, value, value), 2.5, 1.5, at_least=False).verdict == verdict


def test_cost_of_a_step_is_compared_with_the_baseline() -> None:
    kind = micro.Kind("time", "µs", 1e6, 0.3, {micro.YARDSTICK: 2.0, "same": 4.0, "slower": 5.4, "new": 1.0})
    found = list(micro.worse(kind, {micro.YARDSTICK: 1.0, "same": 1.6, "slower": 2.0}))
    assert found == ["slower: +35% time, where +30% is tolerated", "new: time has no baseline"]


def test_steps_that_are_costed_run() -> None:
    # What they use of the package is still there.
    for step in micro.steps().values():
        step()


def test_every_step_has_a_baseline() -> None:
    known = json.loads(micro.BASELINE.read_text())
    for version, baseline in known.items():
        assert baseline["time"].keys() == baseline["instructions"].keys() == micro.steps().keys(), version


def test_command_lists_cases() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "cases"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "* floor_c_topic" in done.stdout
