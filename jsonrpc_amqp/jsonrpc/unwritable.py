"""
Which part of a value JSON has no form for, and where it is (pure).

Only a value that could not be written is searched. The search is bounded all the same: a value may be huge, nested
without end, or contain itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from enum import Enum
from math import isfinite
from typing import Any

# A part takes about a microsecond.
_MOST_PARTS = 100_000
# Of a path; those in the middle of a longer one are left out.
_MOST_STEPS = 20
_LONGEST_STEP = 40
_LONGEST_TYPE = 100
_LEAVES = frozenset((str, int, float, bool, type(None)))


def explain(value: Any, *, encode: Callable[[Any], bytes], max_depth: int, unset: object) -> str | None:
    """
    Return where in a value the first part is that cannot be written, and why: ``params.items[3]: JSON has no form...``.

    Args:
        value: It was not written.
        encode: Writes a value, or raises; a ``TypeError`` for a type that has no form.
        max_depth: Most arrays and objects inside one another.
        unset: An attribute with this value is not written.

    Returns:
        A text of a few hundred characters, or None if no such part was found.
    """
    try:
        return _Search(encode, max_depth, unset).run(value)
    # A value that another thread changes meanwhile, for example: its own error says enough.
    except Exception:
        return None


def no_form(value: Any) -> str:
    """Return what is said of a value of a type that JSON has no form for."""
    return f"JSON has no form for {_full_name(type(value))}"


def no_name(key: Any) -> str:
    """Return what is said of a key whose type is not written as the name of a member."""
    return f"{no_form(key)} as the name of a member (a key of a dict); names are strings"


@dataclasses.dataclass(slots=True)
class _Level:
    """An array or object, what is left of its members, and the key or index of the current one."""

    container: Any
    members: Iterator[tuple[Any, Any]]
    key: Any = None


class _Search:
    """Visits the parts of a value in the order in which they are written. It does not recurse: a value may be deep."""

    def __init__(self, encode: Callable[[Any], bytes], max_depth: int, unset: object) -> None:
        self._encode = encode
        self._max_depth = max_depth
        self._unset = unset
        self._levels: list[_Level] = []
        self._open: set[int] = set()

    def run(self, value: Any) -> str | None:
        levels = self._levels
        self._enter(None, iter([(None, value)]))
        for _ in range(_MOST_PARTS):
            level = levels[-1]
            member = next(level.members, None)
            if member is not None:
                level.key, part = member
                if (found := self._visit(level, part)) is not None:
                    return found
            elif len(levels) > 1:
                self._open.remove(id(levels.pop().container))
            else:
                break
        return None

    def _visit(self, level: _Level, part: Any) -> str | None:
        """Return what is to be said of a part. If there is nothing, its own members are next."""
        if isinstance(level.container, dict) and (reason := self._why_no_name(level.key)) is not None:
            return self._message(self._levels[1:-1], reason)
        if isinstance(part, Enum):
            part = part._value_
        members = self._members(part)
        reason = self._why_no_leaf(part) if members is None else self._why_no_container(part)
        if reason is not None:
            return self._message(self._levels[1:], reason)
        if members is not None:
            self._enter(part, members)
        return None

    def _enter(self, container: Any, members: Iterator[tuple[Any, Any]]) -> None:
        self._levels.append(_Level(container, members))
        self._open.add(id(container))

    def _members(self, part: Any) -> Iterator[tuple[Any, Any]] | None:
        """Return what an array or object contains, with its keys, indexes or names; None if it is neither."""
        if type(part) in _LEAVES:
            return None  # most parts
        if isinstance(part, dict):
            return iter(dict.items(part))
        if isinstance(part, (list, tuple, set, frozenset)):
            return enumerate(part)
        names = _attributes(part)
        if names is None:
            return None
        found = ((name, getattr(part, name, self._unset)) for name in names)
        return ((name, member) for name, member in found if member is not self._unset)

    def _why_no_name(self, key: Any) -> str | None:
        try:
            self._encode({key: None})
        except TypeError:
            return no_name(key)
        except Exception as exc:
            return str(exc)
        return None

    def _why_no_leaf(self, part: Any) -> str | None:
        if isinstance(part, float) and not isfinite(part):
            return "NaN and Infinity have no form in JSON"
        try:
            self._encode(part)
        except Exception as exc:
            return str(exc)
        return None

    def _why_no_container(self, part: Any) -> str | None:
        if id(part) in self._open:
            return "JSON has no form for a value that contains itself"
        if len(self._levels) > self._max_depth:
            return f"nested deeper than {self._max_depth} levels"
        return None

    def _message(self, levels: list[_Level], reason: str) -> str:
        half = _MOST_STEPS // 2
        if len(levels) <= _MOST_STEPS:
            steps = [self._step(level) for level in levels]
        else:
            steps = [*map(self._step, levels[:half]), "...", *map(self._step, levels[-half:])]
        path = "".join(steps).removeprefix(".")
        return f"{path}: {reason}" if path else reason

    def _step(self, level: _Level) -> str:
        key = level.key
        if isinstance(level.container, (list, tuple, set, frozenset)):
            return f"[{key}]"
        # The name that it has in JSON. Not the text that a class of the user's makes of itself.
        name = str.__str__(key) if isinstance(key, str) else self._encode(key).decode().strip('"')
        if name.isidentifier() and len(name) <= _LONGEST_STEP:
            return f".{name}"
        return f"['{_cut(repr(name[: _LONGEST_STEP + 1])[1:-1], _LONGEST_STEP)}']"


def _attributes(part: Any) -> list[str] | None:
    """Return the names of the attributes that are written of a dataclass or the like; None if it is none."""
    kind = type(part)
    if hasattr(kind, "__struct_fields__"):
        return list(kind.__struct_fields__)
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    if hasattr(kind, "__attrs_attrs__"):
        return [each.name for each in kind.__attrs_attrs__ if not each.name.startswith("_")]
    return None


def _full_name(kind: type) -> str:
    # Either may be anything: a class can be made with any text as its name.
    module, name = kind.__module__, kind.__qualname__
    return _cut(repr(name if module == "builtins" else f"{module}.{name}")[1:-1], _LONGEST_TYPE)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
