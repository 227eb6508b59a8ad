"""docs/architecture.md names code, files and pages that exist."""

from __future__ import annotations

from ..references import ROOT, missing_code, missing_links

PAGE = ROOT / "docs" / "architecture.md"
TEXT = PAGE.read_text("utf-8")


def test_code_that_is_named_exists() -> None:
    assert missing_code(TEXT) == []


def test_links_lead_somewhere() -> None:
    assert missing_links(TEXT, PAGE.parent) == []
