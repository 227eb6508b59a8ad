"""What is answered for the exceptions of libraries, as the program says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from jsonrpcserver import JsonRpcError

from jsonrpc_amqp.context import current_request
from jsonrpc_amqp.errors import InvalidParams, RemoteError, TransportError
from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher
from jsonrpc_amqp.jsonrpc.invocation import PreparedMethod
from jsonrpc_amqp.jsonrpc.messages import Error, to_exception
from jsonrpc_amqp.server.server import Server

from ...exceptions import OutOfStock
from .tools import ask, check_error, notification, request

REPLY = to_exception(Error(1001, "no", "of another service", 1))


def raising(exception: BaseException) -> Callable[..., Any]:
    def method(*_args: Any) -> NoReturn:
        raise exception

    return method


def answered(dispatcher: Dispatcher, exception: BaseException) -> Any:
    """Return the error object for what a method raises, which is the same for one that is ``async def``."""

    async def coroutine() -> NoReturn:
        raise exception

    dispatcher.register(raising(exception), name := f"m{len(dispatcher.names)}")
    response = ask(dispatcher, request(name))
    method = PreparedMethod("m", coroutine, False, dispatcher._methods.error_handlers)
    assert asyncio.run(method.respond_async([], 1)) == response
    return response["error"]


@pytest.mark.parametrize(
    ("exception", "code"),
    [
        (KeyError("a7"), 1),
        (IndexError(), 2),
        (LookupError(), 2),
        (ValueError(), 3),
        (OSError(), -32603),
    ],
)
def test_the_nearest_class_decides(exception: Exception, code: int) -> None:
    dispatcher = Dispatcher()
    for kind, its_code in ((LookupError, 2), (KeyError, 1), (ValueError, 3)):
        dispatcher.error_handler(kind)(lambda _exc, its_code=its_code: RemoteError(its_code, "mapped"))  # type: ignore[misc]
    assert answered(dispatcher, exception)["code"] == code


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (lambda exc: OutOfStock(exc.args[0], 3), {"code": 1001, "data": {"sku": "a7", "left": 3}}),
        (lambda exc: RemoteError(7, "no", [1]), {"code": 7, "message": "no", "data": [1]}),
        (lambda exc: JsonRpcError(7, "no"), {"code": 7, "message": "no"}),
        (raising(OutOfStock("a7")), {"code": 1001, "data": {"sku": "a7", "left": 0}}),
        (raising(InvalidParams("no such sku")), {"code": -32602, "message": "no such sku"}),
        (raising(JsonRpcError(7, "no", None)), {"code": 7, "message": "no", "data": None}),
        # It has decided to pass it on.
        (lambda exc: REPLY, {"code": 1001, "message": "no", "data": "of another service"}),
    ],
)
def test_what_handlers_return_or_raise_is_answered(
    handler: Callable[[Any], Any], error: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher = Dispatcher()
    assert dispatcher.error_handler(KeyError)(handler) is handler
    assert answered(dispatcher, KeyError("a7")) == {"message": "As users define them", **error}
    assert not caplog.records


@pytest.mark.parametrize(
    ("handler", "logged"),
    [
        (lambda exc: exc, "KeyError: 'a7'"),
        (lambda exc: OSError("wrapped"), "OSError: wrapped"),
        (lambda exc: None, "the error handler for KeyError returned None, which is no exception"),
        (lambda exc: SystemExit, "which is no exception"),
        (raising(ValueError("of the handler")), "ValueError: of the handler"),
        (raising(SystemExit("of the handler")), "SystemExit: of the handler"),
        (raising(REPLY), "it did not catch the error that a call of its own ended in"),
        (lambda exc: RemoteError("7", "no"), "the code of an error must be an integer, not '7'"),  # type: ignore[arg-type]
        (lambda: None, "takes 0 positional arguments"),
    ],
)
def test_handlers_that_fail_are_logged_and_are_internal_errors(
    handler: Callable[..., Any], logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher = Dispatcher({"m": raising(KeyError("a7"))})
    dispatcher.error_handler(KeyError)(handler)
    check_error(ask(dispatcher, request("m")), -32603)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("jsonrpc_amqp.dispatch", "ERROR")
    assert logged in caplog.text
    assert "KeyError: 'a7'" in caplog.text  # what it was about


@pytest.mark.parametrize(
    ("exception", "code"), [(OutOfStock("a7"), 1001), (RemoteError(7, "no"), 7), (JsonRpcError(8, "no"), 8)]
)
def test_errors_on_purpose_are_not_mapped(exception: Exception, code: int) -> None:
    dispatcher = Dispatcher()
    for kind in (Exception, RemoteError, JsonRpcError):
        dispatcher.error_handler(kind)(lambda _exc: RemoteError(1, "mapped"))
    assert answered(dispatcher, exception)["code"] == code


@pytest.mark.parametrize("exception", [REPLY, TransportError("no"), ValueError()])
def test_all_others_are_mapped(exception: Exception) -> None:
    dispatcher = Dispatcher()
    dispatcher.error_handler(Exception)(lambda _exc: RemoteError(1, "mapped"))
    assert answered(dispatcher, exception)["code"] == 1


def test_what_is_no_exception_of_a_program_is_not_mapped() -> None:
    dispatcher = Dispatcher({"exit": raising(SystemExit(1)), "abs": abs})
    dispatcher.error_handler(Exception)(lambda _exc: RemoteError(1, "mapped"))
    check_error(ask(dispatcher, request("exit")), -32603)
    check_error(ask(dispatcher, request("abs", ["x"])), -32602)  # the call itself: params that do not fit


def test_handlers_know_the_request_and_serve_notifications(caplog: pytest.LogCaptureFixture) -> None:
    dispatcher = Dispatcher({"m": raising(KeyError("a7"))})
    dispatcher.error_handler(KeyError)(lambda exc: RemoteError(1, f"{current_request().method} of {exc.args[0]}"))
    assert ask(dispatcher, request("m"))["error"]["message"] == "m of a7"
    assert ask(dispatcher, notification("m")) is ...
    assert "a notification of 'm' ended in: 'm of a7'" in caplog.text


async def asynchronous(_exc: Exception) -> Exception:
    raise NotImplementedError


class AsynchronousObject:
    async def __call__(self, _exc: Exception) -> Exception:
        raise NotImplementedError


@pytest.mark.parametrize("function", [asynchronous, AsynchronousObject(), 5, None])
def test_functions_that_are_refused(function: Any) -> None:
    with pytest.raises(TypeError, match=r"async def|not callable"):
        Dispatcher().error_handler(KeyError)(function)


@pytest.mark.parametrize("kind", [SystemExit, BaseException, int, KeyError("a7"), "KeyError", None])
def test_classes_that_are_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match="an error handler is for a subclass of Exception"):
        Dispatcher().error_handler(kind)


def test_a_class_has_one_handler() -> None:
    dispatcher = Dispatcher()
    dispatcher.error_handler(KeyError)(dispatcher.error_handler(IndexError)(RemoteError.with_traceback))  # type: ignore[arg-type]
    dispatcher.error_handler(KeyError)(RemoteError.with_traceback)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is another error handler for KeyError already"):
        dispatcher.error_handler(KeyError)(lambda exc: exc)


def test_a_server_with_another_dispatcher_has_none() -> None:
    with pytest.raises(TypeError, match="register methods and error handlers there"):
        Server("memory://x", "S", dispatcher=lambda body: body).error_handler(KeyError)
