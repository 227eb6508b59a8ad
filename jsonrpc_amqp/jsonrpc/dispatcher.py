"""
Requests in, replies out: bytes -> bytes | None, JSON-RPC 2.0 to the letter (pure).

Three steps, each of which can be used alone: ``decode`` reads the bytes and checks the envelope, ``invoke`` runs one
method, ``encode`` writes the reply.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

from ..context import Envelope, Request, current_envelope, enter, leave
from ..errors import (
    DELIVERY_LIMIT_REACHED,
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    NOT_AUTHORISED,
    REDELIVERY_REFUSED,
)
from ..options import MAX_BATCH, MAX_DEPTH, MAX_METHOD, MAX_SIZE
from .async_dispatch import AsyncDispatch, RunAsync
from .decoding import Call, Decoded, decode, method_of, request_of
from .discovery import DISCOVER, Discovery
from .error_objects import Response, error_response
from .invocation import PreparedMethod, global_methods
from .methods import Ack, Methods, Policy, Redelivery
from .middleware import Middleware
from .registry import Registry
from .reply_writer import ReplyWriter
from .service_info import Info

__all__ = ["Ack", "Call", "Decoded", "Dispatcher", "Redelivery", "global_methods"]

logger = logging.getLogger("jsonrpc_amqp.dispatch")

# Any error that the dispatcher itself makes fits in this.
_LEAST_MAX_SIZE = 1024
# A batch of requests with params.
_LEAST_MAX_DEPTH = 3


class Dispatcher(Registry):
    """
    JSON-RPC 2.0 in bytes -> bytes | None over registered methods.

    A method is a function, or ``async def``. It returns a plain value or jsonrpcserver's ``Success``, ``Error`` or
    ``InvalidParams``, or raises an ``ApplicationError``, another ``RemoteError`` or jsonrpcserver's ``JsonRpcError`` to
    respond with that error. Any other exception (``SystemExit`` included, and the ``RemoteError`` that a call of its
    own ended in) is logged with its traceback, and the caller gets "Internal error". Arguments are checked against the
    signature, and converted by its type hints. Some builtins have none to read, and a signature does not show
    everything; there, a ``TypeError`` counts as "Invalid params" if the call itself raised it, and as the method's own
    failure if code in it did.

    Any number of threads may call it at once.

    Args:
        methods: Functions by name, for example jsonrpcserver's ``global_methods``. It is never written to, and
            entries added to it later can be called.
        expose_errors: Send the text of uncaught exceptions to callers, as ``data``. It may hold secrets.
        max_size: Most bytes of a request, and of a reply.
        max_batch: Most members of a batch.
        max_depth: Most arrays and objects inside one another, in a request and in a reply.
        max_method: Most bytes of a method's name, in UTF-8; no method has a longer one.
        redelivery: What to do with a request that a server may have had before: "run" runs it again, "refuse" responds
            with -32001 instead. ``register`` can override it for one method.
        ack: When to acknowledge a request to the broker: "late", after its reply is written, so that it survives a
            crash of this process; or "early", before the method runs, so that it is lost in a crash.
            A batch is acknowledged early if all of its methods are.
        cancel_on_deadline: Cancel a method that is ``async def`` once its caller no longer waits. ``register`` can
            override it for one method.
        validate: Convert arguments to what the type hints of the method declare, and respond with "Invalid params" to
            those that do not fit. ``register`` can override it for one method.
        check_results: Fail where a method returns what it is not declared to return; for tests.
        middleware: Runs around each request for a method; the first is the outermost. See ``docs/middleware.md``.
        authorize: Returns whether a request may run, or is ``async def`` and does. If not, the response is -32003,
            whether the method exists or not.
        run_async: Runs a coroutine on an event loop, waits, and returns its result: for methods that are ``async def``
            where the dispatcher is called. Without it those are run by ``AsyncDispatch.serve`` alone.
        info: What ``rpc.discover`` says of the service beside its methods; None: there is no such method.

    Raises:
        TypeError: A method cannot be called, or has a type hint that nothing converts to.
        ValueError: A name is empty, reserved or too long, or a limit leaves no room for any reply.
    """

    def __init__(
        self,
        methods: Mapping[str, Callable[..., Any]] | None = None,
        *,
        expose_errors: bool = False,
        max_size: int = MAX_SIZE,
        max_batch: int = MAX_BATCH,
        max_depth: int = MAX_DEPTH,
        max_method: int = MAX_METHOD,
        redelivery: Redelivery = "run",
        ack: Ack = "late",
        cancel_on_deadline: bool = False,
        validate: bool = True,
        check_results: bool = False,
        middleware: Sequence[Middleware] = (),
        authorize: Callable[[Request], bool] | Callable[[Request], Awaitable[bool]] | None = None,
        run_async: RunAsync | None = None,
        info: Info | None = None,
        _extensions: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        _check_least("max_size", max_size, _LEAST_MAX_SIZE)
        _check_least("max_batch", max_batch, 1)
        _check_least("max_depth", max_depth, _LEAST_MAX_DEPTH)
        _check_least("max_method", max_method, 1)
        self._max_size = max_size
        self._max_batch = max_batch
        self._max_depth = max_depth
        self._max_method = max_method
        extensions = dict(_extensions or {})
        super().__init__(
            Methods(
                {} if methods is None else methods,
                extensions=extensions,
                policy=Policy(redelivery, ack, cancel_on_deadline, validate),
                max_name=max_method,
                expose_errors=expose_errors,
                check_results=check_results,
                middleware=middleware,
            )
        )
        if info is not None:
            extensions[DISCOVER] = Discovery(info, self._methods.functions)
        self._writer = ReplyWriter(max_size=max_size, max_depth=max_depth, expose_errors=expose_errors)
        self._failures = 0
        self._refusals = 0
        self._lock = Lock()
        self.asynchronous = AsyncDispatch(self._methods, self, self._writer, run_async, authorize)
        self._authorize = self.asynchronous.authorize_on_thread

    # -- counters ---------------------------------------------------------------------------------------------

    @property
    def failures(self) -> int:
        """Error objects sent so far, and notifications that ended in an error."""
        return self._failures

    @property
    def refusals(self) -> int:
        """Requests so far that were not authorised."""
        return self._refusals

    # -- bodies -----------------------------------------------------------------------------------------------

    def __call__(self, body: bytes) -> bytes | None:
        """
        Return the reply to one request object or batch: a response object or array, or None if there is none to send.

        Never raises because of what the bytes hold or what a method does.
        """
        decoded, asynchronous = self.decode(body), self.asynchronous
        if asynchronous.exists and asynchronous.can_wait and asynchronous.is_needed(decoded):
            return asynchronous.serve_and_wait(decoded)
        return self.serve(decoded)

    def serve(self, decoded: Decoded) -> bytes | None:
        """Return the reply to a body that needs no loop."""
        if self._methods.has_early:
            self.acknowledge_early(decoded.members)
        # One at a time, so that not all results of a batch are in memory before the size cap is applied.
        return self.encode(decoded, map(self.invoke, decoded.members))

    def reject_at_limit(self, body: bytes) -> bytes | None:
        """
        Return the reply to a body at its delivery limit, and mark its message as a dead letter.

        The response is -32002 for each request that would have run. If the body holds a request that may not run
        (-32003), its message is not marked.
        """
        current_envelope().dead_letter()
        return self._reply_without_running(body, self._code_at_limit)

    def refuse_sender(self, body: bytes) -> bytes | None:
        """Return the reply to a body whose sender was not verified: -32003 for each request that would have run."""
        return self._reply_without_running(body, lambda _call: NOT_AUTHORISED)

    def _reply_without_running(self, body: bytes, code_for: Callable[[Call], int]) -> bytes | None:
        decoded = self.decode(body)
        return self.encode(decoded, (_without_running(member, code_for) for member in decoded.members))

    def _code_at_limit(self, call: Call) -> int:
        return DELIVERY_LIMIT_REACHED if self._may_run(call) else NOT_AUTHORISED

    # -- the three steps --------------------------------------------------------------------------------------

    def decode(self, body: bytes) -> Decoded:
        """Read a body and check each request in it; an invalid one becomes the error response to send."""
        return decode(
            body,
            max_size=self._max_size,
            max_depth=self._max_depth,
            max_batch=self._max_batch,
            max_method=self._max_method,
        )

    def invoke(self, member: Call | Response) -> Response | None:
        """Run the method of a request. Return None for a notification, and an error response as it is."""
        if not isinstance(member, Call):
            return member
        method = self.admit(member)
        if isinstance(method, dict):
            return self.finish(member, method)
        token = enter(request_of(member))
        try:
            if method.is_async:  # it was not known when the body was looked at, or is called alone
                return self.finish(member, self.asynchronous.run_and_wait(method, member))
            return self.finish(member, method.respond(member.params, member.id))
        finally:
            leave(token)

    def finish(self, call: Call, response: Response) -> Response | None:
        """Return the response to a call; note the error of a notification, which gets none."""
        if not call.is_notification:
            return response
        if "error" in response:
            self._count_failures(1)
            if response["error"]["code"] != INTERNAL_ERROR:  # those are logged, with their traceback
                # The sender gets no reply, so this is the only trace of a misspelt name.
                logger.warning("a notification of %a ended in: %a", call.method[:200], response["error"]["message"])
        return None

    def encode(self, decoded: Decoded, responses: Iterable[Response | None]) -> bytes | None:
        """
        Write the reply.

        Args:
            decoded: What ``decode`` returned.
            responses: What ``invoke`` returned for each member, in order; may be lazy.

        Returns:
            At most ``max_size`` bytes, or None if there is nothing to reply.
        """
        if decoded.is_batch:
            batch = self._writer.batch(len(decoded.members))
            for member, response in zip(decoded.members, responses, strict=True):
                batch.add(method_of(member), response)
            return self.counted(batch.finish())
        (member,), (response,) = decoded.members, responses
        return None if response is None else self.counted(self._writer.write(method_of(member), response))

    def counted(self, reply: tuple[bytes | None, int]) -> bytes | None:
        text, failures = reply
        if failures:
            self._count_failures(failures)
        return text

    # -- one call ---------------------------------------------------------------------------------------------

    def admit(self, call: Call) -> PreparedMethod | Response:
        """Return the method of a request, or what responds to it if that is not run."""
        return self.admit_if(call, is_allowed=self._may_run(call))

    def admit_if(self, call: Call, *, is_allowed: bool) -> PreparedMethod | Response:
        """Do what ``admit`` does; the request is authorised or not."""
        if not is_allowed:
            return self._methods.rejection(call.method, error_response(call.id, NOT_AUTHORISED))
        try:
            method = self._methods.find(call.method)
        # TypeError is ours; a mapping from outside may raise anything.
        except Exception:
            logger.exception("method %.100r cannot be called", call.method)
            return self._methods.rejection(call.method, error_response(call.id, INTERNAL_ERROR))
        if method is None:
            return self._methods.rejection(call.method, error_response(call.id, METHOD_NOT_FOUND, call.method))
        envelope = current_envelope()
        if envelope.redelivered and self._methods.policy_of(call.method).redelivery == "refuse":
            return self._methods.rejection(call.method, _reject_redelivered(call, envelope))
        return method

    def _may_run(self, call: Call) -> bool:
        if self._authorize is None or self._authorize(request := request_of(call)):
            return True
        self.note_refusal(request)
        return False

    def note_refusal(self, request: Request) -> None:
        """Count and log a request that is not authorised."""
        request.envelope.forbid_dead_letter()
        with self._lock:
            self._refusals += 1
        logger.warning("user %a may not call %a", (request.user_id or "")[:200], (request.method or "")[:200])

    def acknowledge_early(self, members: Iterable[Call | Response]) -> None:
        is_early, envelope = self._methods.is_early, current_envelope()
        if all(isinstance(each, Call) and is_early(each.method, redelivered=envelope.redelivered) for each in members):
            envelope.acknowledge()

    def _count_failures(self, number: int) -> None:
        with self._lock:
            self._failures += number


def _reject_redelivered(call: Call, envelope: Envelope) -> Response:
    logger.warning("method %.100r was redelivered and is not run again", call.method)
    if call.is_notification:
        envelope.dead_letter()
    return error_response(call.id, REDELIVERY_REFUSED)


def _without_running(member: Call | Response, code_for: Callable[[Call], int]) -> Response | None:
    """Return the response to a member that is not run; None for a notification."""
    if not isinstance(member, Call):
        return member
    code = code_for(member)
    return None if member.is_notification else error_response(member.id, code)


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
