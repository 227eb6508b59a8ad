"""The methods of the server under test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .neighbour import Visits


def add(a: Any, b: Any) -> Any:
    return a + b


def echo(text: Any) -> Any:
    return text


def fail(text: str) -> None:
    raise ValueError(text)


def grow(size: int) -> str:
    return "x" * size


methods: dict[str, Callable[..., Any]] = {
    "add": add,
    "echo": echo,
    "fail": fail,
    "grow": grow,
    "visit": Visits(),
}
