"""What a service says of itself (pure)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Info:
    """
    What a service says of itself; see ``Server``.

    Raises:
        TypeError: A part of it is no text.
    """

    title: str
    version: str = "0"
    description: str | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, str) and (name, value) != ("description", None):
                raise TypeError(f"the {name} of a service is a text, not {value!r}")
