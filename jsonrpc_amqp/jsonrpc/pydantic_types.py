"""Values of JSON to what pydantic converts to (pure; the only import of pydantic)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import VERSION, TypeAdapter, ValidationError
from pydantic.json_schema import JsonSchemaMode
from pydantic_core import SchemaValidator, core_schema

# What does not fit is told in whole of texts up to so many bytes, else by the first mistake in each container: pydantic
# keeps hundreds of bytes for each mistake, and takes microseconds to describe it.
_LARGE = 16 << 10
_MOST_ERRORS = 1000
_CONTAINERS = frozenset({"list", "tuple", "set", "frozenset", "dict"})
# Members of schemas that hold values of the user's, or schemas by names of the user's.
_VALUES = frozenset({"cls", "config", "default", "expected", "function", "members", "metadata", "serialization"})
_NAMED = frozenset({"choices", "fields"})
# As they are written. Classes of pydantic have a configuration of their own, by which they are written, too.
_BYTES: core_schema.CoreConfig = {"val_json_bytes": "base64"}

Told = list[tuple[tuple[int | str, ...], str]]
"""Mistakes: the steps to the place, and what was expected there."""


class Mistakes(ValueError):
    """A text does not fit; ``told`` says where and why."""

    def __init__(self, told: Told) -> None:
        super().__init__(told)
        self.told = told


def converter(hint: Any) -> Callable[[bytes], Any]:
    """
    Return what converts JSON texts to a hint, strictly. It raises ``Mistakes``.

    Raises:
        Exception: pydantic cannot, or not in a time that is bounded, or is too old; of many classes.
    """
    if "fail_fast" not in core_schema.DictSchema.__annotations__:
        raise TypeError(f"version {VERSION} of pydantic is too old, it has no limit for mistakes")
    adapter: TypeAdapter[Any] = TypeAdapter(hint)
    adapter.json_schema()  # a hint that has none, such as Callable, fits no value of JSON
    _check_unions(adapter.core_schema)
    # Without the validators of classes in it that are made already.
    whole, brief = (
        SchemaValidator(_adapted(adapter.core_schema, stops), _BYTES, _use_prebuilt=False) for stops in (False, True)
    )

    def convert(text: bytes) -> Any:
        validator = whole if len(text) <= _LARGE else brief
        try:
            # Of a text, its strict mode takes what JSON has no type for, such as dates.
            return validator.validate_json(text, strict=True)
        except ValidationError as exc:
            raise Mistakes(_told(exc)) from None  # it holds the values

    return convert


def schemas(hints: Sequence[tuple[Any, bool]], reference: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """
    Return the JSON Schemas of hints, in their order, and those of classes that they refer to, by name.

    Args:
        hints: Each with whether it is written, and not read.
        reference: How one refers to another, with ``{name}`` in it.

    Raises:
        Exception: One has none; of many classes.
    """
    inputs: list[tuple[int, JsonSchemaMode, TypeAdapter[Any]]] = [
        (place, "serialization" if is_written else "validation", TypeAdapter(hint))
        for place, (hint, is_written) in enumerate(hints)
    ]
    made, more = TypeAdapter.json_schemas(inputs, ref_template=reference.replace("{name}", "{model}"))
    return [made[place, mode] for place, mode, _adapter in inputs], more.get("$defs", {})


def _told(error: ValidationError) -> Told:
    if error.error_count() > _MOST_ERRORS:
        return [((), f"{error.error_count()} mistakes")]
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [(each["loc"], each["msg"]) for each in found]


def _check_unions(schema: Any) -> None:
    """
    Raise ``TypeError`` for a recursive union that tries several choices for one object or array.

    Each level doubles the time then: 200 bytes take seconds.
    """
    found = [each["definitions"] for each in _nodes(schema) if each.get("type") == "definitions"]
    definitions = {each["ref"]: each for some in found for each in some}
    for ref, definition in definitions.items():
        for each in _nodes(definition):
            if each.get("type") == "union" and ref in _reached(each, definitions):
                shapes = [_shape(choice, definitions) for choice in each["choices"]]
                if any(shapes.count(shape) > 1 for shape in ("object", "array")):
                    raise TypeError(
                        "a recursive union of several classes takes time that doubles with each level; tell them "
                        "apart by a discriminator: Annotated[A | B, pydantic.Field(discriminator='kind')]"
                    )


def _reached(schema: Any, definitions: dict[str, Any]) -> set[str]:
    """Return the definitions that a schema refers to, and those that they refer to."""
    reached: set[str] = set()
    parts = [schema]
    for part in parts:
        refs = {each["schema_ref"] for each in _nodes(part) if each.get("type") == "definition-ref"}
        parts += [definitions[ref] for ref in refs - reached if ref in definitions]
        reached |= refs
    return reached


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Return all schemas in one."""
    if isinstance(schema, dict):
        yield schema
        for name, value in schema.items():
            if name not in _VALUES:
                # Of fields and of tagged choices, by names of the user's.
                is_named = name in _NAMED and isinstance(value, dict)
                for each in value.values() if is_named else (value,):
                    yield from _nodes(each)
    elif isinstance(schema, (list, tuple)):
        for each in schema:
            yield from _nodes(each)


def _shape(schema: Any, definitions: dict[str, Any]) -> str | None:
    """Return whether a schema takes objects or arrays; None for others."""
    if isinstance(schema, tuple):  # with a label
        schema = schema[0]
    kind = schema["type"]
    if kind == "definition-ref":
        return _shape(definitions[schema["schema_ref"]], {}) if schema["schema_ref"] in definitions else None
    if kind in ("model", "dataclass", "typed-dict", "dict", "model-fields", "dataclass-args"):
        return "object"
    if kind in ("list", "tuple", "set", "frozenset", "call"):  # the last of named tuples
        return "array"
    inner = schema.get("schema")
    return _shape(inner, definitions) if isinstance(inner, dict) else None


def _adapted(schema: Any, stops: bool) -> Any:
    """Return a schema with bytes as they are written, and, if it ``stops``, with containers that end at a mistake."""
    if isinstance(schema, (list, tuple)):
        return type(schema)(_adapted(each, stops) for each in schema)
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _NAMED and isinstance(value, dict):
            made[name] = {key: _adapted(each, stops) for key, each in value.items()}
        else:
            made[name] = value if name in _VALUES else _adapted(value, stops)
    kind = schema.get("type")
    if stops and kind in _CONTAINERS:
        made["fail_fast"] = True
    if kind == "typed-dict" or (kind == "dataclass" and not hasattr(schema["cls"], "__pydantic_validator__")):
        made["config"] = {**schema.get("config", {}), **_BYTES}
    return made
