"""Runs middleware around the calls of a ``Client``, and around their attempts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import TransportError
from .attempts import Attempts, Retry
from .call_options import Options
from .endings import Endings
from .middleware import OutgoingRequest, Stack, compose
from .requests import Requests
from .retries import LEAST_SECONDS

Make = Callable[[Callable[..., Any], OutgoingRequest, Options], Any]
"""Makes a call of one class, as the request and options say."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Form:
    """
    What a program asked for with one form of a call.

    Attributes:
        request: What its middleware sees first.
        options: Those that it was given.
        retry: Which errors another attempt may follow.
        timeout: What the deadline was made from, in seconds, for messages.
        make: Makes what is sent.
        endings: Of the client.
    """

    request: OutgoingRequest
    options: Options
    retry: Retry | None
    timeout: float | None
    make: Make
    endings: Endings

    def call(self, kind: Callable[..., Any], request: OutgoingRequest, retry: Retry | None) -> Any:
        """
        Make a call of what the innermost middleware has passed on.

        Raises:
            CallTimeout: There is no time left for it.
            EncodeError, MessageTooLarge, TypeError, ...: It cannot be sent; see the forms of a call.
        """
        deadline = self.request.deadline
        if time.monotonic() >= deadline:
            raise self.endings.too_late(request.service)
        options: Options = {**self.options, "service": request.service, "headers": request.headers, "retry": retry}
        call = self.make(kind, request, options)
        call.deadline, call.timeout = deadline, self.timeout
        return call


class AttemptLoop:
    """
    Which attempts of a call are made, where middleware runs around each.

    The rules are those of a call that the connection sends again: ``Endings`` has them.
    """

    def __init__(self, form: Form) -> None:
        self._failed = Attempts()
        self._form = form

    def next(self, request: OutgoingRequest) -> OutgoingRequest:
        """
        Return what the next attempt sends.

        Raises:
            TransportError: It would come too late: the error of the attempt before.
        """
        failures = self._failed.failures
        if failures and self._form.request.deadline - time.monotonic() < LEAST_SECONDS:
            raise self._failed.last_error
        return request.of_attempt(failures + 1)

    def delay_after(self, error: TransportError) -> float:
        """
        Return the seconds until the next attempt.

        Raises:
            TransportError: None follows; the error, with what earlier attempts add to it.
        """
        deadline = self._form.request.deadline
        # A copy is noted: the traceback of the error leads here.
        delay = self._form.endings.next_attempt(self._failed, self._form.retry, error.again(), deadline)
        if delay is not None:
            return delay
        final = self._failed.with_attempts(error)
        if final is not error:
            final.__suppress_context__ = True  # it says what the error says
        try:
            raise final
        finally:
            del final, error  # as in ``WaitingCall.result``


class Chain:
    """
    Runs the middleware of a ``Client`` around one call.

    Args:
        send: Sends a request, and returns the result or raises the error. Its second argument is ``retry``.
        is_over: Whether the caller no longer wants the result.
    """

    def __init__(
        self,
        stack: Stack,
        form: Form,
        requests: Requests,
        send: Callable[[OutgoingRequest, Retry | None], Any],
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stack = stack
        self._form = form
        self._requests = requests
        self._send = send
        self._is_over = is_over

    def run(self) -> Any:
        """Return what the outermost middleware returns."""
        around_call = compose(self._stack.calls, self._attempts if self._stack.attempts else self._all_attempts)
        return around_call(self._form.request)

    def _all_attempts(self, request: OutgoingRequest) -> Any:
        return self._send(request, self._form.retry)

    def _attempts(self, request: OutgoingRequest) -> Any:
        loop = AttemptLoop(self._form)
        around_attempt = compose(self._stack.attempts, self._one_attempt)
        while True:
            attempt = loop.next(request)
            try:
                return around_attempt(attempt)
            except TransportError as exc:
                delay = loop.delay_after(exc)
            self._requests.life.pause(delay, self._is_over)

    def _one_attempt(self, request: OutgoingRequest) -> Any:
        return self._send(request, None)
