"""
Requests in, answers out: bytes -> bytes | None, JSON-RPC 2.0 to the letter (pure; the only import of jsonrpcserver).

Three steps, each of which can be used alone: ``decode`` reads the bytes and checks the envelope, ``invoke`` runs one
method, ``encode`` writes the answer. Results, errors and what is said of arguments that do not fit are jsonrpcserver's.
It is handed one checked request at a time, since one bad member would cost it the whole batch, and none that ends in a
plain value, for which it takes longer than all that is left.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Any, Literal, NamedTuple, TypeVar, cast, get_args, overload

from ..context import Envelope, NoEnvelope, Request, current_or_none, enter, leave
from ..errors import (
    DELIVERY_LIMIT_REACHED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    NOT_AUTHORISED,
    PARSE_ERROR,
    REDELIVERY_REFUSED,
    EncodeError,
)
from .text import Malformed, dumps, loads

with warnings.catch_warnings():
    # Python 3.11 and 3.12 deprecated (and 3.13 took back) what jsonrpcserver 5 reads its schema with.
    warnings.filterwarnings("ignore", "(read|open)_text is deprecated", DeprecationWarning)
    from jsonrpcserver import Error, JsonRpcError, Success
    from jsonrpcserver.dispatcher import dispatch_request, to_response
    from jsonrpcserver.methods import global_methods
    from jsonrpcserver.request import Request as JsonRpcServerRequest
    from jsonrpcserver.response import to_serializable_one
    from jsonrpcserver.result import ErrorResult, SuccessResult
    from jsonrpcserver.sentinels import NOCONTEXT

__all__ = ["Ack", "Call", "Decoded", "Dispatcher", "Redelivery", "global_methods", "internal_error", "too_large"]

logger = logging.getLogger("jsonrpc_amqp.dispatch")

Response = dict[str, Any]
"""One JSON-RPC response object: ``jsonrpc``, ``id``, and ``result`` or ``error``."""

_Function = TypeVar("_Function", bound=Callable[..., Any])

# https://www.jsonrpc.org/specification#error_object
_MESSAGES = {
    PARSE_ERROR: "Parse error",
    INVALID_REQUEST: "Invalid Request",
    METHOD_NOT_FOUND: "Method not found",
    INVALID_PARAMS: "Invalid params",
    INTERNAL_ERROR: "Internal error",
    REDELIVERY_REFUSED: "Redelivered: it may have run before, and is not run again",
    DELIVERY_LIMIT_REACHED: "Delivery limit reached: it came back too often, and is not run again",
    NOT_AUTHORISED: "Not authorised: it did not run",
}
_ID_TYPES = frozenset({str, int, float, type(None)})
_RESERVED = "rpc."

# What jsonrpcserver's Success and Error give; it names these classes nowhere.
_SUCCESS, _ERROR = type(Success()), type(Error(0, ""))
_RESULTS = (_SUCCESS, _ERROR)

# Kept free for each batch member that is still to be answered, so that one large result costs only itself.
_ERROR_SIZE = 256
# Any error that the dispatcher itself makes fits in this.
_LEAST_MAX_SIZE = 1024
# A batch of requests with params.
_LEAST_MAX_DEPTH = 3

_NO_ENVELOPE = NoEnvelope()


Redelivery = Literal["run", "refuse"]
Ack = Literal["late", "early"]


class _Policy(NamedTuple):
    """What a death of the process means to a method; see ``Dispatcher``."""

    redelivery: Redelivery
    ack: Ack

    def check(self) -> _Policy:
        for field, choices in (("redelivery", Redelivery), ("ack", Ack)):
            if getattr(self, field) not in get_args(choices):
                raise ValueError(f"{field} is one of {get_args(choices)}, not {getattr(self, field)!r}")
        return self


class Call(NamedTuple):
    """
    One valid request.

    Attributes:
        params: Positional (a list) or by name (a dict).
        id: As it came; None for a notification, and for a call with an id of null, which is answered.
        is_notification: It had no ``id`` member, so it is never answered.
    """

    method: str
    params: list[Any] | dict[str, Any]
    id: str | int | float | None
    is_notification: bool


class Decoded(NamedTuple):
    """
    What a body holds.

    Attributes:
        members: In order; what is no valid request is already the error response that it gets.
        is_batch: The answer is an array, whatever the number of members.
    """

    members: list[Call | Response]
    is_batch: bool


class Dispatcher:
    """
    JSON-RPC 2.0 in bytes -> bytes | None over registered methods.

    A method returns a plain value or jsonrpcserver's ``Success``, ``Error`` or ``InvalidParams``, or raises its
    ``JsonRpcError`` to answer with that error. Whatever else it raises (``SystemExit`` included, and the
    ``RemoteError`` of a call that it makes itself) is logged with its traceback, and the caller is told "Internal
    error". Arguments are checked against the signature.
    Where there is none to read, as with some builtins, and for what a signature does not show, a ``TypeError`` counts
    as "Invalid params" when the call itself raised it, and as the method's own failure when code in it did.

    Any number of threads may call it at once.

    Args:
        methods: Functions by name, for example jsonrpcserver's ``global_methods``. It is never written to, and
            entries added to it later can be called.
        expose_errors: Send the text of uncaught exceptions to callers, as ``data``. It may hold secrets.
        max_size: Most bytes of a request, and of a reply.
        max_batch: Most members of a batch.
        max_depth: Most arrays and objects inside one another, in a request and in a reply.
        redelivery: What becomes of a request that a server may have had before: "run" runs it again, "refuse" answers
            it with -32001 instead. ``register`` can say otherwise for one method.
        ack: When the broker is told that a request is done with: "late", after its answer is written, so that it
            survives the death of this process; or "early", before the method runs, so that it is lost with it.
            A batch is acknowledged early if all of its methods say so.
        authorize: Says whether a request may run; one that may not is answered with -32003, whether there is such a
            method or not.

    Raises:
        TypeError: A method cannot be called, or is ``async def``.
        ValueError: A name is empty or reserved, or a limit is too low to answer anything.
    """

    def __init__(
        self,
        methods: Mapping[str, Callable[..., Any]] | None = None,
        *,
        expose_errors: bool = False,
        max_size: int = 16 * 1024 * 1024,
        max_batch: int = 1000,
        max_depth: int = 100,
        redelivery: Redelivery = "run",
        ack: Ack = "late",
        authorize: Callable[[Request], bool] | None = None,
        _extensions: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        _check_least("max_size", max_size, _LEAST_MAX_SIZE)
        _check_least("max_batch", max_batch, 1)
        _check_least("max_depth", max_depth, _LEAST_MAX_DEPTH)
        self._expose_errors = expose_errors
        self._max_size = max_size
        self._max_batch = max_batch
        self._max_depth = max_depth
        self._policy = _Policy(redelivery, ack).check()
        self._authorize = authorize
        self._policies: dict[str, _Policy] = {}
        self._has_early = ack == "early"
        self._registered: dict[str, Callable[..., Any]] = {}
        self._given: Mapping[str, Callable[..., Any]] = {} if methods is None else methods
        self._extensions: Mapping[str, Callable[..., Any]] = _extensions or {}
        self._prepared: dict[str, _Method] = {}
        self._failures = 0
        self._refusals = 0
        self._lock = Lock()
        for name, function in self._given.items():
            _check_name(name)
            self._prepare(name, function)

    @property
    def failures(self) -> int:
        """Error objects sent so far, and notifications that ended in one nobody was sent."""
        return self._failures

    @property
    def refusals(self) -> int:
        """Requests so far that were not authorised."""
        return self._refusals

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
            redelivery, ack: What counts for this method; the dispatcher's where it is None.

        Raises:
            TypeError: It cannot be called, is ``async def``, or the name is no string.
            ValueError: The name is empty, reserved, or taken by another function; or there is no such policy.
        """
        name = _own_name(function) if name is None else name
        _check_name(name)
        policy = _Policy(redelivery or self._policy.redelivery, ack or self._policy.ack).check()
        with self._lock:
            if self._function(name) not in (None, function):
                raise ValueError(f"method {name!r} is registered already")
            self._prepare(name, function)
            self._registered[name] = function
            self._policies[name] = policy
            self._has_early = self._has_early or policy.ack == "early"

    @overload
    def method(self, function: _Function, /) -> _Function: ...
    @overload
    def method(
        self, name: str | None = None, *, redelivery: Redelivery | None = None, ack: Ack | None = None
    ) -> Callable[[_Function], _Function]: ...
    def method(self, name: Any = None, *, redelivery: Redelivery | None = None, ack: Ack | None = None) -> Any:
        """
        Register the decorated function: ``@method``, ``@method("time.now")`` or ``@method(name="time.now")``.

        The function is given back as it was. ``redelivery`` and ``ack`` are those of ``register``.

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

    def signature_of(self, name: str) -> inspect.Signature | None:
        """Give a method's signature, as far as it can be read; None: there is no such method."""
        try:
            method = self._find(name)
        except TypeError:
            return None
        return None if method is None else method.__signature__

    @property
    def names(self) -> list[str]:
        """The names of all methods that can be called."""
        return sorted({*self._registered, *self._given})

    def __call__(self, body: bytes) -> bytes | None:
        """
        Answer one body.

        Never raises because of what the bytes hold or what a method does.

        Args:
            body: One JSON-RPC request object, or a batch.

        Returns:
            The response object or array, or None where nothing is to be answered.
        """
        decoded = self.decode(body)
        if self._has_early:
            self._acknowledge_early(decoded.members)
        # One at a time, so that not all results of a batch are in memory before the size cap is applied.
        return self.encode(decoded, map(self.invoke, decoded.members))

    def refuse_at_limit(self, body: bytes) -> bytes | None:
        """
        Answer a body that came back too often, and leave it to the dead letters: -32002 for each request that would
        have run. With one in it that may not run (-32003) it is none.
        """
        _envelope().dead_letter()
        return self._refuse_all(body, self._code_at_limit)

    def refuse_sender(self, body: bytes) -> bytes | None:
        """Answer a body whose sender is not who they seem to be: -32003 for each request that would have run."""
        return self._refuse_all(body, lambda _call: NOT_AUTHORISED)

    def _refuse_all(self, body: bytes, code_for: Callable[[Call], int]) -> bytes | None:
        decoded = self.decode(body)
        return self.encode(decoded, (_instead(member, code_for) for member in decoded.members))

    def _code_at_limit(self, call: Call) -> int:
        may_run = self._authorize is None or self._may_run(call, self._authorize)
        return DELIVERY_LIMIT_REACHED if may_run else NOT_AUTHORISED

    def decode(self, body: bytes) -> Decoded:
        """Read a body and check each request in it; what is wrong becomes the error response to send."""
        if len(body) > self._max_size:
            return _refused(INVALID_REQUEST, _over_cap(len(body), self._max_size))
        try:
            value = loads(body, max_depth=self._max_depth)
        except Malformed as exc:
            return _refused(PARSE_ERROR, str(exc))
        if not isinstance(value, list):
            return Decoded([_member(value)], False)
        if not value:
            return _refused(INVALID_REQUEST, "the batch is empty")
        if len(value) > self._max_batch:
            return _refused(INVALID_REQUEST, f"the batch is over the cap of {self._max_batch} members")
        return Decoded([_member(item) for item in value], True)

    def invoke(self, member: Call | Response) -> Response | None:
        """Run the method that a request names. None: a notification; the response of what was refused is given back."""
        if not isinstance(member, Call):
            return member
        response = self._run(member)
        if not member.is_notification:
            return response
        if "error" in response:
            self._count_failures(1)
            if response["error"]["code"] != INTERNAL_ERROR:  # those are logged, with their traceback
                # Nobody is told, so this is the only trace of a misspelt name.
                logger.warning("a notification of %a ended in: %a", member.method[:200], response["error"]["message"])
        return None

    def encode(self, decoded: Decoded, responses: Iterable[Response | None]) -> bytes | None:
        """
        Write the reply.

        Args:
            decoded: What ``decode`` gave.
            responses: What ``invoke`` gives for each member, in order; may be lazy.

        Returns:
            At most ``max_size`` bytes, or None where nothing is to be answered.
        """
        if decoded.is_batch:
            return self._encode_batch(decoded.members, responses)
        (member,), (response,) = decoded.members, responses
        if response is None:
            return None
        text, failed = self._write(member, response, self._max_size, self._max_depth)
        return self._sized(text, int(failed))

    def _encode_batch(self, members: list[Call | Response], responses: Iterable[Response | None]) -> bytes | None:
        texts: list[bytes] = []
        failures = 0
        room, later = self._max_size - len("[]"), len(members)
        for member, response in zip(members, responses, strict=True):
            later -= 1
            if response is None:
                continue
            text, failed = self._write(member, response, room - later * _ERROR_SIZE, self._max_depth - 1)
            room -= len(text) + len(",")
            texts.append(text)
            failures += failed
        return self._sized(b"[%b]" % b",".join(texts), failures) if texts else None

    def _write(self, member: Call | Response, response: Response, room: int, max_depth: int) -> tuple[bytes, bool]:
        """Give the text of one response, or of the error that it becomes, and whether it is an error."""
        response, text = self._writable(member, response, max_depth)
        if len(text) > room:
            logger.error("the answer of %r is over the size cap: %d bytes", _label(member), len(text))
            response = self._too_large(response["id"])
            text = dumps(response)
        return text, "error" in response

    def _writable(self, member: Call | Response, response: Response, max_depth: int) -> tuple[Response, bytes]:
        """Give a response, or what is left of it that JSON has a form for, with its text."""
        try:
            return response, dumps(response, max_depth=max_depth)
        except EncodeError as exc:
            logger.exception("the answer of %r cannot be written as JSON", _label(member))
            detail = (str(exc),) if self._expose_errors else ()
        error = response.get("error", {})
        if "data" in error:
            bare = {"jsonrpc": "2.0", "error": {**error}, "id": response["id"]}
            del bare["error"]["data"]
            return self._writable(member, bare, max_depth)
        return self._writable(member, _error(response["id"], INTERNAL_ERROR, *detail), max_depth)

    def _sized(self, text: bytes, failures: int) -> bytes:
        """Give a reply that fits. Only ids that are huge themselves leave one that does not."""
        if len(text) > self._max_size:
            text, failures = dumps(self._too_large(None)), 1
        self._count_failures(failures)
        return text

    def _too_large(self, id: Any) -> Response:
        return _error(id, INTERNAL_ERROR, f"the reply is over the size cap of {self._max_size} bytes")

    def _run(self, call: Call) -> Response:
        """Run the method that a request names, if it may run."""
        if self._authorize is not None and not self._may_run(call, self._authorize):
            return _error(call.id, NOT_AUTHORISED)
        try:
            method = self._find(call.method)
        # TypeError is ours; a mapping that was given may raise what it likes.
        except Exception:
            logger.exception("method %.100r cannot be called", call.method)
            return _error(call.id, INTERNAL_ERROR)
        if method is None:
            return _error(call.id, METHOD_NOT_FOUND)
        envelope = _envelope()
        if envelope.redelivered and self._policy_of(call).redelivery == "refuse":
            return self._refuse_redelivered(call, envelope)
        token = enter(Request(call.method, call.id, call.is_notification, envelope))
        try:
            return _respond(method, call)
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

    def _policy_of(self, call: Call) -> _Policy:
        return self._policies.get(call.method, self._policy)

    def _acknowledge_early(self, members: Iterable[Call | Response]) -> None:
        envelope = _envelope()
        if all(isinstance(member, Call) and self._ends_early(member, envelope) for member in members):
            envelope.acknowledge()

    def _ends_early(self, call: Call, envelope: Envelope) -> bool:
        policy = self._policy_of(call)
        # What will be refused may yet have to be left to the dead letters.
        return policy.ack == "early" and not (envelope.redelivered and policy.redelivery == "refuse")

    @staticmethod
    def _refuse_redelivered(call: Call, envelope: Envelope) -> Response:
        logger.warning("method %.100r was redelivered and is not run again", call.method)
        if call.is_notification:
            envelope.dead_letter()
        return _error(call.id, REDELIVERY_REFUSED)

    def _find(self, name: str) -> _Method | None:
        """
        Give the method of a name, None where there is none.

        Raises:
            TypeError: There is one in the mapping that was given, and it cannot be called.
        """
        function = self._function(name)
        if function is None:
            return None
        method = self._prepared.get(name)
        if method is None or method.function is not function:
            method = self._prepare(name, function)
        return method

    def _function(self, name: str) -> Callable[..., Any] | None:
        """Look a name up. With ``get``: a defaultdict that was given must not make methods of names from the wire."""
        if name.startswith(_RESERVED):
            return self._extensions.get(name)
        function = self._registered.get(name)
        return self._given.get(name) if function is None else function

    def _prepare(self, name: str, function: Callable[..., Any]) -> _Method:
        method = self._prepared[name] = _Method(name, function, self._expose_errors)
        return method

    def _count_failures(self, number: int) -> None:
        if number:
            with self._lock:
                self._failures += number


