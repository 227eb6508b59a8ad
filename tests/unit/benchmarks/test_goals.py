"""Verdicts on goals."""

from __future__ import annotations

import pytest

from benchmarks.goals import Part
from benchmarks.samples import Figure


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.59, "missed"), (0.6, "reached"), (0.74, "reached"), (0.75, "stretch")]
)
def test_verdict_more_is_better(value: float, verdict: str) -> None:
    assert Part("", Figure(value, value, value), 0.6, 0.75).verdict == verdict


@pytest.mark.parametrize(("value", "verdict"), [(2.6, "missed"), (2.5, "reached"), (1.5, "stretch")])
def test_verdict_less_is_better(value: float, verdict: str) -> None:
    assert Part("", Figure(value, value, value), 2.5, 1.5, at_least=False).verdict == verdict
