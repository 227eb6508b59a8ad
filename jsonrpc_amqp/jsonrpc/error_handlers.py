"""What a server answers for the exceptions of libraries, as its program says (pure)."""

from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any, TypeVar

E = TypeVar("E", bound=Exception)


class ErrorHandlers:
    """The error handlers of one dispatcher, by the class of the exceptions that they are given."""

    def __init__(self) -> None:
        self._handlers: dict[type, Callable[[Any], Exception]] = {}

    def decorator(self, kind: type[E]) -> Callable[[Callable[[E], Exception]], Callable[[E], Exception]]:
        """
        Return a decorator that registers a function for a class; see ``Dispatcher.error_handler``.

        Raises:
            TypeError: It is no class of exceptions. The decorator: the function cannot be called, or is ``async def``.
            ValueError: The decorator: there is another one for this class.
        """
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise TypeError(f"an error handler is for a subclass of Exception, not for {kind!r}")

        def decorate(function: Callable[[E], Exception]) -> Callable[[E], Exception]:
            if not callable(function):
                raise TypeError(f"the error handler for {kind.__name__} is not callable: {function!r}")
            if iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__):
                raise TypeError(f"the error handler for {kind.__name__} is async def; it must be a plain function")
            if self._handlers.setdefault(kind, function) != function:
                raise ValueError(f"there is another error handler for {kind.__name__} already")
            return function

        return decorate

    def map(self, exception: BaseException, is_answer: Callable[[BaseException], bool]) -> BaseException | None:
        """
        Return what the handler for an exception returns, that for the nearest base of its class; None: there is none.

        Args:
            exception: What a method raised.
            is_answer: Whether an exception that the handler raises is what it wants to be answered.

        Raises:
            BaseException: What else the handler raised. ``TypeError``: it returned no exception.
        """
        for kind in type(exception).__mro__:
            handler = self._handlers.get(kind)
            if handler is not None:
                try:
                    mapped: object = handler(exception)
                except BaseException as raised:
                    if is_answer(raised):
                        return raised
                    raise
                if not isinstance(mapped, Exception):
                    raise TypeError(f"the error handler for {kind.__name__} returned {mapped!r}, which is no exception")
                if mapped.__context__ is None and mapped not in (exception, exception.__cause__, exception.__context__):
                    mapped.__context__ = exception  # as if it had been raised, for the log
                return mapped
        return None
