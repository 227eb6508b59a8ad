"""Runs middleware around the calls of an ``AsyncClient``, and around their attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import TransportError
from .attempts import Retry
from .chain import AttemptLoop, Form
from .middleware import OutgoingRequest, Stack, compose
from .requests import Requests


class AsyncChain:
    """
    Runs the middleware of an ``AsyncClient`` around one call; ``Chain`` says what it does.

    Args:
        send: Sends a request, and returns what is awaited. Its second argument is ``retry``.
    """

    def __init__(
        self,
        stack: Stack,
        form: Form,
        requests: Requests,
        send: Callable[[OutgoingRequest, Retry | None], Awaitable[Any]],
    ) -> None:
        self._stack = stack
        self._form = form
        self._requests = requests
        self._send = send

    async def run(self) -> Any:
        """Return what the outermost middleware returns."""
        around_call = compose(self._stack.calls, self._attempts if self._stack.attempts else self._all_attempts)
        return await around_call(self._form.request)

    async def _all_attempts(self, request: OutgoingRequest) -> Any:
        return await self._send(request, self._form.retry)

    async def _attempts(self, request: OutgoingRequest) -> Any:
        loop = AttemptLoop(self._form)
        around_attempt = compose(self._stack.attempts, self._one_attempt)
        while True:
            attempt = loop.next(request)
            try:
                return await around_attempt(attempt)
            except TransportError as exc:
                delay = loop.delay_after(exc)
            await self._pause(delay)

    async def _one_attempt(self, request: OutgoingRequest) -> Any:
        return await self._send(request, None)

    async def _pause(self, seconds: float) -> None:
        """Wait for some time, or until the client is closed."""
        life, changed = self._requests.life, asyncio.Event()
        with life.watched(changed.set):
            try:
                async with asyncio.timeout(seconds):
                    while not life.closed:
                        await changed.wait()
                        changed.clear()
            except TimeoutError:
                pass
