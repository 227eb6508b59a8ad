"""The pages of the documentation whose programs are run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .references import ROOT


class Page:
    """
    One page, by its path from the repository.

    Attributes:
        text: What it says, in Markdown.
        programs: Its blocks of Python.
    """

    def __init__(self, path: str) -> None:
        self.path = ROOT / path
        self.text = self.path.read_text("utf-8")
        self.programs = re.findall(r"```python\n(.*?)```", self.text, re.DOTALL)

    @property
    def folder(self) -> Path:
        return self.path.parent

    def run(self, number: int, namespace: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run a program, in the namespace of the one that it continues or in a new one, and return that."""
        namespace = {"__name__": "page"} if namespace is None else namespace
        exec(compile(self.programs[number], self.path.name, "exec", dont_inherit=True), namespace)
        return namespace
