"""Samples: what counts, medians, ratios."""

from __future__ import annotations

from typing import Any

from benchmarks.samples import Figure, Results, Sample


def test_wrong_replies_are_named_and_do_not_count() -> None:
    fast = Sample("main", "ours", 0, {"in_flight": 256}, {"rate": 9.0, "bad": 1.0})
    slow = Sample("main", "ours", 1, {"in_flight": 256}, {"rate": 5.0, "bad": 0.0})
    made = Results({}, [fast, slow])
    assert made.get("main", "ours", "rate", in_flight=256) == Figure(5.0, 5.0, 5.0, 1)
    assert made.failures() == ["main: ours (in_flight 256): 1 wrong or missing replies"]


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
