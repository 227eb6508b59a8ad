"""What the type variables of a generic class stand for in a class that derives from it (pure)."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from inspect import Signature
from typing import Any, TypeVar, cast

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


def type_arguments(kind: Any, function: Callable[..., Any]) -> TypeArguments:
    """
    Return the arguments of the type variables of the class that defines a function.

    Args:
        kind: A class that has or inherits it, or an alias, such as ``Repository[Item]``.
        function: As it stands in the class.
    """
    origin = typing.get_origin(kind) or kind
    if typing.Generic not in (lineage := getattr(origin, "__mro__", ())):
        return {}
    owner = next((each for each in lineage if any(map(_is(function), vars(each).values()))), None)
    return {} if owner is None else _arguments(kind, owner, {}) or {}


def type_arguments_of_bound(function: Callable[..., Any]) -> TypeArguments:
    """Return those of ``type_arguments`` for the method of an object or a class; none for other functions."""
    owner = getattr(function, "__self__", None)
    inner = getattr(function, "__func__", None)
    if owner is None or inner is None:
        return {}
    # ``Repository[Item]()`` has that alias as an attribute.
    return type_arguments(owner if isinstance(owner, type) else getattr(owner, "__orig_class__", type(owner)), inner)


def _arguments(kind: Any, owner: type, given: TypeArguments) -> TypeArguments | None:
    """Return the arguments of ``owner`` in a class or an alias, whose own variables have arguments; None: no base."""
    origin = typing.get_origin(kind) or kind
    if owner not in getattr(origin, "__mro__", ()):
        return None
    values = [_resolved(each, given) for each in typing.get_args(kind)]
    own = dict(zip(getattr(origin, "__parameters__", ()), values, strict=False))
    if origin is owner:
        return own
    bases = vars(origin).get("__orig_bases__", origin.__bases__)
    return next((found for each in bases if (found := _arguments(each, owner, own)) is not None), None)


def _resolved(hint: Any, arguments: TypeArguments) -> Any:
    if isinstance(hint, TypeVar):
        return arguments.get(hint, hint)
    variables = getattr(hint, "__parameters__", ())
    # A generic class has them, too; what it is to hold is not said there.
    if typing.get_origin(hint) is None or not any(each in arguments for each in variables):
        return hint
    return cast(Any, hint)[tuple(arguments.get(each, each) for each in variables)]


def _is(function: Callable[..., Any]) -> Callable[[object], bool]:
    return lambda found: function in (found, getattr(found, "__func__", None))
