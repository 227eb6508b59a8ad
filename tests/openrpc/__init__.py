"""Whether a value is a document of OpenRPC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

_FOLDER = Path(__file__).parent
_META, _JSON_SCHEMA = (
    json.loads((_FOLDER / name).read_text("utf-8")) for name in ("openrpc-1.4.json", "json-schema.json")
)
# Draft 7 is what both are written in; ``$schema`` of both names the second one, by a name with or without a slash.
_JSON_SCHEMA_TOOLS = "https://meta.json-schema.tools"
_REGISTRY: Any = Registry().with_resources(
    (uri, DRAFT7.create_resource(_JSON_SCHEMA)) for uri in (_JSON_SCHEMA_TOOLS, f"{_JSON_SCHEMA_TOOLS}/")
)
_VALIDATOR = Draft7Validator(_META, registry=_REGISTRY)

_PLACE = "#/components/schemas/"


def check(document: Any) -> None:
    """Fail unless a value is a document of OpenRPC 1.4, with schemas of draft 7, and no reference to nothing."""
    _VALIDATOR.validate(document)
    components = document.get("components", {}).get("schemas", {})
    for schema in (*components.values(), *_schemas(document)):
        Draft7Validator.check_schema(schema)
    for reference in _references(document):
        assert reference.startswith(_PLACE), reference
        assert reference.removeprefix(_PLACE) in components
    names = [each["name"] for each in document["methods"]]
    assert len(names) == len(set(names))
    for method in document["methods"]:
        _check_method(method)


def accepts(document: Any, schema: Any, value: Any) -> bool:
    """Whether a value fits a schema of a document."""
    whole = {"allOf": [schema], "components": document.get("components", {})}
    fits: bool = Draft7Validator(whole).is_valid(value)
    return fits


def _check_method(method: Any) -> None:
    """Check what the specification says in words."""
    names = [each["name"] for each in method["params"]]
    assert len(names) == len(set(names))
    are_required = [each.get("required", False) for each in method["params"]]
    assert are_required == sorted(are_required, reverse=True)
    codes = [each["code"] for each in method.get("errors", ())]
    assert len(codes) == len(set(codes))


def _schemas(document: Any) -> Iterator[Any]:
    for method in document["methods"]:
        yield from (each["schema"] for each in method["params"])
        yield method["result"]["schema"]


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)
