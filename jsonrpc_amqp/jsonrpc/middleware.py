"""
What runs around the methods of a dispatcher (pure).

    def timed(request, call_next):
        began = time.monotonic()
        try:
            return call_next(request)
        finally:
            observe(request.method, time.monotonic() - began)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from inspect import iscoroutinefunction, isgeneratorfunction
from typing import Any

from ..context import AsyncCallNext, CallNext, Request, current_or_none, no_request
from ..errors import InvalidParams
from .conversion import DoesNotFit
from .error_objects import Response
from .invocation import PreparedMethod, raised

Middleware = Callable[[Request, CallNext], Any] | Callable[[Request, AsyncCallNext], Awaitable[Any]]
"""
Runs around a method: ``def`` around those that are ``def``, ``async def`` around those that are ``async def``.

An object that can be called, and has a method ``asynchronous`` that is ``async def``, runs around both.
"""


def checked_middleware(middleware: Sequence[Middleware]) -> tuple[Middleware, ...]:
    """
    Return middleware as a tuple.

    Raises:
        TypeError: It is no list of functions.
    """
    if callable(middleware) or not isinstance(middleware, Iterable):
        raise TypeError(f"middleware is a list of functions, not {middleware!r:.80}")
    for each in (given := tuple(middleware)):
        if not callable(each):
            raise TypeError(f"middleware is called with a request and call_next; {each!r} cannot be called")
        if isinstance(each, type):
            raise TypeError(f"middleware {each.__qualname__} is a class: give an object of it")
        if any(map(isgeneratorfunction, (each, type(each).__call__))):
            raise TypeError(f"middleware {each!r} has a yield: it is to return call_next(request), or its own result")
    return given


class WrappedMethod(PreparedMethod):
    """
    A registered function with middleware around it.

    Middleware sees params that do not fit as an ``InvalidParams``, and an error that the method returned as the
    exception that stands for it. What leaves the outermost one is answered as if the method had raised it.

    Args:
        around: The first is the outermost.
        options: As for ``PreparedMethod``.

    Raises:
        TypeError: As ``PreparedMethod``; or a middleware is ``def`` and the function ``async def``, or the other way
            round.
    """

    __slots__ = ("_chain",)

    def __init__(self, name: str, function: Callable[..., Any], around: Sequence[Middleware], **options: Any) -> None:
        super().__init__(name, function, **options)
        chain: CallNext = self._call_async if self.is_async else self._call
        for each in reversed(around):
            chain = _link(_of_kind(each, name, is_async=self.is_async), chain)
        self._chain = chain

    def respond(self, params: list[Any] | dict[str, Any], id: str | int | float | None) -> Response:
        try:
            result = self._checked(self._chain(self._request(params, id)))
        except BaseException as exc:
            result = self._failed(exc, params)
        return self._response(result, params, id)

    async def respond_async(self, params: list[Any] | dict[str, Any], id: str | int | float | None) -> Response:
        try:
            result = self._checked(await self._chain(self._request(params, id)))
        except (Exception, SystemExit, KeyboardInterrupt) as exc:
            result = self._failed(exc, params)
        return self._response(result, params, id)

    def _call(self, request: Request) -> Any:
        try:
            return raised(self._begin(request))
        except (DoesNotFit, TypeError) as exc:
            if (told := self._told(exc, request)) is None:
                raise
            raise told from exc

    async def _call_async(self, request: Request) -> Any:
        try:
            return raised(await self._begin(request))
        except (DoesNotFit, TypeError) as exc:
            if (told := self._told(exc, request)) is None:
                raise
            raise told from exc

    def _begin(self, request: Request) -> Any:
        """Call the function with the params of a request, which middleware may have changed."""
        params = request.params
        if isinstance(params, dict):
            request.arguments = named = self._parameters.by_name(params)
            return self.function(**named)
        request.arguments = positional = self._parameters.positional(params or [])
        return self.function(*positional)

    _calling = frozenset({_begin.__code__, _call_async.__code__})

    def _told(self, exc: DoesNotFit | TypeError, request: Request) -> InvalidParams | None:
        """Return the exception that middleware sees of params that do not fit; None: code of the method raised."""
        misfit = self._misfit(exc, request.params or [])
        return None if misfit is None else InvalidParams("Invalid params", *misfit)

    def _request(self, params: list[Any] | dict[str, Any], id: str | int | float | None) -> Request:
        request = current_or_none() or no_request(self.name, id)
        request.params = params
        return request


def is_async_for_all(middleware: Sequence[Middleware]) -> bool:
    """
    Return whether what is to run around any request is ``async def``; ``def`` is taken where both would do.

    Raises:
        TypeError: One is ``def`` and another ``async def``, so that no method can have both around it.
    """
    for is_async in (False, True):
        if all(_form(each, is_async=is_async) for each in middleware):
            return is_async
    only_async = next(each for each in middleware if not _form(each, is_async=False))
    only_def = next(each for each in middleware if not _form(each, is_async=True))
    raise TypeError(
        f"middleware {only_def!r} is def, and {only_async!r} is async def: no method can have both around it; write "
        "one for each kind, as the __call__ and asynchronous methods of a class"
    )


def _form(middleware: Middleware, *, is_async: bool) -> CallNext | Middleware | None:
    """Return what a middleware runs around methods of a kind; None: it does not."""
    asynchronous = getattr(middleware, "asynchronous", None)
    if is_async and iscoroutinefunction(asynchronous):
        return asynchronous
    return middleware if is_async is any(map(iscoroutinefunction, (middleware, type(middleware).__call__))) else None


def _of_kind(middleware: Middleware, name: str, *, is_async: bool) -> CallNext | Middleware:
    if form := _form(middleware, is_async=is_async):
        return form
    kinds = ("async def", "def") if is_async else ("def", "async def")
    raise TypeError(
        f"method {name!r} is {kinds[0]}, and middleware {middleware!r} is {kinds[1]}: write one for each kind, as the "
        "__call__ and asynchronous methods of a class, or register the method with bypass_middleware=True"
    )


def _link(middleware: Any, call_next: CallNext) -> CallNext:
    def call(request: Request) -> Any:
        return middleware(request, call_next)

    return call