def _instead(member: Call | Response, code_for: Callable[[Call], int]) -> Response | None:
    """Give what is answered instead of running a request."""
    if not isinstance(member, Call):
        return member
    code = code_for(member)
    return None if member.is_notification else _error(member.id, code)


def _envelope() -> Envelope:
    around = current_or_none()
    return _NO_ENVELOPE if around is None else around.envelope


def too_large(size: int, max_size: int) -> bytes:
    """
    Write the answer to a body that was thrown away unread.

    Args:
        size: Bytes that it had.
        max_size: Bytes that it might have had.
    """
    return dumps(_error(None, INVALID_REQUEST, _over_cap(size, max_size)))


def internal_error(data: str | None = None) -> bytes:
    """Write the answer to a request whose real answer cannot be sent; its id is null."""
    return dumps(_error(None, INTERNAL_ERROR, *(() if data is None else (data,))))


def _over_cap(size: int, max_size: int) -> str:
    return f"the request has {size} bytes, over the cap of {max_size}"


def _respond(method: _Method, call: Call) -> Response:
    """Run a method, and give its response as jsonrpcserver would."""
    params = call.params
    # Its own steps, five objects for a plain result, would cost a tenth of all that a server does for a call.
    if not method.takes(params):
        result = dispatch_request({call.method: method}, NOCONTEXT, JsonRpcServerRequest(call.method, params, call.id))[
            1
        ]
    elif isinstance(params, list):
        result = method(*params)
    else:
        result = method(**params)
    if isinstance(result, _RESULTS):
        # A notification too has an id here (None), so that this tells how it ended.
        response = to_response(JsonRpcServerRequest(call.method, params, call.id), result)
        return cast(Response, to_serializable_one(response))
    return {"jsonrpc": "2.0", "result": result, "id": call.id}


