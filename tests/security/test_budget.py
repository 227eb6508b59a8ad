"""What hostile input costs, for each of its bytes, is within what docs/security.md promises."""

from __future__ import annotations

import pytest

from .budget import CASES, MOST_BYTES, MOST_NANOSECONDS, Spent, measure

# For a slow machine. What is quadratic takes a hundred times as long, or more.
SLACK = 5


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CASES)
def test_hostile_input_costs_what_is_promised(spent: dict[str, Spent], name: str) -> None:
    spent[name] = measure(name)
    assert spent[name].bytes <= MOST_BYTES
    assert spent[name].nanoseconds <= SLACK * MOST_NANOSECONDS
