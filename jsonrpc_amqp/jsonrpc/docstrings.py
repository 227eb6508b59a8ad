"""
What a docstring says: its summary, and the sections Args, Returns and Raises of Google's style (pure).

A docstring in another style has a summary and a description.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# What a section is, by its title; others are a part of the description.
_PARTS = {
    **dict.fromkeys(("args", "arguments", "params", "parameters", "keyword args", "keyword arguments"), "params"),
    "returns": "returns",
    "raises": "raises",
}
_TITLE = re.compile(r"([A-Z][A-Za-z ]*):")
_EMPTY_LINES = re.compile(r"\n\s*\n")
# "name: ...", "name (type): ...", "*args: ...", "one, other: ...".
_ENTRY = re.compile(r"(?P<names>\*{0,2}[\w.]+(?:, *\*{0,2}[\w.]+)*) *(?:\([^()]*\))? *(?::(?: +|$)(?P<text>.*)|$)")


class Docstring(NamedTuple):
    """
    A docstring in parts; those that it does not have are empty.

    Attributes:
        summary: Its first paragraph, in one line.
        description: All else that is in none of the other parts, with line breaks.
        params: What it says of each parameter, by name.
        returns: What it says of the result.
        raises: What it says of each exception, by the name of its class as it is written.
    """

    summary: str
    description: str
    params: dict[str, str]
    returns: str
    raises: dict[str, str]


def parse(text: str | None) -> Docstring:
    """Return the parts of a docstring."""
    found: dict[str, list[str]] = {"": [], "params": [], "returns": [], "raises": []}
    for part, lines in _blocks(inspect.cleandoc(text or "").splitlines()):
        found[part] += ["", *lines]
    summary, *description = _EMPTY_LINES.split("\n".join(found[""]).strip(), maxsplit=1)
    return Docstring(
        _joined([summary]),
        "".join(description),
        dict(_entries(found["params"])),
        _joined(found["returns"]),
        dict(_entries(found["raises"])),
    )


def _blocks(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Return the lines of each section with the part that they are; of what is between them the part is empty."""
    part, block = "", list[str]()
    for line in lines:
        title = _TITLE.fullmatch(line.rstrip())
        begun = _PARTS.get(title[1].lower(), "") if title else ""
        if begun or (part and line[:1].strip()):  # a line that is not indented ends a section
            yield part, _dedented(block)
            part, block = begun, []
        if not begun:
            block.append(line)
    yield part, _dedented(block)


def _entries(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Return names and texts of the entries of a section; what is indented, or is none, goes on with the entry."""
    names, text = list[str](), list[str]()
    for line in lines:
        entry = _ENTRY.fullmatch(line.rstrip())
        if entry is None:
            text.append(line)
            continue
        yield from ((name, _joined(text)) for name in names)
        names = [name.strip().lstrip("*") for name in entry["names"].split(",")]
        text = [entry["text"] or ""]
    yield from ((name, _joined(text)) for name in names)


def _dedented(lines: Iterable[str]) -> list[str]:
    return textwrap.dedent("\n".join(lines)).splitlines()


def _joined(lines: Iterable[str]) -> str:
    """Return lines that are one text as one line."""
    return " ".join(" ".join(lines).split())
