"""
Gives objects the defaults that msgspec leaves to their class (pure).

msgspec makes dataclasses and ``attrs`` classes without their constructor, and sets no attribute for a field that has a
default and no value: the class has it. But what writes the object as JSON reads the object alone, and would leave the
field out. Seen with msgspec 0.22 and 0.23.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from typing import Any, cast

from msgspec import NODEFAULT
from msgspec import inspect as shapes

Complete = Callable[[Any], object]
"""Sets what is missing in a value that was converted, and in all that is in it."""

_ARRAYS: dict[type, type] = {
    shapes.ListType: list,
    shapes.SetType: set,
    shapes.FrozenSetType: frozenset,
    shapes.VarTupleType: tuple,
}


def completer(shape: shapes.Type) -> Complete | None:
    """Return what sets defaults in values of a shape; None: in none of them one can be missing."""
    return _Completers(shape).of(shape)


class _Completers:
    """Those of a shape and of all in it; a recursive shape leads back to itself."""

    def __init__(self, shape: shapes.Type) -> None:
        children = {id(each): list(_children(each)) for each in _all(shape)}
        self._needed = {id(each) for each in _all(shape) if _defaults(each)}
        while found := {key for key, parts in children.items() if any(id(each) in self._needed for each in parts)}:
            if found <= self._needed:
                break
            self._needed |= found
        self._made: dict[int, Complete] = {}

    def of(self, shape: shapes.Type) -> Complete | None:
        if id(shape) not in self._needed:
            return None
        if id(shape) not in self._made:
            self._made[id(shape)] = lambda value: self._made[id(shape)](value)  # while it is made
            self._made[id(shape)] = self._make(shape)
        return self._made[id(shape)]

    def _make(self, shape: shapes.Type) -> Complete:
        if isinstance(shape, shapes.Metadata):
            return cast(Complete, self.of(shape.type))
        if type(shape) in _ARRAYS:
            of_item = cast(Complete, self.of(cast(Any, shape).item_type))
            return lambda value: [of_item(each) for each in value]
        if isinstance(shape, shapes.DictType):
            of_value = cast(Complete, self.of(shape.value_type))
            return lambda value: [of_value(each) for each in value.values()]
        if isinstance(shape, shapes.UnionType):
            by_type = {_class(each): found for each in shape.types if (found := self.of(each)) is not None}
            return lambda value: by_type.get(type(value), _nothing)(value)
        if isinstance(shape, shapes.TupleType):
            numbered = [(index, each) for index, part in enumerate(shape.item_types) if (each := self.of(part))]
            return lambda value: [each(value[index]) for index, each in numbered]
        fields = [(each.name, found) for each in cast(Any, shape).fields if (found := self.of(each.type)) is not None]
        if isinstance(shape, shapes.TypedDictType):
            return lambda value: [each(value[name]) for name, each in fields if name in value]
        return _of_object(_defaults(shape), fields)


def _nothing(_value: object) -> None:
    """Do what is to be done for a value in which nothing can be missing."""


def _of_object(defaults: dict[str, Any], fields: list[tuple[str, Complete]]) -> Complete:
    def complete(value: Any) -> None:
        if defaults:
            attributes = value.__dict__  # also of a frozen one
            for name, default in defaults.items():
                attributes.setdefault(name, default)
        for name, of_field in fields:
            of_field(getattr(value, name))

    return complete


def _defaults(shape: shapes.Type) -> dict[str, Any]:
    """Return the defaults that objects of a shape may lack."""
    if not isinstance(shape, shapes.DataclassType) or not hasattr(_class(shape), "__dictoffset__"):
        return {}
    if not _class(shape).__dictoffset__:  # those with slots have all
        return {}
    return {each.name: each.default for each in shape.fields if each.default is not NODEFAULT}


def _class(shape: Any) -> Any:
    """Return the class of the values of a shape, as far as it matters here."""
    if isinstance(shape, (shapes.DictType, shapes.TypedDictType)):
        return dict
    if isinstance(shape, shapes.TupleType):
        return tuple
    return _ARRAYS.get(type(shape)) or typing.get_origin(shape.cls) or shape.cls


def _children(shape: Any) -> Iterator[shapes.Type]:
    yield from (each.type for each in getattr(shape, "fields", ()))
    for name in ("item_type", "value_type", "type"):
        if (part := getattr(shape, name, None)) is not None:
            yield part
    yield from getattr(shape, "item_types", ())
    yield from getattr(shape, "types", ())


def _all(shape: shapes.Type) -> list[shapes.Type]:
    found, seen = [shape], {id(shape)}
    for each in found:
        for part in _children(each):
            if id(part) not in seen:
                seen.add(id(part))
                found.append(part)
    return found
