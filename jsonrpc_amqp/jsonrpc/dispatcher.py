"""
Requests in, replies out: bytes -> bytes | None, JSON-RPC 2.0 to the letter (pure).

Three steps, each of which can be used alone: ``decode`` reads the bytes and checks the envelope, ``invoke`` runs one
method, ``encode`` writes the reply.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from inspect import Signature
from threading import Lock
from typing import Any, NamedTuple, TypeVar, overload

from ..context import Envelope, NoEnvelope, Request, current_or_none, enter, leave
from ..errors import (
    DELIVERY_LIMIT_REACHED,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    NOT_AUTHORISED,
    PARSE_ERROR,
    REDELIVERY_REFUSED,
)
from ..options import MAX_BATCH, MAX_DEPTH, MAX_METHOD, MAX_SIZE
from .error_objects import Response, error_response, over_cap
from .invocation import global_methods
from .methods import Ack, Methods, Policy, Redelivery, is_longer
from .reply_writer import ReplyWriter
from .text import Malformed, TooManyMembers, loads

__all__ = ["Ack", "Call", "Decoded", "Dispatcher", "Redelivery", "global_methods"]

logger = logging.getLogger("jsonrpc_amqp.dispatch")

_Function = TypeVar("_Function", bound=Callable[..., Any])

_ID_TYPES = frozenset({str, int, float, type(None)})

# Any error that the dispatcher itself makes fits in this.
_LEAST_MAX_SIZE = 1024
# A batch of requests with params.
_LEAST_MAX_DEPTH = 3

_NO_ENVELOPE = NoEnvelope()


class Call(NamedTuple):
    """
    One valid request.

    Attributes:
        params: Positional (a list) or by name (a dict).
        id: As it came; None for a notification, and for a call with an id of null, which gets a response.
        is_notification: It had no ``id`` member, so it never gets a response.
    """

    method: str
    params: list[Any] | dict[str, Any]
    id: str | int | float | None
    is_notification: bool


class Decoded(NamedTuple):
    """
    What a body holds.

    Attributes:
        members: In order; in place of an invalid request stands the error response to it.
        is_batch: The reply is an array, whatever the number of members.
    """

    members: list[Call | Response]
    is_batch: bool


class Dispatcher:
    """
    JSON-RPC 2.0 in bytes -> bytes | None over registered methods.

    A method returns a plain value or jsonrpcserver's ``Success``, ``Error`` or ``InvalidParams``, or raises its
    ``JsonRpcError`` to respond with that error. Any other exception (``SystemExit`` included, and the ``RemoteError``
    of a call that it makes itself) is logged with its traceback, and the caller gets "Internal error".
    Arguments are checked against the signature. Some builtins have none to read, and a signature does not show
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
        authorize: Returns whether a request may run. If not, the response is -32003, whether the method exists or not.

    Raises:
        TypeError: A method cannot be called, or is ``async def``.
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
        authorize: Callable[[Request], bool] | None = None,
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
        self._authorize = authorize
        self._methods = Methods(
            {} if methods is None else methods,
            extensions=_extensions or {},
            policy=Policy(redelivery, ack),
            max_name=max_method,
            expose_errors=expose_errors,
        )
        self._writer = ReplyWriter(max_size=max_size, max_depth=max_depth, expose_errors=expose_errors)
        self._failures = 0
        self._refusals = 0
        self._lock = Lock()

    # -- methods ----------------------------------------------------------------------------------------------

    def register(
        self,
        function: Callable[..., Any],
        name: str | None = None,
        *,
        redelivery: Redelivery | None = None,
        ack: Ack | None = None,
    ) -> None:
        """
        Let callers call a function.

        Args:
            name: The method's name; the function's own where it is None.
            redelivery, ack: For this method; the dispatcher's where it is None.

        Raises:
            TypeError: It cannot be called, is ``async def``, or the name is no string.
            ValueError: The name is empty, reserved, too long, or taken by another function; or there is no such policy.
        """
        self._methods.add(function, name, redelivery, ack)

    @overload
    def method(self, function: _Function, /) -> _Function: ...
    @overload
    def method(
        self, name: str | None = None, *, redelivery: Redelivery | None = None, ack: Ack | None = None
    ) -> Callable[[_Function], _Function]: ...
    def method(self, name: Any = None, *, redelivery: Redelivery | None = None, ack: Ack | None = None) -> Any:
        """
        Register the decorated function: ``@method``, ``@method("time.now")`` or ``@method(name="time.now")``.

        Returns the function unchanged. ``redelivery`` and ``ack`` are those of ``register``.

        Raises:
            TypeError: As ``register``.
            ValueError: As ``register``.
        """
        if callable(name):
            return self.method()(name)

        def decorate(function: _Function) -> _Function:
            self.register(function, name, redelivery=redelivery, ack=ack)
            return function

        return decorate

    def signature_of(self, name: str) -> Signature | None:
        """Return a method's signature, as far as it can be read, or None if there is no such method."""
        return self._methods.signature_of(name)

    @property
    def names(self) -> list[str]:
        """The names of all methods that can be called."""
        return self._methods.names

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
        Return the reply to one body.

        Never raises because of what the bytes hold or what a method does.

        Args:
            body: One JSON-RPC request object, or a batch.

        Returns:
            The response object or array, or None if there is nothing to reply.
        """
        decoded = self.decode(body)
        if self._methods.has_early:
            self._acknowledge_early(decoded.members)
        # One at a time, so that not all results of a batch are in memory before the size cap is applied.
        return self.encode(decoded, map(self.invoke, decoded.members))

    def reject_at_limit(self, body: bytes) -> bytes | None:
        """
        Return the reply to a body at its delivery limit, and mark its message as a dead letter.

        The response is -32002 for each request that would have run. If the body holds a request that may not run
        (-32003), its message is not marked.
        """
        _envelope().dead_letter()
        return self._reply_without_running(body, self._code_at_limit)

    def refuse_sender(self, body: bytes) -> bytes | None:
        """Return the reply to a body whose sender was not verified: -32003 for each request that would have run."""
        return self._reply_without_running(body, lambda _call: NOT_AUTHORISED)

    def _reply_without_running(self, body: bytes, code_for: Callable[[Call], int]) -> bytes | None:
        decoded = self.decode(body)
        return self.encode(decoded, (_without_running(member, code_for) for member in decoded.members))

    def _code_at_limit(self, call: Call) -> int:
        may_run = self._authorize is None or self._may_run(call, self._authorize)
        return DELIVERY_LIMIT_REACHED if may_run else NOT_AUTHORISED

    # -- the three steps --------------------------------------------------------------------------------------

    def decode(self, body: bytes) -> Decoded:
        """Read a body and check each request in it; an invalid one becomes the error response to send."""
        if len(body) > self._max_size:
            return _invalid_body(INVALID_REQUEST, over_cap(len(body), self._max_size))
        try:
            value = loads(body, max_depth=self._max_depth, max_members=self._max_batch)
        except TooManyMembers:
            return _invalid_body(INVALID_REQUEST, f"the batch is over the cap of {self._max_batch} members")
        except Malformed as exc:
            return _invalid_body(PARSE_ERROR, str(exc))
        if not isinstance(value, list):
            return Decoded([_member(value, self._max_method)], False)
        if not value:
            return _invalid_body(INVALID_REQUEST, "the batch is empty")
        return Decoded([_member(item, self._max_method) for item in value], True)

    def invoke(self, member: Call | Response) -> Response | None:
        """Run the method of a request. Return None for a notification, and an error response as it is."""
        if not isinstance(member, Call):
            return member
        response = self._respond(member)
        if not member.is_notification:
            return response
        if "error" in response:
            self._count_failures(1)
            if response["error"]["code"] != INTERNAL_ERROR:  # those are logged, with their traceback
                # The sender gets no reply, so this is the only trace of a misspelt name.
                logger.warning("a notification of %a ended in: %a", member.method[:200], response["error"]["message"])
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
        text: bytes | None
        if decoded.is_batch:
            text, failures = self._writer.write_batch(list(map(_method_of, decoded.members)), responses)
        else:
            (member,), (response,) = decoded.members, responses
            if response is None:
                return None
            text, failures = self._writer.write(_method_of(member), response)
        if failures:
            self._count_failures(failures)
        return text

    # -- one call ---------------------------------------------------------------------------------------------

    def _respond(self, call: Call) -> Response:
        """Run the method of a request, if it may run, and return the response."""
        if self._authorize is not None and not self._may_run(call, self._authorize):
            return error_response(call.id, NOT_AUTHORISED)
        try:
            method = self._methods.find(call.method)
        # TypeError is ours; a mapping from outside may raise anything.
        except Exception:
            logger.exception("method %.100r cannot be called", call.method)
            return error_response(call.id, INTERNAL_ERROR)
        if method is None:
            return error_response(call.id, METHOD_NOT_FOUND)
        envelope = _envelope()
        if envelope.redelivered and self._methods.policy_of(call.method).redelivery == "refuse":
            return _reject_redelivered(call, envelope)
        token = enter(Request(call.method, call.id, call.is_notification, envelope))
        try:
            return method.respond(call.params, call.id)
        finally:
            leave(token)

    def _may_run(self, call: Call, authorize: Callable[[Request], bool]) -> bool:
        envelope = _envelope()
        request = Request(call.method, call.id, call.is_notification, envelope)
        if authorize(request):
            return True
        envelope.forbid_dead_letter()
        with self._lock:
            self._refusals += 1
        logger.warning("user %a may not call %a", (request.user_id or "")[:200], call.method[:200])
        return False

    def _acknowledge_early(self, members: Iterable[Call | Response]) -> None:
        envelope = _envelope()
        if all(isinstance(member, Call) and self._is_early(member, envelope) for member in members):
            envelope.acknowledge()

    def _is_early(self, call: Call, envelope: Envelope) -> bool:
        policy = self._methods.policy_of(call.method)
        # A request that will be rejected may have to become a dead letter, so it must not be acknowledged yet.
        return policy.ack == "early" and not (envelope.redelivered and policy.redelivery == "refuse")

    def _count_failures(self, number: int) -> None:
        with self._lock:
            self._failures += number


def _envelope() -> Envelope:
    current = current_or_none()
    return _NO_ENVELOPE if current is None else current.envelope


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


def _method_of(member: Call | Response) -> str | None:
    return member.method if isinstance(member, Call) else None


# -- decoding -------------------------------------------------------------------------------------------------


def _member(value: Any, max_method: int) -> Call | Response:
    """Return a member of a batch (or the single request) as a call, or the error response to it."""
    if not isinstance(value, dict):
        return error_response(None, INVALID_REQUEST, "a request must be an object")
    id = value.get("id")
    if type(id) not in _ID_TYPES:
        return error_response(None, INVALID_REQUEST, "id must be a string, a number or null")
    problem = _problem(value)
    if problem is not None:
        return error_response(id, INVALID_REQUEST, problem)
    method = value["method"]
    if 4 * len(method) > max_method and is_longer(method, max_method):  # the first alone for nearly all
        # No method has such a name. A notification gets no reply to that, but one to what is no request.
        code = METHOD_NOT_FOUND if "id" in value else INVALID_REQUEST
        return error_response(id, code, f"method is over the cap of {max_method} bytes")
    return Call(method, value.get("params", []), id, "id" not in value)


def _problem(request: dict[str, Any]) -> str | None:
    """Return why an object is no request. Members that the specification does not know are ignored."""
    if request.get("jsonrpc") != "2.0":
        is_old = request.get("version") == "1.1"
        return 'jsonrpc must be "2.0"' + ("; for JSON-RPC 1.1 see the dialect rabbitmq-java" if is_old else "")
    if not isinstance(request.get("method"), str):
        return "method must be a string"
    if not isinstance(request.get("params", []), (list, dict)):
        return "params must be an array or an object"
    return None


def _invalid_body(code: int, data: str) -> Decoded:
    # It may hold notifications, whose sender sees no error, so it is logged.
    logger.warning("refused a body as a whole: %s", data)
    return Decoded([error_response(None, code, data)], False)


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
