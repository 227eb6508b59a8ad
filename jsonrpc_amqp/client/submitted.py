"""``submit`` with middleware: a future of what a thread of the client brings about."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..errors import CallTimeout, JsonRpcAmqpError
from ..options import MIDDLEWARE_THREADS
from ..wire.names import NO_QID
from .attempts import Retry
from .call import FutureCall
from .chain import Chain, Form
from .futures import CallFuture
from .middleware import OutgoingRequest, Stack
from .requests import Requests


@dataclass(slots=True, eq=False, repr=False)
class Submitted(FutureCall):
    """
    Stands for a call with middleware; it is not sent itself.

    Until a thread takes it, it is a pending call, so that it has an end at its deadline or with the client. After that,
    those that its middleware makes are.

    Attributes:
        requests: Of its client.
        sent_now: Futures of the calls that its middleware waits for.
        is_cancelled: Its future is; nothing is sent any more.
    """

    requests: Requests = field(kw_only=True)
    sent_now: set[CallFuture] = field(default_factory=set, init=False)
    is_cancelled: bool = field(default=False, init=False)

    @classmethod
    def begin(
        cls, stack: Stack, form: Form, requests: Requests, submit: Callable[[FutureCall], CallFuture]
    ) -> CallFuture:
        """
        Have the middleware run around a call, in the context of the calling thread; return the future of its result.

        Args:
            submit: Sends a call.

        Raises:
            ClientClosed, TooManyPending, NotConnected: At once.
        """
        request = form.request
        made = cls(request.service, b"", NO_QID, request.deadline, form.timeout, requests=requests)
        chain = Chain(stack, form, requests, partial(made._send, form, submit), made.is_over)
        future = made.future
        made.drop, future.owner, future.check_may_wait = requests.cancel, made, requests.waiter.check_may_wait
        try:
            requests.hold(made)
            requests.threads.run(partial(made._run, chain, copy_context()))
        except BaseException:  # its caller never gets the future
            requests.waiter.forget(made)
            future.owner = None
            raise
        return future

    def on_cancelled(self, future: CallFuture) -> None:
        """Its user has cancelled the future: drop what is under way."""
        self.is_cancelled = True
        self.drop(self)
        for each in list(self.sent_now):
            each.cancel()
        self.requests.life.end_pauses()

    def is_over(self) -> bool:
        """Return whether its user has cancelled the future."""
        return self.is_cancelled

    def fail(self, error: JsonRpcAmqpError) -> None:
        """End it before a thread has taken it."""
        if isinstance(error, CallTimeout):
            error = error.reworded(
                f"{error}: the {MIDDLEWARE_THREADS} threads of this client for submitted calls with middleware were "
                "busy all the time",
                may_have_run=False,
            )
        self._end(None, error)

    def _run(self, chain: Chain, context: Context) -> None:
        """Run on a thread of the client."""
        if not self.requests.waiter.release(self):
            return  # it has ended
        try:
            result = context.run(chain.run)
        except BaseException as exc:
            self._end(None, exc)
        else:
            self._end(result, None)
        finally:
            del self.future  # it has the error, whose traceback leads here

    def _send(
        self, form: Form, submit: Callable[[FutureCall], CallFuture], request: OutgoingRequest, retry: Retry | None
    ) -> Any:
        if self.is_over():
            raise CancelledError
        future = submit(form.call(FutureCall, request, retry))
        self.sent_now.add(future)
        try:
            if self.is_over():  # since it was not in the set
                future.cancel()
            return future.result()
        finally:
            self.sent_now.discard(future)
            del future  # as above
