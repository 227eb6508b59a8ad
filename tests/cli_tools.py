"""Checks of what commands print."""

from __future__ import annotations

SECRET = "sentinel-7f3a"  # in the place of a password; never in any output


def one_line(text: str) -> str:
    assert text.endswith("\n")
    (line,) = text.splitlines()
    assert line.isprintable()
    assert SECRET not in line
    return line
