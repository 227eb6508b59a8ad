"""
What a service is to its callers, as a document of OpenRPC (pure).

https://spec.open-rpc.org. Where that has no word for what Python can do, the document has one that begins with ``x-``:
``x-variadic`` is true of a parameter that stands for any number of them, ``*args`` or ``**kwargs``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import Parameter, Signature
from typing import Any

from ..application_errors import ApplicationError, has_code
from ..errors import EncodeError
from . import docstrings
from .docstrings import Docstring
from .marks import errors_of_method
from .schemas import Declared, Schema, schemas_of
from .service_info import Info
from .signatures import module_names, parameters_of, read_signature
from .text import dumps, loads

VERSION = "1.4.1"

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL)
_BY_NAME = (Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD)
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def document(info: Info, methods: Iterable[tuple[str, Callable[..., Any]]]) -> dict[str, Any]:
    """Return the document of a service, given its methods by name; a hint without a schema is any value."""
    described = [_Method(name, function) for name, function in methods]
    schemas = schemas_of([each for method in described for each in method.declared])
    remaining = iter(schemas.each)
    return {
        "openrpc": VERSION,
        "info": {name: value for name, value in vars(info).items() if value is not None},
        "methods": [method.described(remaining) for method in described],
        **({"components": {"schemas": schemas.shared}} if schemas.shared else {}),
    }


class _Method:
    """
    One method.

    Attributes:
        declared: The types of its parameters, and of its result.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name = name
        self._function = _innermost(function)
        self._doc = docstrings.parse(_docstring(self._function))
        signature = _signature(name, function)
        self._structure, self._params = _arranged(list(parameters_of(signature)))
        self.declared = [Declared(_hint(each.annotation)) for each in self._params]
        self.declared.append(Declared(_hint(signature.return_annotation), is_result=True))

    def described(self, schemas: Iterator[Schema]) -> dict[str, Any]:
        """Return its Method Object; takes the schemas of what is ``declared``."""
        deprecated = getattr(self._function, "__deprecated__", None)
        errors = _errors(self._function, self._doc)
        found = {
            "name": self._name,
            "summary": self._doc.summary,
            "description": _with_deprecation(self._doc.description, deprecated),
            "paramStructure": self._structure,
            "params": [_param(each, next(schemas), self._doc) for each in self._params],
            "result": _without_empty({"name": "result", "description": self._doc.returns}) | {"schema": next(schemas)},
            "errors": [{"code": each.code, "message": each.message} for each in errors],
            "deprecated": deprecated is not None,
        }
        return _without_empty(found) | {"params": found["params"]}


# -- what is read of a function -------------------------------------------------------------------------------------


def _signature(name: str, function: Callable[..., Any]) -> Signature:
    for evaluate in (True, False):
        try:
            return read_signature(name, function, evaluate=evaluate).signature
        except TypeError:  # a hint that cannot be evaluated, of a method whose params are not converted
            continue
    return Signature()


def _innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of a partial, which says nothing of its own."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _docstring(function: Callable[..., Any]) -> str | None:
    """Return the docstring of a function; of an object that can be called that of its ``__call__``, or its class."""
    if inspect.isroutine(function) or inspect.isclass(function):
        return inspect.getdoc(function)
    return inspect.getdoc(type(function).__call__) or inspect.getdoc(function)


def _hint(annotation: Any) -> Any:
    return Any if annotation is Parameter.empty else annotation


def _arranged(parameters: Sequence[Parameter]) -> tuple[str, list[Parameter]]:
    """Return how params are given, and the parameters that can be given so, those that are required first."""
    structure = _structure(parameters)
    left_out = {"by-position": _BY_NAME, "by-name": _BY_POSITION}.get(structure, ())
    found = [each for each in parameters if each.kind not in left_out]
    return structure, sorted(found, key=lambda each: not _is_required(each))


def _structure(parameters: Sequence[Parameter]) -> str:
    """Return how params are given so that all parameters can be, or at least those that are required."""
    kinds = {each.kind for each in parameters}
    if any(each.kind is Parameter.KEYWORD_ONLY and _is_required(each) for each in parameters):
        return "by-name"
    if Parameter.POSITIONAL_ONLY in kinds:
        return "by-position"
    if Parameter.VAR_POSITIONAL in kinds:
        return "either" if Parameter.VAR_KEYWORD in kinds else "by-position"
    return "either" if kinds.isdisjoint(_BY_NAME) else "by-name"


def _is_required(parameter: Parameter) -> bool:
    return parameter.default is Parameter.empty and parameter.kind not in _VARIADIC


def _param(parameter: Parameter, schema: Schema, doc: Docstring) -> dict[str, Any]:
    """Return the Content Descriptor of a parameter."""
    found = {
        "name": parameter.name,
        "description": doc.params.get(parameter.name),
        "required": _is_required(parameter),
        "x-variadic": parameter.kind in _VARIADIC,
    }
    return _without_empty(found) | {"schema": _with_default(schema, parameter.default)}


def _with_default(schema: Schema, default: Any) -> Schema:
    if default is Parameter.empty:
        return schema
    try:
        value = loads(dumps(default))
    except EncodeError:  # JSON cannot say it
        return schema
    # What stands beside a reference does not count.
    return {"allOf": [schema], "default": value} if "$ref" in schema else schema | {"default": value}


def _with_deprecation(description: str, deprecated: object) -> str:
    told = f"Deprecated: {deprecated}" if isinstance(deprecated, str) and deprecated else ""
    return "\n\n".join(filter(None, (description, told)))


def _errors(function: Callable[..., Any], doc: Docstring) -> list[type[ApplicationError]]:
    """Return the application errors that marks or the docstring of a function name, one for each code."""
    names = module_names(function)
    found = [*errors_of_method(function), *(_named(each, names) for each in doc.raises)]
    with_code = [each for each in found if _is_error(each)]
    return list({each.code: each for each in reversed(with_code)}.values())[::-1]


def _named(name: str, names: dict[str, Any]) -> Any:
    """Return what a name of a docstring stands for in a module, such as ``OutOfStock`` or ``errors.OutOfStock``."""
    first, *rest = name.split(".")
    found = names.get(first)
    for each in rest:
        found = vars(found).get(each) if inspect.ismodule(found) else None
    return found


def _is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, ApplicationError) and has_code(value)


def _without_empty(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value}
