"""docs/interop.md says what was seen, and nothing else."""

from __future__ import annotations

import os

from ..tools import missing
from .peers import PAGE, PEERS, page, without_versions


def test_what_is_listed_was_seen(works: dict[str, list[str]]) -> None:
    """Run last: each peer on the page has passed a test in this run. ``INTEROP_WRITE=1`` writes the page anew."""
    unseen = [key for key in PEERS if not works.get(key)]
    if unseen:
        missing(f"these peers were not seen to work: {', '.join(unseen)}")
    assert set(works) <= set(PEERS), "these have no place on the page"
    written = page(works)
    if os.environ.get("INTEROP_WRITE"):
        PAGE.write_text(written, "utf-8")
    assert without_versions(PAGE.read_text("utf-8")) == without_versions(written), "run with INTEROP_WRITE=1"