class _Method:
    """
    A registered function that gives a plain value or jsonrpcserver's ``Result``, and raises nothing.

    What jsonrpcserver would make of an exception reveals the exception's text, and ends the thread at a SystemExit.
    """

    __slots__ = ("__signature__", "_counts", "_expose_errors", "function", "name")

    def __init__(self, name: str, function: Callable[..., Any], expose_errors: bool) -> None:
        _check_callable(name, function)
        self.name = name
        self.function = function
        self._expose_errors = expose_errors
        self.__signature__ = _signature(function)
        self._counts = _positional_counts(self.__signature__)

    def takes(self, params: list[Any] | dict[str, Any]) -> bool:
        """Tell whether the function can be called with these."""
        try:
            if isinstance(params, list):
                # Counting is enough for nearly all, and takes a tenth of the time.
                return len(params) in self._counts or self.__signature__.bind(*params) is not None
            return self.__signature__.bind(**params) is not None
        except TypeError:
            return False

    # Positional-only: a caller may well name an argument "self".
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        try:
            try:
                return _checked(self.function(*args, **kwargs))
            except JsonRpcError as exc:
                return _checked(Error(exc.code, exc.message, exc.data))
        # BaseException: a method that calls sys.exit() has failed, and must not take the server's thread along.
        except BaseException as exc:
            return self._failed(exc)

    def _failed(self, exc: BaseException) -> Any:
        if isinstance(exc, TypeError) and _raised_by_the_call_itself(exc):
            logger.debug("method %r was called with params that do not fit", self.name, exc_info=exc)
            return Error(INVALID_PARAMS, _MESSAGES[INVALID_PARAMS])
        logger.error("method %r failed", self.name, exc_info=exc)
        detail = (_text(exc),) if self._expose_errors else ()
        return Error(INTERNAL_ERROR, _MESSAGES[INTERNAL_ERROR], *detail)


