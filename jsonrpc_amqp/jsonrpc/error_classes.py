"""The application errors that a client raises, by their codes: error responses to exceptions (pure)."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable
from inspect import signature
from types import ModuleType
from typing import Any, NotRequired, TypeGuard, cast, get_type_hints

from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from ..application_errors import ApplicationError, has_code
from ..errors import RemoteError
from .conversion import converter
from .messages import Error, ExceptionFor, to_exception

log = logging.getLogger("jsonrpc_amqp.client")

ErrorTypes = type[ApplicationError] | Iterable[type[ApplicationError]] | ModuleType
"""A class, several, or a module, which stands for all classes with a code that it defines or imports."""


def exceptions_of(given: ErrorTypes) -> ExceptionFor:
    """
    Return what makes the exceptions for error responses: of the class whose code it is, with its fields.

    Args:
        given: The classes; where there are none, exceptions are those of ``to_exception``.

    Raises:
        TypeError: One is no class of an application error, has no code, or has type hints or a constructor of no use.
        ValueError: Two have the same code, or a module has none.
    """
    classes = _classes(given)
    return _ErrorClasses(classes).exception if classes else to_exception


def classes_of(exception_for: ExceptionFor) -> list[type[ApplicationError]]:
    """Return the classes with which ``exceptions_of`` made a function."""
    owner = getattr(exception_for, "__self__", None)
    return owner.classes if isinstance(owner, _ErrorClasses) else []


class _ErrorClasses:
    """The classes of a client, by their codes."""

    def __init__(self, classes: Iterable[type[ApplicationError]]) -> None:
        self._makers: dict[int, tuple[type[ApplicationError], Callable[[Any], ApplicationError]]] = {}
        for kind in classes:
            other, _maker = self._makers.setdefault(kind.code, (kind, _maker_of(kind)))
            if other is not kind:
                raise ValueError(f"{other.__qualname__} and {kind.__qualname__} have the same code, {kind.code}")

    @property
    def classes(self) -> list[type[ApplicationError]]:
        return [kind for kind, _make in self._makers.values()]

    def exception(self, error: Error) -> RemoteError:
        """Return the exception for an error response: a ``RemoteError`` if no class has its code, or fits its data."""
        found = self._makers.get(error.code)
        if found is None:
            log.debug("no class of an application error has the code %d", error.code)
            return to_exception(error)
        kind, make = found
        try:
            exception = make({} if error.data is None else error.data)
        except Exception:  # a constructor may raise anything
            log.debug("the data of an error with the code %d do not fit %s", error.code, kind.__name__, exc_info=True)
            return to_exception(error)
        exception.message, exception.data, exception.is_reply = error.message, error.data, True
        return exception


def _classes(given: ErrorTypes) -> list[type[ApplicationError]]:
    if isinstance(given, ModuleType):
        found = [each for each in vars(given).values() if _is_class(each) and has_code(each)]
        if not found:
            raise ValueError(f"the module {given.__name__} has no subclass of ApplicationError that has a code")
        return found
    classes = [given] if isinstance(given, type) else list(given)
    for each in classes:
        if not _is_class(each):
            raise TypeError(f"errors are subclasses of ApplicationError, or a module of them, not {each!r}")
        if not has_code(each):
            raise TypeError(f"{each.__qualname__} has no code, and so is never raised: give the classes that have one")
    return classes


def _is_class(value: object) -> TypeGuard[type[ApplicationError]]:
    return isinstance(value, type) and issubclass(value, ApplicationError)


def _maker_of(kind: type[ApplicationError]) -> Callable[[Any], ApplicationError]:
    """
    Return what makes an exception from the data of an error response.

    Raises:
        TypeError: The type hints of the class cannot be read, or its constructor takes others than its fields.
    """
    fields = [field for field in dataclasses.fields(cast(Any, kind)) if field.init]
    try:
        hints = get_type_hints(kind, include_extras=True)
        # Not to the class itself: msgspec makes instances without their base's ``__new__``, which exceptions need.
        make_type: Any = TypedDict
        convert = converter(make_type("Fields", {field.name: _entry(field, hints[field.name]) for field in fields}))
        assert convert is not None  # not any value is such a dict
    except Exception as exc:  # hints are expressions, which may raise anything
        raise TypeError(f"the type hints of {kind.__qualname__} cannot be read: {exc}") from exc
    try:
        signature(kind).bind(**{field.name: None for field in fields})
    except TypeError as exc:
        raise TypeError(f"the constructor of {kind.__qualname__} does not take its fields alone: {exc}") from exc
    return lambda data: kind(**convert(data))


def _entry(field: dataclasses.Field[Any], hint: Any) -> Any:
    is_required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    return hint if is_required else NotRequired[hint]
