"""Clients whose methods are described by a class: the type checker sees arguments and results."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from inspect import Parameter, Signature, formatannotation
from typing import Any, NamedTuple, TypeVar, cast, get_origin

from ..errors import MalformedReply
from ..jsonrpc.conversion import Converter, DoesNotFit, UnsupportedHint, converter
from ..jsonrpc.marks import described_methods, name_of
from ..jsonrpc.params import Params
from ..jsonrpc.signatures import parameters_of, read_signature

T = TypeVar("T")
Description = Callable[..., T]
"""A class. Type checkers take no Protocol for a ``type[T]``, since it cannot be instantiated."""
CallTyped = Callable[[str, Params, Callable[[Any], Any]], Any]
"""Calls a method by name with params, and gives its result to a function."""

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)


class _Described(NamedTuple):
    """
    One method of a description.

    Attributes:
        name: Of the remote method.
        signature: Without ``self``.
        convert: Makes the result; raises ``MalformedReply``.
    """

    name: str
    signature: Signature
    convert: Callable[[Any], Any]

    def params(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Params:
        """
        Return the params for arguments: by position if all are given so, else by name. Defaults are left out.

        Raises:
            TypeError: The method does not take them, or they can be given neither by position nor by name alone.
        """
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as exc:
            raise TypeError(f"{self.name}: {exc}") from None
        if not kwargs:
            return list(bound.args)
        kinds = {each.kind for each in self.signature.parameters.values() if each.name in bound.arguments}
        if kinds & {Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL}:
            raise TypeError(f"{self.name}: JSON-RPC takes parameters by position or by name, not both")
        rest = next((p.name for p in self.signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)
        named = dict(bound.arguments)
        others = named.pop(rest, {}) if rest is not None else {}
        return {**named, **others}


def typed_client(description: Description[T], call: CallTyped, *, is_async: bool) -> T:
    """
    Return an object with the methods of a class, each of which calls the remote method of that name.

    Args:
        description: A class, such as a Protocol, with a method for each remote method; of a generic one an alias, such
            as ``Repository[Item]``.
        call: Calls one.
        is_async: The methods are ``async def``.

    Raises:
        TypeError: It is no class, a method is ``async def`` and is not to be or the other way round, or nothing
            converts to what it is declared to take or to return.
    """
    made: Any = _class_of(description, is_async=is_async)()
    made._call = call
    return cast(T, made)


@lru_cache(maxsize=128)
def _class_of(description: Any, *, is_async: bool) -> type:
    """Return the class of the clients of a description: evaluating hints takes milliseconds."""
    kind = get_origin(description) or description
    functions = described_methods(kind)
    for name in _attributes(kind):
        raise TypeError(f"{kind.__qualname__}.{name} is an attribute: a description for a client has methods only")
    methods = {
        attribute: _method(_described(description, kind, attribute, function, is_async=is_async))
        for attribute, function in functions.items()
    }
    repr_of = {"__repr__": lambda _self: f"<typed client of {kind.__qualname__}>", "__slots__": ("_call",)}
    return type(f"Typed{kind.__name__}", (), {**methods, **repr_of})


def _attributes(kind: type) -> Iterator[str]:
    """Return the public attributes that a description declares."""
    for each in kind.__mro__:
        properties = {name for name, value in vars(each).items() if isinstance(value, property)}
        hints = inspect.get_annotations(each)
        declared = {name for name, hint in hints.items() if "ClassVar" not in str(hint)}
        yield from (name for name in sorted(properties | declared) if not name.startswith("_"))


def _described(
    description: Any, kind: type, attribute: str, function: Callable[..., Any], *, is_async: bool
) -> _Described:
    where = f"{kind.__qualname__}.{attribute}"
    if function.__module__ == "typing":  # what ``overload`` leaves
        raise TypeError(f"{where}: a description has no overloads: a call has one signature")
    if inspect.iscoroutinefunction(function) is not is_async:
        ends = ("AsyncClient", "async def") if is_async else ("Client", "def")
        raise TypeError(f"{where}: a description for {ends[0]} has methods that are {ends[1]}")
    signature = read_signature(where, function, evaluate=True, kind=description).signature
    parameters = list(parameters_of(signature))
    if not isinstance(inspect.getattr_static(kind, attribute), staticmethod):
        parameters = parameters[1:]
    for each in parameters:
        _converter(f"{where}, parameter {each.name!r}", each.annotation)
    found = _converter(f"{where}, the result", signature.return_annotation)
    convert = _as_it_is if found is None else partial(_converted, where, found)
    return _Described(name_of(kind, attribute), signature.replace(parameters=parameters), convert)


def _converter(where: str, hint: Any) -> Converter | None:
    try:
        return None if hint is Signature.empty else converter(hint)
    except UnsupportedHint as exc:
        raise TypeError(f"{where}: the hint {formatannotation(hint)} cannot be converted ({exc})") from exc


def _method(described: _Described) -> Callable[..., Any]:
    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return self._call(described.name, described.params(args, kwargs), described.convert)

    return method


def _as_it_is(value: Any) -> Any:
    return value


def _converted(where: str, convert: Converter, value: Any) -> Any:
    try:
        return convert(value)
    except DoesNotFit as exc:
        raise MalformedReply(f"the result is not what {where} declares: {exc}") from exc
    except Exception as exc:  # of a ``__post_init__``, say
        raise MalformedReply(f"the result is not what {where} declares: {type(exc).__name__}") from exc
