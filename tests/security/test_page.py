"""docs/security.md lists what was observed, and nothing else."""

from __future__ import annotations

import os

from ..abuse.corpus import REPLIES, REQUESTS
from . import figures, page
from .attacks import ATTACKS
from .budget import CASES, MOST_BYTES, MOST_NANOSECONDS, Spent
from .disruptions import DISRUPTIONS, WAYS
from .http_attacks import HTTP_ATTACKS
from .node import Node
from .test_tls import ROWS

WRITE = bool(os.environ.get("SECURITY_WRITE"))


def test_what_is_listed_was_seen(
    node: Node, seen: dict[str, dict[str, str]], tls_rows: dict[str, tuple[str, str]]
) -> None:
    """Runs after all others; ``SECURITY_WRITE=1`` records what they have observed."""
    rows = {key: list(row) for key, row in tls_rows.items()}
    if WRITE:
        assert {key: set(ends) for key, ends in seen.items()} == {key: set(page.COLUMNS) for key in ATTACKS}
        assert set(rows) == set(ROWS)
        figures.note("version", node.broker.version)
        figures.note("attacks", seen)
        figures.note("tls", rows)
    known = figures.read()
    assert (set(known["attacks"]), set(known["tls"])) == (set(ATTACKS), set(ROWS)), "run with SECURITY_WRITE=1"
    assert rows.items() <= known["tls"].items(), "run with SECURITY_WRITE=1"
    if node.broker.version == known["version"]:  # other versions refuse more, or less
        for key, ends in seen.items():
            assert ends.items() <= known["attacks"][key].items(), "run with SECURITY_WRITE=1"


def test_the_disruptions_that_are_listed_were_seen(node: Node, disrupted: dict[str, dict[str, str]]) -> None:
    is_complete = all(set(disrupted[key]) == {"without", *WAYS} for key in DISRUPTIONS)
    if WRITE and is_complete:
        figures.note("disruptions", disrupted)
    known = figures.read()
    assert set(known["disruptions"]) == set(DISRUPTIONS), "run with SECURITY_WRITE=1"
    if node.broker.version == known["version"]:
        for key, ends in disrupted.items():
            assert ends.items() <= known["disruptions"][key].items(), "run with SECURITY_WRITE=1"


def test_what_is_listed_over_http_was_seen(http_seen: dict[str, dict[str, str]]) -> None:
    if WRITE:
        assert {key: set(ends) for key, ends in http_seen.items()} == {
            key: set(page.HTTP_COLUMNS) for key in HTTP_ATTACKS
        }
        figures.note("http", http_seen)
    known = figures.read()["http"]
    assert set(known) == set(HTTP_ATTACKS), "run with SECURITY_WRITE=1"
    for key, ends in http_seen.items():
        assert ends.items() <= known[key].items(), "run with SECURITY_WRITE=1"


def test_the_corpus_is_the_one_that_was_counted(
    abused: dict[str, dict[str, int]], slowed: dict[str, dict[str, float]]
) -> None:
    if WRITE and len(abused["server"]) == len(REQUESTS) and len(abused["client"]) == len(REPLIES):
        figures.note("abuse", {who: page.abused(growth, slowed[who]) for who, growth in abused.items()})
    known = figures.read()["abuse"]
    assert known["server"]["cases"] == len(REQUESTS), "run with SECURITY_WRITE=1, tests/abuse as well"
    assert known["client"]["cases"] == len(REPLIES), "run with SECURITY_WRITE=1, tests/abuse as well"


def test_the_budget_is_the_one_that_was_measured(spent: dict[str, Spent]) -> None:
    if WRITE and set(spent) == set(CASES):
        figures.note("budget", {key: [round(each, 1) for each in spent[key]] for key in CASES})
    known = figures.read()["budget"]
    assert set(known) == set(CASES), "run with SECURITY_WRITE=1"
    assert all(ns <= MOST_NANOSECONDS and size <= MOST_BYTES for ns, size in known.values())


def test_the_page_has_what_was_noted() -> None:
    written = page.document(figures.read())
    if WRITE:
        page.PAGE.write_text(written, "utf-8")
    assert page.PAGE.read_text("utf-8") == written, "run with SECURITY_WRITE=1"
