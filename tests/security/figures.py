"""What tests counted, kept for docs/security.md: ``figures.json`` beside this file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("figures.json")


def read() -> dict[str, Any]:
    """Give all of it, by what was counted."""
    found: dict[str, Any] = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {}
    return found


def note(what: str, figures: object) -> None:
    """Keep the figures of one thing in the place of what was kept of it before."""
    kept = {**read(), what: figures}
    text = json.dumps({name: kept[name] for name in sorted(kept)}, indent=2, ensure_ascii=False)
    FILE.write_text(text + "\n", "utf-8")
