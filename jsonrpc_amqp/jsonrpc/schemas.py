"""
The JSON Schemas of type hints, made by what converts to them: msgspec, or pydantic (pure).

They are written as draft 7 has them, which OpenRPC asks for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from .conversion import needs_pydantic
from .text import dumps

logger = logging.getLogger("jsonrpc_amqp.dispatch")

Schema = dict[str, Any]

PLACE = "#/components/schemas/"
"""What references to shared schemas begin with."""

_REFERENCE = PLACE + "{name}"
# Members of a schema that hold values, and those that hold schemas by names of the user's.
_VALUES = frozenset({"const", "default", "enum", "examples"})
_NAMED = frozenset({"$defs", "definitions", "patternProperties", "properties"})
# The first is a word of OpenAPI.
_LEFT_OUT = frozenset({"discriminator", "$comment"})
# For any value. To msgspec, ``{}`` is no schema.
_ANY = {"$comment": "any value"}


class Declared(NamedTuple):
    """A type hint of a parameter, or one of a result: what is read may have another form than what is written."""

    hint: Any
    is_result: bool = False


class Schemas(NamedTuple):
    """
    The schemas of some hints.

    Attributes:
        each: One for each hint, in their order; ``{}`` for one that has none, as it has for any value.
        shared: Those of classes, by name; the others refer to them.
    """

    each: list[Schema]
    shared: dict[str, Schema]


def schemas_of(declared: Sequence[Declared]) -> Schemas:
    """Return the schemas of hints. It never raises because of a hint: what has no schema is any value."""
    each: list[Schema] = [{} for _one in declared]
    shared: dict[str, Schema] = {}
    for make in (_by_msgspec, _by_pydantic):
        # All at once, so that classes of the same name get names of their own; those alone that have a schema.
        places = [place for place, one in enumerate(declared) if _maker(one.hint) is make and _has_schema(one, make)]
        found, definitions = make([declared[place] for place in places])
        names = {name: _free_name(name, shared) for name in definitions}
        shared |= {names[name]: _adapted(schema, names) for name, schema in definitions.items()}
        for place, schema in zip(places, found, strict=True):
            each[place] = _adapted(schema, names)
    return Schemas(each, shared)


_Made = tuple[Sequence[Schema], Mapping[str, Schema]]
_Make = Callable[[Sequence[Declared]], _Made]


def _maker(hint: Any) -> _Make | None:
    """Return what makes the schema of a hint; None: nothing does."""
    try:
        return _by_pydantic if needs_pydantic(hint) else _by_msgspec
    except TypeError:
        return None


def _by_msgspec(declared: Sequence[Declared]) -> _Made:
    # Where it converts to what it knows no type of, such as ``object``, it lets any value pass.
    return msgspec.json.schema_components(
        [each.hint for each in declared], schema_hook=lambda _kind: _ANY, ref_template=_REFERENCE
    )


def _by_pydantic(declared: Sequence[Declared]) -> _Made:
    if not declared:
        return [], {}
    from . import pydantic_types

    return pydantic_types.schemas([(each.hint, each.is_result) for each in declared], _REFERENCE)


def _has_schema(one: Declared, make: _Make) -> bool:
    try:
        dumps(make([one]))  # a default that is NaN, for example, would spoil the others, too
    # Of many classes; hints are code of the user's.
    except Exception:
        logger.debug("the hint %r has no schema", one.hint, exc_info=True)
        return False
    return True


def _free_name(name: str, taken: Mapping[str, Schema]) -> str:
    """Return a name that no other schema has."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _adapted(schema: Any, names: Mapping[str, str]) -> Any:
    """Return a schema in the words of draft 7, with references to other names."""
    if not isinstance(schema, dict):
        return [_adapted(each, names) for each in schema] if isinstance(schema, list) else schema
    made: Schema = {}
    for word, value in schema.items():
        if word in _VALUES:
            made[word] = value
        elif word in _NAMED and isinstance(value, dict):
            made[word] = {name: _adapted(each, names) for name, each in value.items()}
        elif word == "$ref":
            made[word] = PLACE + names[value.removeprefix(PLACE)]
        elif word not in _LEFT_OUT:
            made[word] = _adapted(value, names)
    if "prefixItems" in made:  # the members of a tuple
        made |= {"items": made.pop("prefixItems"), "additionalItems": made.get("items", True)}
    return made