def _checked(value: Any) -> Any:
    """Give a method's outcome back; an error of jsonrpcserver's must be one that the specification knows."""
    if isinstance(value, _ERROR) and isinstance(value._error, ErrorResult):
        _check_error(value._error.code, value._error.message)
        return value
    if isinstance(value, _RESULTS) and not (isinstance(value, _SUCCESS) and isinstance(value._value, SuccessResult)):
        return Success(value)  # somebody else's use of that class
    return value


def _check_error(code: Any, message: Any) -> None:
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"the code of an error must be an integer, not {code!r}")
    if not isinstance(message, str):
        raise TypeError(f"the message of an error must be a string, not {message!r}")


def _raised_by_the_call_itself(exc: BaseException) -> bool:
    """Tell whether no Python code of the method had run: the traceback ends in the frame that called it."""
    return exc.__traceback__ is not None and exc.__traceback__.tb_next is None


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:
        return type(exc).__name__


def _positional_counts(signature: inspect.Signature) -> range:
    """Give how many positional arguments a function takes; what more it might take is left to ``bind``."""
    parameters = list(signature.parameters.values())
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    required = [each for each in parameters if each.default is each.empty]
    if any(each.kind is each.KEYWORD_ONLY for each in required):
        return range(0)
    return range(sum(each in positional for each in required), len(positional) + 1)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    # Not only ValueError, as for some builtins: Python 3.14 evaluates annotations here, which may raise anything.
    except Exception:
        return inspect.signature(_anything)


