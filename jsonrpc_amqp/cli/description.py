"""
A document of OpenRPC as text, as ``--help`` of a command is.

Documents come from the wire, of servers in any language: what is malformed in one is left out, and what could control a
terminal is escaped.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from .common import as_json, one_line

_WIDTH = 80
# Characters of a text, and of a value, that are shown.
_LONGEST_TEXT, _LONGEST_VALUE = 10_000, 60
# Of a column of names.
_WIDEST_NAME = 20
_STRUCTURES = {"by-name": "Params, by name:", "by-position": "Params, by position:"}


def lines_of(document: Mapping[str, Any]) -> Iterator[str]:
    """Return the lines that describe a service: its methods, and the types that they refer to."""
    is_apart = False
    for line in _lines(document):
        if line and is_apart:
            yield ""
        if line:
            yield line
        is_apart = not line


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    found = _Document(document)
    info = _object(document.get("info"))
    yield " ".join(filter(None, (_name(info.get("title")), _name(info.get("version"))))) or "(without a title)"
    yield from _text(info.get("description"), 0)
    for method in map(found.resolved, _array(document.get("methods"))):
        yield ""
        yield from _method(found, method)
    types = list(found.types())
    if types:
        yield from ("", "Types:")
    for name, schema in types:
        yield from ("", f"  {_name(name)}  {found.type_text(schema)}")
        if schema.get("description"):
            yield from (*_text(schema["description"], 4), "")
        yield from _fields(found, schema)


class _Document:
    """
    What is looked up in a document.

    Attributes:
        named: The names of the types that were shown so far.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._components = _object(document.get("components"))
        self.named: dict[str, None] = {}

    def resolved(self, value: Any) -> Mapping[str, Any]:
        """Return an object, or that to which it refers."""
        found = _object(value)
        reference = found.get("$ref")
        if not isinstance(reference, str):
            return found
        _hash, _components, kind, name = (*reference.split("/", 3), "", "", "")[:4]
        return _object(_object(self._components.get(kind)).get(name))

    def types(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Return the types that were shown by their name, and those that are shown meanwhile."""
        schemas = _object(self._components.get("schemas"))
        seen: set[str] = set()
        while left := [name for name in self.named if name not in seen]:
            for name in left:
                seen.add(name)
                if name in schemas:
                    schema = _object(schemas[name])
                    self._note(schema)
                    yield name, schema

    def _note(self, schema: Mapping[str, Any]) -> None:
        """Note the types that the fields of a type refer to."""
        for each in _object(schema.get("properties")).values():
            self.type_text(each)

    def type_text(self, schema: Any) -> str:
        """Return a schema in words, such as ``array of Item | null``."""
        schema = _object(schema)
        reference = schema.get("$ref")
        if isinstance(reference, str):
            name = reference.rpartition("/")[2]
            self.named.setdefault(name)
            return _name(name)
        for word, joint in (("anyOf", " | "), ("oneOf", " | "), ("allOf", " & ")):
            if choices := _array(schema.get(word)):
                return joint.join(dict.fromkeys(map(self.type_text, choices)))
        if values := _array(schema.get("enum")) or ([schema["const"]] if "const" in schema else []):
            return " | ".join(map(_value, values))
        kinds = schema.get("type")
        names = [kinds] if isinstance(kinds, str) else [each for each in _array(kinds) if isinstance(each, str)]
        return " | ".join(self._of_kind(each, schema) for each in names) or "any"

    def _of_kind(self, kind: str, schema: Mapping[str, Any]) -> str:
        if kind == "array" and (members := _array(schema.get("items"))):
            return f"[{', '.join(map(self.type_text, members))}]"
        inner = schema.get({"array": "items", "object": "additionalProperties"}.get(kind, ""))
        if isinstance(inner, dict) and inner:
            of = self.type_text(inner)
            return f"{kind} of {f'({of})' if ' | ' in of else of}"
        form = schema.get("format") or schema.get("contentEncoding")
        return f"{_name(kind)} ({_name(form)})" if isinstance(form, str) else _name(kind)


def _method(found: _Document, method: Mapping[str, Any]) -> Iterator[str]:
    params = list(map(found.resolved, _array(method.get("params"))))
    signature = f"{_name(method.get('name'))}({', '.join(map(_in_signature, params))})"
    yield from _wrapped(f"{signature}  DEPRECATED" if method.get("deprecated") is True else signature, 0, 4)
    yield from _text(method.get("summary"), 2)
    if method.get("description"):
        yield from ("", *_text(method["description"], 2))
    if params:
        yield from ("", f"  {_STRUCTURES.get(str(method.get('paramStructure')), 'Params, by position or by name:')}")
        yield from _table(found, [(_name(each.get("name")), _schema_of(each), _told(each)) for each in params])
    if "result" in method:
        result = found.resolved(method["result"])
        yield from ("", f"  Result: {found.type_text(result.get('schema'))}")
        yield from _text(result.get("description"), 4)
    if errors := list(map(found.resolved, _array(method.get("errors")))):
        yield from ("", "  Errors:")
    for each in errors:
        yield f"    {_value(each.get('code'))}  {_name(each.get('message'))}"


def _in_signature(param: Mapping[str, Any]) -> str:
    name = _name(param.get("name"))
    if param.get("x-variadic") is True:
        return f"{name}..."
    schema = _object(param.get("schema"))
    if "default" in schema:
        return f"{name}={_value(schema['default'])}"
    return name if param.get("required") is True else f"[{name}]"


def _told(param: Mapping[str, Any]) -> str:
    """Return what is said of a parameter beside its type."""
    if param.get("x-variadic") is True:
        return "any number of them"
    return "" if param.get("required") is True else "optional"


def _schema_of(param: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of a parameter, with the description of the parameter if that has one."""
    about = {"description": param["description"]} if "description" in param else {}
    return {**_object(param.get("schema")), **about}


def _fields(found: _Document, schema: Mapping[str, Any]) -> Iterator[str]:
    required = [each for each in _array(schema.get("required")) if isinstance(each, str)]
    fields = _object(schema.get("properties")).items()
    yield from _table(
        found, [(_name(name), _object(each), "" if name in required else "optional") for name, each in fields]
    )


def _table(found: _Document, rows: list[tuple[str, Mapping[str, Any], str]]) -> Iterator[str]:
    """Return the lines for names with a schema each, and with what else is said of them."""
    width = min(max([len(name) for name, *_rest in rows], default=0), _WIDEST_NAME)
    for name, schema, told in rows:
        default = f"default {_value(schema['default'])}" if "default" in schema else told
        text = ", ".join(filter(None, (found.type_text(schema), default)))
        yield from _wrapped(f"{name:<{width}}  {text}", 4, width + 6)
        yield from _text(schema.get("description"), width + 6)


def _text(value: Any, indent: int) -> Iterator[str]:
    """Return a text in lines; paragraphs are filled, but for lines that are indented, or items of lists."""
    if not isinstance(value, str):
        return
    cut = value if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]}..."
    paragraph: list[str] = []
    for line in cut.strip().expandtabs().splitlines():
        if line[:1] not in ("", " ", "-", "*"):
            paragraph.append(line.rstrip())
            continue
        yield from _wrapped(one_line(" ".join(paragraph)), indent, indent)
        paragraph = []
        yield " " * indent + one_line(line) if line.strip() else ""
    yield from _wrapped(one_line(" ".join(paragraph)), indent, indent)


def _wrapped(line: str, indent: int, further: int) -> list[str]:
    """Return one line as several, the first of which is indented, and the others further."""
    # At hyphens too it would break the names of methods.
    return textwrap.wrap(
        line, _WIDTH, initial_indent=" " * indent, subsequent_indent=" " * further, break_on_hyphens=False
    )


def _name(value: Any) -> str:
    """Return a short text of a document in one line."""
    return one_line(value[:_LONGEST_TEXT]) if isinstance(value, str) else ""


def _value(value: Any) -> str:
    text = as_json(value, most=_LONGEST_VALUE).decode()
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _array(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
