"""What happens to one request: verify its sender, translate it, run its handler, publish the reply, settle."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial

from .. import context
from ..amqp.base import JSON, Delivery
from ..dialects import MalformedEnvelope, ServerDialect
from ..jsonrpc.async_dispatch import AsyncDispatch, CallerGone
from ..jsonrpc.decoding import Decoded
from ..jsonrpc.dispatcher import Dispatcher
from ..jsonrpc.error_objects import internal_error, too_large
from ..wire.display import printable
from ..wire.publish import reply_message
from ..wire.reply_route import Route, reply_route
from ..wire.sender_checks import Refusal, client_of
from .counters import Counters
from .isolation import CannotIsolate, Isolation, KilledItsProcesses
from .job import Job
from .loop_executor import LoopExecutor, Rest

log = logging.getLogger("jsonrpc_amqp.server")

# Bytes of a body that takes no more than some milliseconds to decode, even of a hostile one: an event loop may do that.
_SMALL = 1 << 16

Dispatch = Callable[[bytes], bytes | None]
"""Takes a request in JSON, and returns its reply; None where it has none."""


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """
    What a server serves, and how its replies leave.

    Attributes:
        service: The service's name.
        exchange: Its topic exchange.
        queue: The request queue.
        delivery_limit: Requests that were redelivered this many times are not run; None: there is no limit.
        max_size: Most bytes of a request, and of a reply.
        user: The AMQP user, sent with replies; None where it is not known.
        may_reply_to: Narrows which queues a ``reply_to`` may name.
    """

    service: str
    exchange: str
    queue: str
    delivery_limit: int | None
    max_size: int
    user: str | None = None
    may_reply_to: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True)
class Dispatchers:
    """
    What makes the reply to a request, by what becomes of it.

    Attributes:
        run: Runs the method.
        reject_at_limit: Does not run it, since it reached the delivery limit.
        refuse_sender: Does not run it, since its sender could not be verified.
        own: That of ``run``, if it is ours: its methods may be ``async def``.
    """

    run: Dispatch
    reject_at_limit: Dispatch
    refuse_sender: Dispatch
    own: Dispatcher | None = None


class Pipeline:
    """
    Serves requests, one at a time on each thread that calls it. It holds no state but the counters.

    Args:
        settings: What is served.
        dispatchers: What makes the replies.
        counters: Where to count.
        dialect: Translates requests that are not JSON-RPC.
        verify_sender: Returns why a request is not served, because of who sent it; None: it is served.
    """

    def __init__(
        self,
        settings: PipelineSettings,
        dispatchers: Dispatchers,
        counters: Counters,
        *,
        dialect: ServerDialect | None = None,
        verify_sender: Callable[[Delivery], Refusal | None] | None = None,
    ) -> None:
        self._settings = settings
        self._dispatch = dispatchers.run
        self._own = dispatchers.own
        self._reject_at_limit = dispatchers.reject_at_limit
        self._refuse_sender = dispatchers.refuse_sender
        self._count = counters.add
        self._dialect = dialect
        self._verify_sender = verify_sender
        self._isolation: Isolation | None = None
        self._max_size = settings.max_size
        self._user = settings.user
        self._reply_route: Callable[[Delivery], Route | None] = partial(
            reply_route,
            service=settings.service,
            exchange=settings.exchange,
            request_queues=(settings.queue,),
            allowed=settings.may_reply_to,
        )

    def isolate(self, isolation: Isolation) -> None:
        """Have requests that it suspects run in processes of their own."""
        self._isolation = isolation

    def process(self, job: Job, now: float) -> Rest | None:
        """
        Serve one request: all steps, up to its acknowledgement or rejection.

        Args:
            job: The request.
            now: Monotonic seconds.

        Returns:
            The steps that are left, where a method is ``async def``: they run on an event loop.
        """
        if job.delivery.redelivered:
            self._count("redelivered")
        if job.deadline is not None and now >= job.deadline:
            self._skip(job)
        elif self._verify_sender is None or self._is_verified(job, self._verify_sender):
            try:
                if self._dialect is not None:
                    self._translate(job, self._dialect)
                rest = self._reply_to(job, now)
                if rest is not None:
                    return rest
            except MalformedEnvelope as exc:
                self._count("malformed")
                log.warning("dropped a malformed request (%s): %s", _label(job), exc)
        job.settle()
        return None

    def is_for_loop(self, job: Job) -> bool:
        """
        Whether ``process`` is quick, and leaves the method to an event loop: the thread of that loop may call it.

        What may take long before the method runs, such as to decode a large body, is for threads.
        """
        own, body = self._own, job.delivery.body
        if own is None or body is None or len(body) > _SMALL or self._dialect is not None:
            return False
        if not own.asynchronous.exists:
            return False
        job.decoded = own.decode(body)
        job.is_for_loop = own.asynchronous.is_needed(job.decoded)
        return job.is_for_loop

    def _skip(self, job: Job) -> None:
        self._count("expired")
        log.info("skipped a request that expired while it was queued here (%s)", _label(job))
        job.settle()

    # -- before the handler -------------------------------------------------------------------------------

    def _is_verified(self, job: Job, verify_sender: Callable[[Delivery], Refusal | None]) -> bool:
        refusal = verify_sender(job.delivery)
        if refusal is None:
            return True
        self._count("refused")
        log.warning("refused a request (%s): %s", _label(job), refusal.reason)
        reply = self._refuse_sender(job.body) if refusal.may_reply else None
        if reply is not None:
            self._publish_reply(job, reply)
        return False

    @staticmethod
    def _translate(job: Job, dialect: ServerDialect) -> None:
        if job.delivery.body is not None:
            job.inbound = dialect.read(job.delivery, job.delivery.body)

    def _is_at_limit(self, job: Job) -> bool:
        limit = self._settings.delivery_limit
        return limit is not None and job.redeliveries >= limit

    # -- the handler --------------------------------------------------------------------------------------

    def _reply_to(self, job: Job, now: float) -> Rest | None:
        delivery = job.delivery
        if delivery.body is None:
            reply: bytes | None = too_large(delivery.size, self._max_size)
        elif job.redeliveries and self._is_at_limit(job):
            log.error(
                "a request was redelivered %d times, the limit, and is not run again (%s); it goes to the dead "
                "letters, if queue %r has them, and if its sender may call what it asks for",
                job.redeliveries,
                _label(job),
                self._settings.queue,
            )
            reply = self._run_handler(job, self._reject_at_limit)
        elif self._isolation is not None and self._isolation.suspects(job, now):
            reply = self._run_isolated(job, self._isolation)
        elif self._own is not None and self._own.asynchronous.exists:
            own, decoded = self._own, job.decoded or self._own.decode(job.body)
            if job.is_for_loop or own.asynchronous.is_needed(decoded):
                return partial(self._reply_on_loop, job, own.asynchronous, decoded)
            reply = self._run_handler(job, lambda _body: own.serve(decoded))
        else:
            reply = self._run_handler(job, self._dispatch)
        self._end(job, reply)
        return None

    def _end(self, job: Job, reply: bytes | None) -> None:
        if reply is not None:
            self._publish_reply(job, reply)
        if job.is_dead_letter:
            self._count("dead_lettered")

    async def _reply_on_loop(self, job: Job, dispatch: AsyncDispatch, decoded: Decoded, executor: LoopExecutor) -> None:
        """Do what is left for a request, in a task of its own."""
        if job.deadline is not None and time.monotonic() >= job.deadline:
            self._skip(job)
            return
        context.enter(context.Request(None, None, False, job))  # to the end of the task, whose context this is
        try:
            reply = self._within_cap(await dispatch.serve(decoded, executor))
        except CallerGone:
            self._count("expired")
            reply = None
        except asyncio.CancelledError:
            if executor.is_closing:
                raise
            log.exception("a method cancelled itself (%s)", _label(job))
            self._count("failed")
            reply = internal_error()
        try:
            self._end(job, reply)
        except MalformedEnvelope as exc:
            self._count("malformed")
            log.warning("dropped a malformed request (%s): %s", _label(job), exc)
        job.settle()

    def _run_handler(self, job: Job, dispatch: Dispatch) -> bytes | None:
        """Return the reply; while it is made, ``current_request()`` is this request."""
        try:
            # In a context of its own: what a method sets is not there for the next request on this thread.
            reply = copy_context().run(_dispatched, dispatch, job)
        except BaseException:
            # Our own dispatcher never raises; a user's may, and must not end the server.
            log.exception("the dispatcher raised on %s", _label(job))
            self._count("failed")
            return internal_error()
        return self._within_cap(reply)

    def _run_isolated(self, job: Job, isolation: Isolation) -> bytes | None:
        try:
            return self._within_cap(isolation.run(job))
        except KilledItsProcesses as error:
            log.error(
                "%s, and is not run again (%s); it goes to the dead letters, if queue %r has them, and if its sender "
                "may call what it asks for",
                error,
                _label(job),
                self._settings.queue,
            )
            return self._run_handler(job, self._reject_at_limit)
        except CannotIsolate:
            log.error("a redelivered request runs in this process, since no other can be started (%s)", _label(job))
            return self._run_handler(job, self._dispatch)

    def _within_cap(self, reply: bytes | None) -> bytes | None:
        if reply is not None and len(reply) > self._max_size:
            self._count("failed")
            return internal_error(f"the answer has {len(reply)} bytes, over the cap of {self._max_size}")
        return reply

    # -- the reply ----------------------------------------------------------------------------------------

    def _publish_reply(self, job: Job, body: bytes) -> None:
        """Publish the reply and, in the same step, acknowledge the request, unless it was settled or is rejected."""
        delivery, inbound, content_type = job.delivery, job.inbound, JSON
        route = self._reply_route(delivery) if inbound is None or inbound.route is None else inbound.route
        if route is None:
            self._count("dropped_replies")
            log.warning(
                "no way to reply to a request with key %s and reply_to %s",
                printable(delivery.routing_key),
                printable(delivery.reply_to or ""),
            )
            return
        user = self._user
        if self._dialect is not None and not self._is_to_sender(job, route):
            user = None
        if inbound is not None:
            body, content_type = inbound.reply(body), inbound.content_type
        message = reply_message(
            delivery,
            body,
            route=route,
            now=time.monotonic(),
            deadline=job.deadline,
            user=user,
            content_type=content_type,
        )
        if job.is_settled or job.is_dead_letter:
            is_queued = job.session.publish(message)
        else:
            job.is_settled = True
            is_queued = job.session.publish(message, acks=delivery)
        self._count("answered" if is_queued else "dropped_replies")

    def _is_to_sender(self, job: Job, route: Route) -> bool:
        """
        Whether a reply may say that it is from this server's user.

        A server with a dialect cannot verify senders, so a request may come from another user than its key names.
        """
        if job.inbound is not None and job.inbound.route is not None:
            return job.inbound.is_to_sender
        tail = route.routing_key.removeprefix(f"{self._settings.service}.response.")
        return not route.exchange or client_of(tail, job.delivery) is True


def _dispatched(dispatch: Dispatch, job: Job) -> bytes | None:
    context.enter(context.Request(None, None, False, job))
    return dispatch(job.body)


def _label(job: Job) -> str:
    return printable(job.delivery.routing_key)
