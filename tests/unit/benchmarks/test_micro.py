"""The micro benchmark: its steps run, and have a baseline."""

from __future__ import annotations

import json

from benchmarks import micro


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
