"""
One registered function, called as jsonrpcserver calls it (pure; the only import of jsonrpcserver).

Results, errors and the description of arguments that do not fit are jsonrpcserver's. It gets one checked request at a
time, because one invalid member would cost it the whole batch, and only those whose outcome is not a plain value,
because its own dispatch of a plain value takes longer than all the other steps of a call together.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable
from traceback import walk_tb
from typing import Any, cast, get_origin

from ..errors import INTERNAL_ERROR, INVALID_PARAMS, RemoteError
from .conversion import DoesNotFit, UnsupportedHint, converter
from .error_handlers import ErrorHandlers
from .error_objects import MESSAGES, Response
from .parameters import Parameters
from .signatures import innermost_code, read_signature
from .text import dumps, loads

with warnings.catch_warnings():
    # Python 3.11 and 3.12 deprecated (and 3.13 took back) the function with which jsonrpcserver 5 reads its schema.
    warnings.filterwarnings("ignore", "(read|open)_text is deprecated", DeprecationWarning)
    from jsonrpcserver import Error, JsonRpcError, Success, methods
    from jsonrpcserver.dispatcher import to_response
    from jsonrpcserver.request import Request as JsonRpcServerRequest
    from jsonrpcserver.response import to_serializable_one
    from jsonrpcserver.result import ErrorResult, Result, SuccessResult

__all__ = ["PreparedMethod", "global_methods"]

logger = logging.getLogger("jsonrpc_amqp.dispatch")

# It has no type hint there.
global_methods: dict[str, Callable[..., Any]] = methods.global_methods

# The classes of what jsonrpcserver's Success and Error return; it exports no names for them.
_SUCCESS, _ERROR = type(Success()), type(Error(0, ""))
_RESULTS = (_SUCCESS, _ERROR)
# What says in its attributes which error object is to be sent.
_ANSWERS = (RemoteError, JsonRpcError)
_NOT_PASSED_ON = (
    "method %r failed: it did not catch the error that a call of its own ended in; its caller would take that for an "
    "error of this call, and gets -32603"
)


class PreparedMethod:
    """
    A registered function that returns a plain value or jsonrpcserver's ``Result``, and raises nothing.

    jsonrpcserver's own handling of exceptions would send the exception's text, and let a ``SystemExit`` end the thread.

    Args:
        name: The name under which it is registered.
        function: What is called.
        expose_errors: Send the text of uncaught exceptions, as ``data``.
        error_handlers: Say what is answered for exceptions.
        validate: Convert params to what the type hints declare, and refuse those that do not fit.
        check_results: Fail where a result is not what the function is declared to return.

    Attributes:
        is_async: It is ``async def``, and runs by ``respond_async`` only.

    Raises:
        TypeError: It cannot be called, is an asynchronous generator, or has a hint that nothing converts to.
    """

    __slots__ = (
        "_check_result",
        "_code",
        "_error_handlers",
        "_expose_errors",
        "_parameters",
        "function",
        "is_async",
        "name",
    )

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        expose_errors: bool,
        error_handlers: ErrorHandlers | None = None,
        *,
        validate: bool = True,
        check_results: bool = False,
    ) -> None:
        _check_callable(name, function)
        self.name = name
        self.function = function
        self.is_async = _is_any(inspect.iscoroutinefunction, function)
        self._expose_errors = expose_errors
        self._error_handlers = error_handlers or ErrorHandlers()
        self._parameters = Parameters(name, function, validate=validate)
        self._code = innermost_code(function)
        self._check_result = _result_check(name, function, self.signature) if check_results else None

    @property
    def signature(self) -> inspect.Signature:
        """Its signature, as far as it can be read."""
        return self._parameters.signature

    def respond(self, params: list[Any] | dict[str, Any], id: str | int | float | None) -> Response:
        """Call the function, and return the response that jsonrpcserver would make of the outcome."""
        try:
            if isinstance(params, list):
                result = self._checked(self.function(*self._parameters.positional(params)))
            else:
                result = self._checked(self.function(**self._parameters.by_name(params)))
        # BaseException: a method that calls sys.exit() has failed, and must not end the server's thread.
        except BaseException as exc:
            result = self._failed(exc, params)
        return self._response(result, params, id)

    async def respond_async(self, params: list[Any] | dict[str, Any], id: str | int | float | None) -> Response:
        """
        Do what ``respond`` does, for a function that is ``async def``.

        What cancels it goes on to the caller: only that knows whether the task was to be cancelled.
        """
        try:
            if isinstance(params, list):
                called = self.function(*self._parameters.positional(params))
            else:
                called = self.function(**self._parameters.by_name(params))
            result = self._checked(await called)
        # A method that calls sys.exit() has failed, and must not end the loop.
        except (Exception, SystemExit, KeyboardInterrupt) as exc:
            result = self._failed(exc, params)
        return self._response(result, params, id)

    # The code that calls the function.
    _calling = frozenset({respond.__code__, respond_async.__code__})

    def _response(self, result: Any, params: list[Any] | dict[str, Any], id: str | int | float | None) -> Response:
        if isinstance(result, _RESULTS):
            # A notification, too, has an id here (None), so that an error in it can be seen.
            response = to_response(JsonRpcServerRequest(self.name, params, id), result)
            return cast(Response, to_serializable_one(response))
        return {"jsonrpc": "2.0", "result": result, "id": id}

    def _checked(self, value: Any) -> Any:
        """Return a method's outcome, if it may be one."""
        result = _checked(value)
        if self._check_result is not None and not isinstance(result, _ERROR):
            self._check_result(result._value.result if isinstance(result, _SUCCESS) else result)
        return result

    def _failed(self, exc: BaseException, params: list[Any] | dict[str, Any]) -> Any:
        if isinstance(exc, (DoesNotFit, TypeError)) and (misfit := self._misfit(exc, params)) is not None:
            return Error(INVALID_PARAMS, MESSAGES[INVALID_PARAMS], *misfit)
        try:
            answer = exc if _is_answer(exc) else self._error_handlers.map(exc, _is_answer)
            if isinstance(answer, _ANSWERS):
                return self._answered(answer)
        except BaseException as failure:  # of an error handler, or of an answer that is no error object
            return self._internal_error(failure)
        return self._internal_error(exc if answer is None else answer)

    def _misfit(self, exc: DoesNotFit | TypeError, params: list[Any] | dict[str, Any]) -> list[Any] | None:
        """Return the error's ``data``, at most one, if params do not fit; None if code of the method raised."""
        if isinstance(exc, DoesNotFit):
            return [exc.as_data()]
        run = [frame.f_code for frame, _line in walk_tb(exc.__traceback__)]
        missing = self._parameters.missing(params) if self._parameters.may_be_supplied else []
        if run[-1] in self._calling:  # the call itself raised it: of some builtins it is not known what they take
            told = []
        elif missing and self._code not in run:
            told = [DoesNotFit(missing).as_data()]
        else:
            return None
        logger.debug("method %r was called with params that do not fit", self.name, exc_info=exc)
        return told

    def _answered(self, answer: RemoteError | JsonRpcError) -> Any:
        """Return the result for an exception that says what is answered."""
        if answer.code == INTERNAL_ERROR:  # logged like one of a method that says nothing
            logger.error("method %r failed", self.name, exc_info=answer)
        # jsonrpcserver has a value for no data, which may be null there.
        data = () if answer.data is None and isinstance(answer, RemoteError) else (answer.data,)
        return _checked(Error(answer.code, answer.message, *data))

    def _internal_error(self, exc: BaseException) -> Any:
        is_passed_through = isinstance(exc, RemoteError) and exc.is_reply
        logger.error(_NOT_PASSED_ON if is_passed_through else "method %r failed", self.name, exc_info=exc)
        detail = (_text(exc),) if self._expose_errors else ()
        return Error(INTERNAL_ERROR, MESSAGES[INTERNAL_ERROR], *detail)


