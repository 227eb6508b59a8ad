"""Requests whose methods are ``async def``: the step between decoding and encoding, in a coroutine (pure)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Protocol, cast

from ..context import Request, current_envelope, enter, leave
from ..errors import INTERNAL_ERROR
from .decoding import Call, Decoded, method_of, request_of
from .error_objects import Response, error_response
from .invocation import PreparedMethod
from .methods import Methods
from .rejection import Rejection
from .reply_writer import ReplyWriter

logger = logging.getLogger("jsonrpc_amqp.dispatch")


class Runner(Protocol):
    """What ``AsyncDispatch.serve`` needs of an event loop."""

    def in_thread(self, function: Callable[[], Response], /) -> Awaitable[Response]:
        """Run what may block on another thread, in the context of the calling task."""
        ...

    def before(self, deadline: float, work: Coroutine[Any, Any, Response], /) -> Awaitable[Response]:
        """Await a coroutine; raise ``TimeoutError`` where it is cancelled, at a time in monotonic seconds."""
        ...


RunAsync = Callable[[Callable[[Runner], Coroutine[Any, Any, Any]]], Any]
"""Runs the coroutine that it is given on an event loop, waits, and returns its result."""


class CallerGone(Exception):
    """A method was cancelled at the deadline of its caller. A reply would come too late, or just before."""


class Steps(Protocol):
    """The steps of a dispatcher that are the same for methods of both kinds."""

    def acknowledge_early(self, members: Iterable[Call | Response]) -> None: ...
    def admit(self, call: Call) -> PreparedMethod | Response: ...
    def admit_if(self, call: Call, *, is_allowed: bool) -> PreparedMethod | Response: ...
    def note_refusal(self, request: Request) -> None: ...
    def finish(self, call: Call, response: Response) -> Response | None: ...
    def counted(self, reply: tuple[bytes | None, int]) -> bytes | None: ...


class AsyncDispatch:
    """
    Runs requests of one dispatcher in coroutines.

    Args:
        methods: Those of the dispatcher.
        steps: Its other steps.
        writer: Writes replies.
        run_async: For ``serve_and_wait``; None: there is no event loop to wait for.
        authorize: Returns whether a request may run; awaited where it is ``async def``, else ``steps`` calls it.
    """

    def __init__(
        self,
        methods: Methods,
        steps: Steps,
        writer: ReplyWriter,
        run_async: RunAsync | None,
        authorize: Callable[[Request], object] | None = None,
    ) -> None:
        self._methods = methods
        self._steps = steps
        self._writer = writer
        self._run_async = run_async
        self._rule = authorize if iscoroutinefunction(authorize) else None
        self.authorize_on_thread = cast(
            "Callable[[Request], bool] | None", authorize if self._rule is None else self._decide_and_wait
        )
        """What ``authorize`` is to a thread that may wait."""

    @property
    def exists(self) -> bool:
        """Whether any method, or the middleware around requests that are not run, is ``async def``."""
        return self._methods.has_async

    @property
    def can_wait(self) -> bool:
        """Whether there is an event loop to wait for."""
        return self._run_async is not None

    def is_needed(self, decoded: Decoded) -> bool:
        """Whether what a body is served by is ``async def``, so that it is to be served here."""
        return any(isinstance(member, Call) and self._methods.is_async(member.method) for member in decoded.members)

    async def serve(self, decoded: Decoded, runner: Runner) -> bytes | None:
        """
        Return the reply to a body, whose methods run one after the other.

        Raises:
            CallerGone: A method was cancelled; those behind it did not run.
            CancelledError: The task was cancelled, or a method cancelled itself.
        """
        if self._methods.has_early:
            self._steps.acknowledge_early(decoded.members)
        if not decoded.is_batch:
            (member,) = decoded.members
            response = await self._invoke(member, runner)
            return None if response is None else self._steps.counted(self._writer.write(method_of(member), response))
        # One at a time, so that not all results of a batch are in memory before the size cap is applied.
        batch = self._writer.batch(len(decoded.members))
        for member in decoded.members:
            batch.add(method_of(member), await self._invoke(member, runner))
        return self._steps.counted(batch.finish())

    def serve_and_wait(self, decoded: Decoded) -> bytes | None:
        """Do what ``serve`` does, on an event loop, and wait for it. Only where ``can_wait``."""
        assert self._run_async is not None
        try:
            reply: bytes | None = self._run_async(lambda runner: self.serve(decoded, runner))
        except CallerGone:
            return None
        return reply

    def run_and_wait(self, method: PreparedMethod, call: Call) -> Response:
        """Return the response of a method that is ``async def``; it runs on an event loop meanwhile."""
        if self._run_async is None and isinstance(method, Rejection):
            return method.response
        if self._run_async is None:
            logger.error("method %.100r is async def, and there is no event loop: let a Server run it", call.method)
            return error_response(call.id, INTERNAL_ERROR)
        response: Response = self._run_async(lambda _runner: method.respond_async(call.params, call.id))
        return response

    def _decide_and_wait(self, request: Request) -> bool:
        """Return whether a request may run; the rule, which is ``async def``, runs on an event loop meanwhile."""
        rule = self._rule
        assert rule is not None
        if self._run_async is None:
            logger.error("authorize is async def, and there is no event loop: let a Server run this")
            return False
        return bool(self._run_async(lambda _runner: rule(request)))

    async def _admit(self, call: Call) -> PreparedMethod | Response:
        if self._rule is None:
            return self._steps.admit(call)
        request = request_of(call)
        is_allowed = await self._rule(request)
        if not is_allowed:
            self._steps.note_refusal(request)
        return self._steps.admit_if(call, is_allowed=is_allowed)

    async def _invoke(self, member: Call | Response, runner: Runner) -> Response | None:
        """Run the method of a request. Return None for a notification, and an error response as it is."""
        if not isinstance(member, Call):
            return member
        method = await self._admit(member)
        if isinstance(method, dict):
            return self._steps.finish(member, method)
        token = enter(request_of(member))
        try:
            if method.is_async:
                return self._steps.finish(member, await self._run(method, member, runner))
            respond = partial(method.respond, member.params, member.id)
            return self._steps.finish(member, await runner.in_thread(respond))
        finally:
            leave(token)

    async def _run(self, method: PreparedMethod, call: Call, runner: Runner) -> Response:
        work, deadline = method.respond_async(call.params, call.id), current_envelope().deadline
        if deadline is None or not self._methods.policy_of(call.method).cancel_on_deadline:
            return await work
        try:
            return await runner.before(deadline, work)
        except TimeoutError:
            logger.info("method %.100r was cancelled: its caller no longer waits", call.method)
            raise CallerGone from None
