"""Middleware around the requests that are not run, so that it sees each (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..context import Request
from ..errors import NOT_AUTHORISED, remote_error
from .error_objects import Response
from .middleware import Middleware, WrappedMethod


class Rejection(WrappedMethod):
    """
    What stands in for the method of a request that is not run: ``call_next`` raises the error.

    What middleware returns is the result, except where the sender is not authorised: it must not get one from a cache.

    Args:
        name: The method's name, as it came.
        response: The error response to the request.
        around: The first is the outermost.
        is_async: The middleware is ``async def``.
        options: As for ``PreparedMethod``.

    Attributes:
        response: As it was given.
    """

    __slots__ = ("response",)

    def __init__(
        self, name: str, response: Response, around: Sequence[Middleware], *, is_async: bool, **options: Any
    ) -> None:
        super().__init__(name, _never_called_async if is_async else _never_called, around, validate=False, **options)
        self.response = response

    def _begin(self, request: Request) -> Any:
        error = self.response["error"]
        raise remote_error(error["code"], error["message"], error.get("data"))

    def _response(self, result: Any, params: list[Any] | dict[str, Any], id: str | int | float | None) -> Response:
        response = super()._response(result, params, id)
        return self.response if is_refused(self.response) and "error" not in response else response


def is_refused(response: Response) -> bool:
    """Whether a response says that the sender is not authorised."""
    return bool(response["error"]["code"] == NOT_AUTHORISED)


def _never_called() -> Any:
    """Say that a rejection is ``def``."""


async def _never_called_async() -> Any:
    """Say that a rejection is ``async def``."""
