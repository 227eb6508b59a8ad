"""docs/interop.md lists what was tested, and nothing else."""

from __future__ import annotations

import os
import re

import pytest

from ..tools import missing
from .peers import PAGE, PEERS, TEMPLATE, page, without_versions


def test_what_is_listed_was_seen(works: dict[str, list[str]]) -> None:
    """Runs last: each peer on the page has passed a test in this run. ``INTEROP_WRITE=1`` writes the page."""
    unseen = [key for key in PEERS if not works.get(key)]
    if unseen:
        missing(f"these peers were not seen to work: {', '.join(unseen)}")
    assert set(works) <= set(PEERS), "these have no place on the page"
    written = page(works)
    if os.environ.get("INTEROP_WRITE"):
        PAGE.write_text(written, "utf-8")
    assert without_versions(PAGE.read_text("utf-8")) == without_versions(written), "run with INTEROP_WRITE=1"


def test_every_test_has_its_words_on_the_page(request: pytest.FixtureRequest) -> None:
    """Needs none of the peers, so that a changed text is noticed on every machine."""
    lines = [line.strip("|").split(" | ") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|")]
    shown = {tuple(map(str.strip, (line[0], *line[2:4], line[5]))): line[4] for line in lines if len(line) == 6}
    marks = [mark for item in request.session.items for mark in item.iter_markers("peer")]
    for mark in marks:
        peer = PEERS[mark.args[0]]
        row = (peer.name, peer.direction, peer.program, peer.limits or "nothing known")
        assert mark.kwargs["works"] in shown[row].strip().split("<br>"), mark


def test_the_page_has_the_prose_of_the_template() -> None:
    prose = re.escape(TEMPLATE.read_text("utf-8"))
    assert re.fullmatch(prose.replace(re.escape("$table"), "(?s:.*)"), PAGE.read_text("utf-8"))
