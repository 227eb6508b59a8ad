"""What a function takes and returns: its signature, with type hints evaluated (pure)."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Iterator
from functools import partial
from inspect import Parameter, Signature
from typing import Any, NamedTuple

from .generics import method_of, resolved, type_arguments, type_parameters

_LEFT_OUT = object()
_VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


class ReadSignature(NamedTuple):
    """
    The signature of a function.

    Attributes:
        signature: As far as it can be read; of builtins that have none, that of a function that takes anything.
        takes_anything: The function is a wrapper that takes ``*args, **kwargs``, and the signature that of the function
            that it wraps: it may supply arguments itself, as ``unittest.mock.patch`` does.
    """

    signature: Signature
    takes_anything: bool


def read_signature(name: str, function: Callable[..., Any], *, evaluate: bool, kind: Any = None) -> ReadSignature:
    """
    Return the signature of a function; that of a wrapper counts, unless it takes anything.

    Args:
        name: The method's name, for messages.
        evaluate: Evaluate hints that are texts, as with ``from __future__ import annotations``.
        kind: The class that the function stands in, or an alias, such as ``Repository[Item]``; None: it is that of the
            object that the function is bound to, if it is.

    Raises:
        TypeError: A hint cannot be evaluated.
    """
    place = method_of(function) if kind is None else (kind, function)
    arguments, names = type_arguments(*place), type_parameters(*place)
    read = partial(_signature, function, name, names, evaluate=evaluate)
    own = read(follow_wrapped=False) if _is_wrapper(function) else None
    if own is not None and any(each.kind not in _VARIABLE for each in own.parameters.values()):
        return ReadSignature(resolved(own, arguments), False)
    found = read()
    return ReadSignature(
        inspect.signature(_any_params) if found is None else resolved(found, arguments), own is not None
    )


def parameters_of(signature: Signature) -> Iterator[Parameter]:
    """Return the parameters of a signature; those of ``**kwargs: Unpack[...]`` one by one."""
    for each in signature.parameters.values():
        hint = each.annotation
        if each.kind is not each.VAR_KEYWORD or typing.get_origin(hint) is not typing.Unpack:
            yield each
            continue
        (fields,) = typing.get_args(hint)
        for name, kind in typing.get_type_hints(fields, include_extras=True).items():
            # ``__required_keys__`` does not know what stands in annotations that are texts.
            is_required, said = name in fields.__required_keys__, typing.get_origin(kind)
            if said in (typing.Required, typing.NotRequired):
                is_required, (kind,) = said is typing.Required, typing.get_args(kind)
            default = Parameter.empty if is_required else _LEFT_OUT
            yield Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def innermost_code(function: Callable[..., Any]) -> object:
    """Return the code of the function that wrappers are around, or None where there is none to see."""
    return getattr(inspect.unwrap(function), "__code__", None)


def module_names(function: Any) -> dict[str, Any]:
    """Return the names that the hints of a function may use."""
    inner = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    if not hasattr(inner, "__globals__"):
        inner = getattr(inner, "__func__", None) or getattr(type(inner).__call__, "__func__", type(inner).__call__)
    found: dict[str, Any] = getattr(inner, "__globals__", {})
    return found


def _is_wrapper(function: Callable[..., Any]) -> bool:
    return hasattr(function, "__wrapped__")


def _signature(
    function: Callable[..., Any], name: str, names: dict[str, Any], *, evaluate: bool, follow_wrapped: bool = True
) -> Signature | None:
    """Return a signature, or None if there is none to read; hints may use names, besides those of the module."""
    try:
        return inspect.signature(function, eval_str=evaluate, locals=names or None, follow_wrapped=follow_wrapped)
    except (ValueError, TypeError):  # some builtins, and some objects that can be called
        return None
    # A hint that cannot be evaluated may raise anything, and Python 3.14 evaluates all of them here.
    except Exception:
        found = _unevaluated(function, follow_wrapped=follow_wrapped)
    if found is None or not evaluate:
        return found
    # That of the result may stay a text.
    namespace = module_names(function) | names
    return found.replace(parameters=[_evaluated(name, each, namespace) for each in found.parameters.values()])


def _unevaluated(function: Callable[..., Any], *, follow_wrapped: bool) -> Signature | None:
    options: dict[str, Any] = {"follow_wrapped": follow_wrapped}
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        options["annotation_format"] = Format.FORWARDREF
    try:
        return inspect.signature(function, **options)
    except Exception:
        return None


def _evaluated(name: str, parameter: Parameter, namespace: dict[str, Any]) -> Parameter:
    if not isinstance(parameter.annotation, str):
        return parameter
    try:
        return parameter.replace(annotation=eval(parameter.annotation, namespace))
    except Exception as exc:
        raise TypeError(
            f"method {name!r}, parameter {parameter.name!r}: the hint {parameter.annotation} cannot be evaluated "
            f"({exc}). What it names is to be known in the module: define it there, not in a function, and import it "
            "not under TYPE_CHECKING alone. Or register the method with validate=False"
        ) from exc


def _any_params(*args: Any, **kwargs: Any) -> Any:
    """Provide the signature of functions that have none to read."""
