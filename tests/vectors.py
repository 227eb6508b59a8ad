"""The test vectors of tests/vectors/, as parameters of tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("vectors")


def cases(file: str, rule: str) -> pytest.MarkDecorator:
    """Parametrize with the inputs and expectations that the vectors have for one rule."""
    among = json.loads((FOLDER / file).read_text(encoding="utf-8"))["cases"]
    chosen = [pytest.param(case["inputs"], case["expected"], id=case["name"]) for case in among if case["rule"] == rule]
    assert chosen, rule
    return pytest.mark.parametrize(("inputs", "expected"), chosen)
