"""
Decorators that say how a method is called, for classes that are served and for the descriptions of typed clients.

    class Inventory(Protocol):
        @rpc_name("stock.get")
        @raises(OutOfStock)
        def get_stock(self, sku: str) -> int: ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast, overload

from ..application_errors import ApplicationError

if TYPE_CHECKING:
    from .methods import PolicyOptions  # which imports jsonrpcserver, and takes long

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Marked = TypeVar("_Marked", bound=Callable[..., Any])
_NAME, _OPTIONS, _ERRORS = "__rpc_name__", "__rpc_options__", "__rpc_errors__"


def rpc_name(name: str) -> Callable[[_Function], _Function]:
    """
    Give a method of a class another name than that of the function.

    Raises:
        TypeError: The name is no string.
        ValueError: The name is empty.
    """
    if not isinstance(name, str):
        raise TypeError(f"rpc_name takes the name of a method, not {name!r}")
    if not name:
        raise ValueError("the name of a method must not be empty")

    def mark(function: _Function) -> _Function:
        setattr(function, _NAME, name)
        return function

    return mark


@overload
def method(function: _Function, /) -> _Function: ...
@overload
def method(name: str | None = None, **options: Unpack[PolicyOptions]) -> Callable[[_Function], _Function]: ...
def method(name: Any = None, **options: Unpack[PolicyOptions]) -> Any:
    """
    Mark a method of a class, for ``Server.register`` of its instances: ``@method`` or ``@method("stock.get")``.

    Args:
        name: Its name; that of the function where it is None.
        options: Those of ``Server.register``, for this method.
    """
    if callable(name):
        return method()(name)

    def mark(function: _Function) -> _Function:
        setattr(function, _OPTIONS, options)
        return function if name is None else rpc_name(name)(function)

    return mark


def raises(*errors: type[ApplicationError]) -> Callable[[_Marked], _Marked]:
    """
    Say which application errors a method may end in, or all methods of a class: the decorated function or class.

    ``typed`` of a client raises them again by their classes, and a server names them where it describes its methods.

    Raises:
        TypeError: One is no subclass of ``ApplicationError``.
    """
    for each in errors:
        if not (isinstance(each, type) and issubclass(each, ApplicationError)):
            raise TypeError(f"raises takes subclasses of ApplicationError, not {each!r}")

    def mark(marked: _Marked) -> _Marked:
        setattr(marked, _ERRORS, (*errors, *getattr(marked, "__dict__", {}).get(_ERRORS, ())))
        return marked

    return mark


def errors_of(description: type) -> list[type[ApplicationError]]:
    """Return the application errors of a class and its methods, as marked with ``raises``."""
    classes = [error for each in description.__mro__ for error in vars(each).get(_ERRORS, ())]
    methods = [error for name, _each in _functions(description) for error in _mark(description, name, _ERRORS) or ()]
    return list(dict.fromkeys([*classes, *methods]))


def errors_of_method(function: Callable[..., Any]) -> list[type[ApplicationError]]:
    """Return the application errors that a function, or its class, is marked with; of an override those of its base."""
    found = list(getattr(function, _ERRORS, ()))
    owner = getattr(function, "__self__", None)
    if owner is not None:
        kind = owner if isinstance(owner, type) else type(owner)
        found += _mark(kind, getattr(function, "__name__", ""), _ERRORS) or ()
        found += [error for each in kind.__mro__ for error in vars(each).get(_ERRORS, ())]
    return list(dict.fromkeys(found))


def marked_methods(kind: type) -> Iterator[tuple[str, str]]:
    """
    Return attribute and name of each marked method of a class and its bases, in the order of their definition.

    One that overrides a marked method is marked as that is.
    """
    for attribute, _function in _functions(kind):
        if _mark(kind, attribute, _OPTIONS) is not None:
            yield attribute, name_of(kind, attribute)


def options_of(kind: type, attribute: str) -> PolicyOptions:
    """Return the options that a mark gives a method of a class; none if it is not marked."""
    return cast("PolicyOptions", _mark(kind, attribute, _OPTIONS) or {})


def described_methods(description: type) -> dict[str, Callable[..., Any]]:
    """
    Return the public methods of a class that describes a service, by attribute, in the order of their definition.

    Raises:
        TypeError: It is no class, or describes no method.
    """
    if not isinstance(description, type):
        raise TypeError(f"a service is described by a class, such as a Protocol, not by {description!r}")
    found = {
        name: each
        for name, each in _functions(description)
        if not name.startswith("_") and (inspect.isfunction(each) or hasattr(each, "__wrapped__"))
    }
    if not found:
        raise TypeError(f"{description.__qualname__} describes no method")
    return found


def name_of(kind: type, attribute: str) -> str:
    """Return the name of the remote method that a function of a class stands for."""
    name: str = _mark(kind, attribute, _NAME) or attribute
    return name


def _mark(kind: type, attribute: str, mark: str) -> Any:
    """Return what a mark says of an attribute, in the first of a class and its bases that marks it; else None."""
    for each in kind.__mro__:
        found = vars(each).get(attribute)
        # A decorator may be above a ``staticmethod``, or below.
        for layer in (found, getattr(found, "__func__", None)):
            if (value := getattr(layer, mark, None)) is not None:
                return value
    return None


def _functions(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    names = dict.fromkeys(name for each in reversed(kind.__mro__) for name in vars(each))
    for name in names:
        found = inspect.getattr_static(kind, name)
        function = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
        if callable(function) and not isinstance(function, type):
            yield name, function
