"""Values of JSON to what pydantic converts to (pure; the only import of pydantic)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import VERSION, TypeAdapter, ValidationError
from pydantic_core import SchemaValidator, core_schema

# What does not fit is told in whole of texts up to so many bytes, else by the first mistake in each container: pydantic
# keeps hundreds of bytes for each mistake, and takes microseconds to describe it.
_LARGE = 16 << 10
_MOST_ERRORS = 1000
_STOPS = frozenset({"list", "tuple", "set", "frozenset", "dict"})

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
        Exception: pydantic cannot, or is too old; of many classes.
    """
    if "fail_fast" not in core_schema.DictSchema.__annotations__:
        raise TypeError(f"version {VERSION} of pydantic is too old, it has no limit for mistakes")
    adapter: TypeAdapter[Any] = TypeAdapter(hint)
    adapter.json_schema()  # a hint that has none, such as Callable, fits no value of JSON
    whole = adapter.validator
    # Without the validators of classes in it that are made already, and go on after a mistake.
    brief = SchemaValidator(_stopping(adapter.core_schema), _use_prebuilt=False)

    def convert(text: bytes) -> Any:
        validator = whole if len(text) <= _LARGE else brief
        try:
            # Of a text, its strict mode takes what JSON has no type for, such as dates.
            return validator.validate_json(text, strict=True)
        except ValidationError as exc:
            raise Mistakes(_told(exc)) from None  # it holds the values

    return convert


def _told(error: ValidationError) -> Told:
    if error.error_count() > _MOST_ERRORS:
        return [((), f"{error.error_count()} mistakes")]
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [(each["loc"], each["msg"]) for each in found]


def _stopping(schema: Any) -> Any:
    """Return a schema whose containers end at their first mistake."""
    if isinstance(schema, dict):
        stops = {"fail_fast": True} if schema.get("type") in _STOPS else {}
        return {name: _stopping(value) for name, value in schema.items()} | stops
    if isinstance(schema, (list, tuple)):
        return type(schema)(map(_stopping, schema))
    return schema
