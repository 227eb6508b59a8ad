"""docs/guarantees.md is made from the tally, the marks of the cases and the template."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import record_of
from .guarantees import COLUMNS, TEMPLATE, document, read
from .tally import Record

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guarantees.md"


def record(key: str, **counted: object) -> Record:
    described = {"fault": f"{key} cut", "bound": "0 lost | hung", "mechanism": "confirms", "test": "test_x.py::test_y"}
    return Record(key, **{**described, "environment": "RabbitMQ 1, Python 2", **counted})  # type: ignore[arg-type]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the table's rows, without the heading."""
    table = [line.replace(r"\|", "or").strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in table[2:]]


def test_a_line_for_each_case_has_what_was_counted() -> None:
    worst = {"again": (1.25, 3.0), "close()": (0.5, 1.0)}
    one = record(
        "one", rounds=20, results=12345, errors={"B": 2, "A": 2, "C": 7}, bites={"lost calls": 9}, confirmed=4321
    )
    two = record("two", rounds=5, hung=1, late=2, wrong=3, worst=worst)
    first, second = (dict(zip(COLUMNS, row, strict=True)) for row in rows(document([one, two])))
    assert first["case"] == "`one`"
    assert first["what must hold"] == "0 lost or hung"
    assert first["rounds"] == "20"
    assert first["observed effect"] == "9 lost calls"
    assert first["calls and notifications"] == "12,345 results<br>7 `C`<br>2 `A`<br>2 `B`"
    assert first["lost"] == "0 of 4,321"
    assert second["lost"] == "none sent"
    assert second["hung, late, wrong"] == "1, 2, 3"
    assert second["worst time, and bound"] == "again 1.25 of 3 s<br>close() 0.5 of 1 s"


def test_each_kind_of_client_and_server_has_its_counts() -> None:
    ends = {
        "Client to def": {"results": 1000, "errors": 2, "confirmed": 1500, "lost": 1},
        "AsyncClient to async def": {"results": 5, "cancelled": 3},
    }
    one, two = record("one", ends=ends), record("two", ends={"AsyncClient to async def": {"results": 1}})
    text = document([one, two, record("three")])
    assert [row[-1] for row in rows(text)] == [
        "AsyncClient to async def: 5 results, 3 cancelled<br>Client to def: 1,000 results, 2 errors, 1 of 1,500 lost",
        "AsyncClient to async def: 1 results",
        "",
    ]
    assert "- AsyncClient to async def: 6 results, 3 cancelled\n- Client to def: 1,000 results" in text
    assert "- 1 of the cases were counted with `Client` and methods on threads only." in text


def test_totals_and_environments_are_of_all_cases() -> None:
    one = record("one", rounds=20, results=1000, errors={"A": 3}, confirmed=5)
    two = record("two", rounds=5, results=234, errors={"A": 1, "B": 1}, confirmed=2, environment="RabbitMQ 0, Python 2")
    text = document([one, two, record("three")])
    assert "3 cases, 25 rounds: 1,234 results, 5 errors, 7 confirmed notifications." in text
    assert "On RabbitMQ 0, Python 2; RabbitMQ 1, Python 2, all" in text


def test_the_newest_record_of_a_case_counts(tmp_path: Path) -> None:
    tally = tmp_path / "tally"
    for each in (record("one", rounds=1), record("two", rounds=2), record("one", rounds=3)):
        each.write(tally)
    assert [(each.key, each.rounds) for each in read(tally.read_text().splitlines())] == [("one", 3), ("two", 2)]


def test_as_a_program_it_writes_the_document(tmp_path: Path) -> None:
    tally, target = tmp_path / "tally", tmp_path / "guarantees.md"
    one = record("one", rounds=20, worst={"again": (1.2, 3.0)})
    one.write(tally)
    command = [sys.executable, "-m", "tests.faults.guarantees", str(tally), str(target)]
    subprocess.run(command, cwd=ROOT, timeout=30, check=True)
    assert target.read_text() == document(read(tally.read_text().splitlines()))


def test_every_case_has_its_line(request: pytest.FixtureRequest) -> None:
    shown = [tuple(row[:5]) for row in rows(PAGE.read_text("utf-8"))]
    cases = [item for item in request.session.items if item.get_closest_marker("fault")]
    assert [line for line in map(line_of, cases) if line not in shown] == []


def line_of(item: pytest.Item) -> tuple[str, ...]:
    """Return the cells of a case that do not depend on a run."""
    record = record_of(item)
    return f"`{record.key}`", record.fault, record.bound, record.mechanism, f"`{record.test}`"


def test_the_page_has_the_prose_of_the_template() -> None:
    prose = re.escape(TEMPLATE.read_text("utf-8"))
    assert re.fullmatch(re.sub(r"\\\$[a-z]+", "(?s:.*)", prose), PAGE.read_text("utf-8"))
