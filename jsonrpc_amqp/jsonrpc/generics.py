"""What the type variables of a generic class stand for in a class that derives from it (pure)."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from inspect import Signature
from types import SimpleNamespace, UnionType
from typing import Any, TypeVar, Union

TypeArguments = Mapping[Any, Any]


def resolved(signature: Signature, arguments: TypeArguments) -> Signature:
    """Return a signature with type variables replaced by their arguments; others stay."""
    if not arguments:
        return signature
    return signature.replace(
        parameters=[
            each.replace(annotation=_resolved(each.annotation, arguments)) for each in signature.parameters.values()
        ],
        return_annotation=_resolved(signature.return_annotation, arguments),
    )


def method_of(function: Callable[..., Any]) -> tuple[Any, Callable[..., Any]]:
    """
    Return the class or alias of the object that a method is bound to, and the function of that class.

    Of an object that can be called it is ``__call__``. For other functions: None, and the function.
    """
    bound = function if inspect.ismethod(function) else function.__call__  # type: ignore[operator]  # mypy knows no method of a Callable
    if not inspect.ismethod(bound):
        return None, function
    owner = bound.__self__
    # ``Repository[Item]()`` has that alias as an attribute. Code of the object is not to be asked for it.
    kind = owner if isinstance(owner, type) else inspect.getattr_static(owner, "__orig_class__", type(owner))
    return kind, bound.__func__


def type_arguments(kind: Any, function: Callable[..., Any]) -> TypeArguments:
    """
    Return the arguments of the type variables of the class that defines a function.

    Args:
        kind: A class that has or inherits it, or an alias, such as ``Repository[Item]``; None: no class does.
        function: As it stands in the class.
    """
    owner = _owner(kind, function)
    return {} if owner is None else _arguments(kind, owner, {})


def type_parameters(kind: Any, function: Callable[..., Any]) -> dict[str, Any]:
    """
    Return by name what ``class Repository[T]`` and ``def get[K]`` declare, which the hints of a function may use.

    Args:
        kind, function: As for ``type_arguments``.
    """
    scopes = (_owner(kind, function), function)
    return {each.__name__: each for scope in scopes for each in getattr(scope, "__type_params__", ())}


def _owner(kind: Any, function: Callable[..., Any]) -> type | None:
    """Return the generic class that defines a function; None: there is none."""
    lineage = getattr(_parts(kind)[0] or kind, "__mro__", ())
    if typing.Generic not in lineage:
        return None
    # The last: a class may have a method of a base under another name.
    return next((each for each in reversed(lineage) if any(_is(function, one) for one in vars(each).values())), None)


def _arguments(kind: Any, owner: type, given: TypeArguments) -> TypeArguments:
    """Return the arguments of ``owner`` in a class or an alias, whose own variables have arguments."""
    origin, args = _parts(kind)
    if owner not in getattr(origin := origin or kind, "__mro__", ()):
        return {}
    values = [_resolved(each, given) for each in args]
    variables = getattr(origin, "__parameters__", ())
    # There are more or fewer of a class with a ``TypeVarTuple``, or none.
    own = dict(zip(variables, values, strict=True)) if len(variables) == len(values) else {}
    if origin is owner:
        return own
    return next(filter(None, (_arguments(each, owner, own) for each in _bases(origin))), {})


def _bases(kind: type) -> Iterable[Any]:
    """Return the bases of a class with their arguments; those that are texts evaluated, if they can be."""
    bases = vars(kind).get("__orig_bases__", kind.__bases__)
    hints = SimpleNamespace(__annotations__={str(number): each for number, each in enumerate(bases)})
    try:
        return typing.get_type_hints(hints, vars(sys.modules[kind.__module__]), include_extras=True).values()
    except Exception:  # a name that the module does not know; of many classes
        return typing.cast(Iterable[Any], bases)


def _resolved(hint: Any, arguments: TypeArguments) -> Any:
    if isinstance(hint, TypeVar):
        return arguments.get(hint, hint)
    origin, args = _parts(hint)
    values = tuple(_resolved(each, arguments) for each in args)
    if all(value is each for value, each in zip(values, args, strict=True)):
        return hint
    generic: Any = Union if origin is UnionType else origin
    return generic[values if len(values) > 1 else values[0]]


def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a generic class and its arguments, of an alias such as ``list[T]``; None and none of another hint."""
    # pydantic makes a class of its alias, which is the generic class itself where its variables are the arguments.
    if isinstance(hint, type) and (of_model := vars(hint).get("__pydantic_generic_metadata__")):
        return of_model["origin"] or hint, of_model["args"] or of_model["parameters"]
    return typing.get_origin(hint), typing.get_args(hint)


def _is(function: Callable[..., Any], attribute: object) -> bool:
    """Whether an attribute of a class is a function; no code of the attribute is to run."""
    return function is (attribute.__func__ if isinstance(attribute, (staticmethod, classmethod)) else attribute)