def _anything(*args: Any, **kwargs: Any) -> None:
    """Lend its signature to functions that have none to read."""


def _member(value: Any) -> Call | Response:
    """Give one member of a batch (or the single request) as a call, or as the error response that it gets."""
    if not isinstance(value, dict):
        return _error(None, INVALID_REQUEST, "a request must be an object")
    id = value.get("id")
    if type(id) not in _ID_TYPES:
        return _error(None, INVALID_REQUEST, "id must be a string, a number or null")
    flaw = _flaw(value)
    if flaw is not None:
        return _error(id, INVALID_REQUEST, flaw)
    return Call(value["method"], value.get("params", []), id, "id" not in value)


def _flaw(request: dict[str, Any]) -> str | None:
    """Say what keeps an object from being a request. Members that the specification does not know are ignored."""
    if request.get("jsonrpc") != "2.0":
        is_old = request.get("version") == "1.1"
        return 'jsonrpc must be "2.0"' + ("; for JSON-RPC 1.1 see the dialect rabbitmq-java" if is_old else "")
    if not isinstance(request.get("method"), str):
        return "method must be a string"
    if not isinstance(request.get("params", []), (list, dict)):
        return "params must be an array or an object"
    return None


def _refused(code: int, data: str) -> Decoded:
    """Give what stands for a body that is refused as a whole; it may hold notifications, whose sender is not told."""
    logger.warning("refused a body as a whole: %s", data)
    return Decoded([_error(None, code, data)], False)


def _error(id: Any, code: int, *data: Any) -> Response:
    """Give an error response, with ``data`` where there is one."""
    error = {"code": code, "message": _MESSAGES[code]}
    if data:
        (error["data"],) = data
    return {"jsonrpc": "2.0", "error": error, "id": id}


def _label(member: Call | Response) -> str | None:
    return member.method if isinstance(member, Call) else None


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def _own_name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "<none>")
    if name.startswith("<"):
        raise ValueError(f"{function!r} has no name of its own: say under which name to register it")
    return cast(str, name)


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"the name of a method must be a string, not {name!r}")
    if not name:
        raise ValueError("the name of a method must not be empty")
    if name.startswith(_RESERVED):
        raise ValueError(f"method name {name!r}: JSON-RPC reserves the names that begin with {_RESERVED!r}")


def _check_callable(name: str, function: Callable[..., Any]) -> None:
    if not callable(function):
        raise TypeError(f"method {name!r} is not callable: {function!r}")
    # An object may have an ``async def __call__``.
    if any(map(_is_async, (function, type(function).__call__))):
        raise TypeError(f"method {name!r} is async def, which is not supported yet")


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