# -- outcomes -------------------------------------------------------------------------------------------------


def _checked(value: Any) -> Any:
    """Return a method's outcome; an ``Error`` of jsonrpcserver's must be an error object of the specification."""
    if isinstance(value, _ERROR) and isinstance(value._error, ErrorResult):
        _check_error(value._error.code, value._error.message)
        return value
    if isinstance(value, _RESULTS) and not (isinstance(value, _SUCCESS) and isinstance(value._value, SuccessResult)):
        return Success(value)  # OSlash's class, used for something else: a plain value
    return value


def raised(value: Any) -> Any:
    """Return the plain value of a method's outcome; raise the exception that stands for an ``Error``."""
    value = _checked(value)
    if isinstance(value, _ERROR):
        error = value._error
        raise JsonRpcError(error.code, error.message, error.data)
    return value._value.result if isinstance(value, _SUCCESS) else value


def _check_error(code: Any, message: Any) -> None:
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"the code of an error must be an integer, not {code!r}")
    if not isinstance(message, str):
        raise TypeError(f"the message of an error must be a string, not {message!r}")


def _is_answer(exc: BaseException) -> bool:
    """Whether an exception was raised to be answered as what it says. A reply says it of another call."""
    return isinstance(exc, JsonRpcError) or (isinstance(exc, RemoteError) and not exc.is_reply)


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except BaseException:
        return type(exc).__name__


# -- functions ----------------------------------------------------------------------------------------------


def _check_callable(name: str, function: Callable[..., Any]) -> None:
    if not callable(function):
        raise TypeError(f"method {name!r} is not callable: {function!r}")
    if _is_any(inspect.isasyncgenfunction, function):
        raise TypeError(f"method {name!r} is an asynchronous generator, which has no one result")


def _is_any(test: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    # An object may have an ``async def __call__``.
    return test(function) or test(type(function).__call__)


def _result_check(
    method: str, function: Callable[..., Any], signature: inspect.Signature
) -> Callable[[Any], None] | None:
    """Return what raises ``TypeError`` for a result that is not what a function is declared to return."""
    hint = signature.return_annotation
    if isinstance(hint, str):  # it was not evaluated, since params are not converted
        hint = read_signature(method, function, evaluate=True).signature.return_annotation
    if hint is inspect.Signature.empty or get_origin(hint) is get_origin(Result):
        return None
    try:
        convert = converter(hint)
    except UnsupportedHint as exc:
        raise TypeError(f"method {method!r}: results cannot be checked: {exc}") from exc
    if convert is None:
        return None

    def check(result: Any) -> None:
        try:
            convert(loads(dumps(result)))
        except DoesNotFit as exc:
            raise TypeError(f"method {method!r} returned what it is not declared to: {exc}") from exc

    return check
