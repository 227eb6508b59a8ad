"""Params of a call as Python has them (pure)."""

from __future__ import annotations

from collections import UserString
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


class SequenceNotStr(Protocol[T_co]):
    """
    A ``Sequence``, but for ``str`` and ``bytes``, for type checkers.

    ``__contains__`` makes the difference: those take only texts, or bytes and integers; other sequences take anything.
    """

    def __contains__(self, value: object, /) -> bool: ...
    def __getitem__(self, index: int, /) -> T_co: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[T_co]: ...
    def __reversed__(self) -> Iterator[T_co]: ...
    def index(self, value: Any, /) -> int: ...
    def count(self, value: Any, /) -> int: ...


Params = SequenceNotStr[Any] | Mapping[str, Any] | None
"""By position, by name, or none."""

_TEXTS = (str, bytes, bytearray, memoryview, UserString)


def plain(params: object) -> Any:
    """
    Return params as a list, tuple, dict or None; those as they are.

    Raises:
        TypeError: They are nothing that can be made one.
    """
    if params is None or isinstance(params, (list, tuple, dict)):
        return params
    if isinstance(params, Mapping):
        return dict(params)
    given = type(params).__name__
    if isinstance(params, _TEXTS):
        raise TypeError(f"params are a list or a dict, not {given}; put a single value in a list: [value]")
    if isinstance(params, Sequence):
        return list(params)
    raise TypeError(f"params are a list or other sequence, a dict or other mapping, or None, not {given}")
