"""The recorded figures for docs/security.md, in ``figures.json`` beside this file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("figures.json")


def read() -> dict[str, Any]:
    """Return all recorded figures, by topic."""
    found: dict[str, Any] = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {}
    return found


def note(what: str, figures: object) -> None:
    """Record the figures of a topic, in place of earlier ones."""
    kept = {**read(), what: figures}
    text = json.dumps({name: kept[name] for name in sorted(kept)}, indent=2, ensure_ascii=False)
    FILE.write_text(text + "\n", "utf-8")
