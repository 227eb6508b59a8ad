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


def test_suites_of_another_run_replace_those_of_this_one() -> None:
    def run(commit: str, *samples: Sample) -> Results:
        return Results({"commit": commit, "changed": False, "date": "d", "rounds": 3, "seconds": 3.0}, samples)

    made = run("old", Sample("main", "ours", 0, {}, {"rate": 1.0}), Sample("notify", "ours", 0, {}, {"rate": 2.0}))
    made.replace_suites(run("new", Sample("notify", "ours", 0, {}, {"rate": 3.0, "other_cores": 1.5})))
    assert made.get("main", "ours", "rate") == Figure(1.0, 1.0, 1.0, 1)
    assert made.get("notify", "ours", "rate") == Figure(3.0, 3.0, 3.0, 1)
    assert made.about["commit"] == "old"
    assert (made.other_cores(), made.other_cores("notify")) == (None, Figure(1.5, 1.5, 1.5, 1))
    assert {suite: about["commit"] for suite, about in made.about["apart"].items()} == {"notify": "new"}
    made.replace_suites(run("newer", Sample("bodies", "ours", 0, {}, {"rate": 4.0})))
    assert {suite: about["commit"] for suite, about in made.about["apart"].items()} == {
        "notify": "new",
        "bodies": "newer",
    }
