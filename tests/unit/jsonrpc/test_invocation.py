"""One call of a function: its arguments, its outcome, and what a method that fails may not do."""

from __future__ import annotations

import asyncio
import copy
import functools
import json
import logging
import operator
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jsonrpcserver
import pytest
from jsonrpcserver import Error, InvalidParams, JsonRpcError, Success

from jsonrpc_amqp import errors
from jsonrpc_amqp.application_errors import ApplicationError
from jsonrpc_amqp.errors import (
    InternalError,
    InvalidRequest,
    MethodNotFound,
    RemoteError,
    ServerError,
    TransportError,
)
from jsonrpc_amqp.jsonrpc import invocation
from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher, global_methods
from jsonrpc_amqp.jsonrpc.invocation import PreparedMethod
from jsonrpc_amqp.jsonrpc.messages import Error as NotOk
from jsonrpc_amqp.jsonrpc.messages import to_exception

from ...exceptions import OutOfStock
from .tools import Counter, ask, boom, check_error, notification, request, subtract, without_data

# -- arguments ----------------------------------------------------------------------------------------------


class Pair:
    def __init__(self, a: int, b: int) -> None:
        raise ValueError((a, b))


def keyword_only(a: int, *, b: int, c: int = 3) -> list[int]:
    return [a, b, c]


def positional_only(a: int, b: int = 2, /) -> list[int]:
    return [a, b]


def everything(a: int, /, b: int, *args: int, c: int = 0, **kwargs: int) -> list[Any]:
    return [a, b, list(args), c, kwargs]


@functools.wraps(subtract)
def wrapped(*args: Any, **kwargs: Any) -> Any:
    return subtract(*args, **kwargs)


MISSING, UNEXPECTED = "missing: it is required", "unexpected: there is no such parameter"
ANY_NAMES = ("self", "name", "params", "id", "method", "function", "args", "kwargs", "context", "request", "result")


class AnyNames:
    """Methods with a parameter of a name that the library uses for its own."""

    @staticmethod
    def plain(self: int, name: int, params: int, id: int, method: int = 0, args: int = 0, kwargs: int = 0) -> list[int]:
        return [self, name, params, id, method, args, kwargs]

    @staticmethod
    def keywords(**self: int) -> dict[str, int]:
        return self


INVALID = object()

METHODS: dict[str, Callable[..., Any]] = {
    "subtract": subtract,
    "keyword_only": keyword_only,
    "positional_only": positional_only,
    "everything": everything,
    "wrapped": wrapped,
    "any_names": AnyNames.plain,
    "any_keywords": AnyNames.keywords,
    "partial": functools.partial(subtract, 10),
    "partial_named": functools.partial(subtract, subtrahend=1),
    "object": Counter(),
    "bound": Counter().bound,
    "of_class": Counter.of_class,
    "lambda": lambda a=1: a,
    "nothing": lambda: None,
    "kwargs": lambda **kwargs: kwargs,
    "max": max,
    "get": {"a": 1}.get,
    "abs": abs,
    "attribute": operator.attrgetter("real"),
}


@pytest.mark.parametrize(
    ("method", "params", "result"),
    [
        ("subtract", [3, 1], 2),
        ("subtract", {"subtrahend": 1, "minuend": 3}, 2),
        ("any_names", {"self": 1, "name": 2, "params": 3, "id": 4, "kwargs": 5}, [1, 2, 3, 4, 0, 0, 5]),
        ("any_names", {"self": 1, "name": 2, "params": 3}, INVALID),
        ("any_keywords", dict.fromkeys(ANY_NAMES, 1), dict.fromkeys(ANY_NAMES, 1)),
        ("subtract", [3], INVALID),
        ("subtract", [3, 1, 1], INVALID),
        ("subtract", None, INVALID),
        ("subtract", [], INVALID),
        ("subtract", {}, INVALID),
        ("subtract", {"minuend": 3}, INVALID),
        ("subtract", {"minuend": 3, "subtrahend": 1, "x": 1}, INVALID),
        ("keyword_only", {"a": 1, "b": 2}, [1, 2, 3]),
        ("keyword_only", [1], INVALID),
        ("keyword_only", [1, 2], INVALID),
        ("positional_only", [1], [1, 2]),
        ("positional_only", [1, 5], [1, 5]),
        ("positional_only", {"a": 1}, INVALID),
        ("positional_only", [1, 2, 3], INVALID),
        ("everything", [1, 2], [1, 2, [], 0, {}]),
        ("everything", [1, 2, 3, 4], [1, 2, [3, 4], 0, {}]),
        ("everything", [1], INVALID),
        ("everything", {"a": 1, "b": 2}, INVALID),
        ("wrapped", [3, 1], 2),
        ("wrapped", [3], INVALID),
        ("partial", [1], 9),
        ("partial", [1, 2], INVALID),
        ("partial_named", [3], 2),
        ("object", [1], 2),
        ("object", {"step": 1}, 2),
        ("object", {"self": 1}, INVALID),
        ("bound", {"step": 1, "x": 2}, [1, {"x": 2}]),
        ("bound", {"step": 1, "self": 2}, INVALID),
        ("of_class", [1], "Counter 1"),
        ("lambda", None, 1),
        ("lambda", {}, 1),
        ("lambda", [5], 5),
        ("nothing", None, None),
        ("nothing", [], None),
        ("nothing", [1], INVALID),
        ("kwargs", {"self": 1, "args": 2, "": 3, "a b": 4}, {"self": 1, "args": 2, "": 3, "a b": 4}),
        ("max", [3, 9, 5], 9),
        ("max", [1], INVALID),
        ("get", ["a"], 1),
        ("get", ["b", 7], 7),
        ("get", [], INVALID),
        ("get", {"key": "a"}, INVALID),
        ("abs", [-3], 3),
        ("abs", ["x"], INVALID),
        ("attribute", [5], 5),
        ("attribute", [1, 2], INVALID),
    ],
)
def test_arguments(method: str, params: Any, result: Any) -> None:
    registered = Dispatcher()
    registered.register(METHODS[method], method)
    for dispatcher in (Dispatcher(METHODS), registered):
        answer = ask(dispatcher, request(method, params))
        if result is INVALID:
            check_error(without_data(answer), -32602)
        else:
            assert answer == {"jsonrpc": "2.0", "result": result, "id": 1}


@pytest.mark.parametrize(
    ("method", "params", "misfits"),
    [
        ("subtract", [3], {"subtrahend": MISSING}),
        ("subtract", None, {"minuend": MISSING, "subtrahend": MISSING}),
        ("subtract", [3, 2, 1], {"[2]": "unexpected: at most 2 can be given by position"}),
        ("subtract", {"minuend": 1, "subtrahend": 2, "x": 3}, {"x": UNEXPECTED}),
        ("subtract", {"minuend": 1, "x": 3}, {"x": UNEXPECTED, "subtrahend": MISSING}),
        ("keyword_only", [1, 2], {"[1]": "unexpected: at most 1 can be given by position", "b": MISSING}),
        ("keyword_only", {"b": 1}, {"a": MISSING}),
        ("everything", [1], {"b": MISSING}),
        ("everything", {"b": 1}, {"a": MISSING}),
        ("nothing", [1], {"[0]": "unexpected: at most 0 can be given by position"}),
    ],
)
def test_invalid_params_say_what_is_wrong(method: str, params: Any, misfits: dict[str, str]) -> None:
    data = [{"path": path, "message": message} for path, message in misfits.items()]
    check_error(ask(Dispatcher(METHODS), request(method, params)), -32602, data=data)


# -- exceptions ---------------------------------------------------------------------------------------------


def raise_type_error(a: int) -> int:
    return a + "x"  # type: ignore[operator]


def call_wrongly() -> None:
    subtract(1)  # type: ignore[call-arg]


def recurse() -> None:
    recurse()


@pytest.mark.parametrize(
    "method",
    [
        raise_type_error,
        functools.partial(raise_type_error),
        lambda a: call_wrongly(),
        lambda a: len(a),
        lambda a: Pair(a, a),
        lambda a: recurse(),
        lambda a: sys.exit(1),
        lambda a: (_ for _ in ()).throw(KeyboardInterrupt),
        lambda a: (_ for _ in ()).throw(BaseException("x")),
        lambda a: next(iter(())),
    ],
)
def test_what_is_raised_in_a_method_is_an_internal_error(
    method: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher = Dispatcher({"m": method})
    check_error(ask(dispatcher, request("m", [1])), -32603)
    assert ask(dispatcher, notification("m", [1])) is ...
    assert dispatcher.failures == 2
    assert [record.name for record in caplog.records] == ["jsonrpc_amqp.dispatch"] * 2
    assert all(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, StopIteration])
def test_nothing_that_a_method_raises_gets_out(exception: type[BaseException]) -> None:
    def method() -> None:
        raise exception("secret")

    check_error(ask(Dispatcher({"m": method}), request("m")), -32603)


def test_a_class_can_be_a_method() -> None:
    dispatcher = Dispatcher({"complex": Pair})
    check_error(ask(dispatcher, request("complex", [1, 2])), -32603)
    check_error(without_data(ask(dispatcher, request("complex", [1]))), -32602)


def test_the_log_has_the_traceback_and_the_reply_has_not_the_secret(
    dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    answer = dispatcher(json.dumps(request("boom")).encode())
    assert answer is not None
    assert b"hunter2" not in answer
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("jsonrpc_amqp.dispatch", logging.ERROR)
    assert "method 'boom' failed" in caplog.text
    assert "Traceback" in caplog.text
    assert "ValueError: password=hunter2" in caplog.text


def test_the_text_of_an_exception_is_sent_when_asked_to() -> None:
    dispatcher = Dispatcher({"boom": boom}, expose_errors=True)
    check_error(ask(dispatcher, request("boom")), -32603, data="password=hunter2")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(("exception", "data"), [(Unprintable(), "Unprintable"), (ValueError("\ud800"), ...)])
def test_an_exception_without_a_text_gets_a_response_all_the_same(exception: Exception, data: Any) -> None:
    def method() -> None:
        raise exception

    check_error(ask(Dispatcher({"m": method}, expose_errors=True), request("m")), -32603, data=data)


# -- outcomes -----------------------------------------------------------------------------------------------


def raising(exception: Exception) -> Callable[[], Any]:
    def method() -> Any:
        raise exception

    return method


class Code(int):
    pass


class Retired(ApplicationError, code=1002):
    pass


class Unset(ApplicationError, code=1003):
    """Its constructor sets no field."""

    sku: str

    def __init__(self) -> None:
        pass


OF_A7 = {"sku": "a7", "left": 3}


@pytest.mark.parametrize(
    ("method", "outcome"),
    [
        (raising(RemoteError(1001, "no")), {"error": {"code": 1001, "message": "no"}}),
        (raising(RemoteError(1001, "no", [1])), {"error": {"code": 1001, "message": "no", "data": [1]}}),
        (raising(MethodNotFound("no", "m")), {"error": {"code": -32601, "message": "no", "data": "m"}}),
        (raising(errors.InvalidParams("a < 0")), {"error": {"code": -32602, "message": "a < 0"}}),
        (raising(InvalidRequest("no", False)), {"error": {"code": -32600, "message": "no", "data": False}}),
        (raising(ServerError(-32050, "no", 0)), {"error": {"code": -32050, "message": "no", "data": 0}}),
        (raising(OutOfStock("a7", 3)), {"error": {"code": 1001, "message": "As users define them", "data": OF_A7}}),
        (raising(Retired()), {"error": {"code": 1002, "message": "Retired"}}),
        (lambda: 5, {"result": 5}),
        (lambda: None, {"result": None}),
        (lambda: Success(5), {"result": 5}),
        (lambda: Success(), {"result": None}),
        (lambda: {"error": 1}, {"result": {"error": 1}}),
        (lambda: Error(1, "no"), {"error": {"code": 1, "message": "no"}}),
        (lambda: Error(1, "no", None), {"error": {"code": 1, "message": "no", "data": None}}),
        (lambda: Error(1, "no", {"a": [1]}), {"error": {"code": 1, "message": "no", "data": {"a": [1]}}}),
        (lambda: Error(Code(7), "no"), {"error": {"code": 7, "message": "no"}}),
        (lambda: InvalidParams(), {"error": {"code": -32602, "message": "Invalid params"}}),
        (lambda: InvalidParams("a < 0"), {"error": {"code": -32602, "message": "Invalid params", "data": "a < 0"}}),
        (raising(JsonRpcError(5, "no")), {"error": {"code": 5, "message": "no"}}),
        (raising(JsonRpcError(5, "no", None)), {"error": {"code": 5, "message": "no", "data": None}}),
        (raising(JsonRpcError(5, "no", "d")), {"error": {"code": 5, "message": "no", "data": "d"}}),
    ],
)
def test_outcomes(method: Callable[[], Any], outcome: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    async def of_coroutine() -> Any:
        return method()

    dispatcher = Dispatcher({"m": method})
    assert ask(dispatcher, request("m")) == {"jsonrpc": "2.0", **outcome, "id": 1}
    assert dispatcher.failures == ("error" in outcome)
    response = asyncio.run(PreparedMethod("m", of_coroutine, False).respond_async([], 1))
    assert response == {"jsonrpc": "2.0", **outcome, "id": 1}
    assert not caplog.records


@pytest.mark.parametrize(
    "method",
    [
        lambda: Error(True, "no"),
        lambda: Error("5", "no"),
        lambda: Error(1.0, "no"),
        lambda: Error(None, "no"),
        lambda: Error(5, None),
        lambda: Error(5, ["no"]),
        lambda: Error(10**5000, "no"),
        lambda: Error(5, "\ud800"),
        lambda: type(Success())(5),
        lambda: type(Error(1, ""))(5),
        raising(JsonRpcError("5", "no")),  # type: ignore[arg-type]
        # What another service answered is no answer of this one.
        raising(to_exception(NotOk(-32601, "Method not found", "there", 1))),
        raising(copy.copy(to_exception(NotOk(1001, "no", None, 1)))),
        raising(RemoteError("5", "no")),  # type: ignore[arg-type]
        raising(RemoteError(True, "no")),
        raising(RemoteError(5, None)),  # type: ignore[arg-type]
        raising(TransportError("no")),
        raising(Unset()),
    ],
)
def test_outcomes_that_are_no_error_objects(method: Callable[[], Any], caplog: pytest.LogCaptureFixture) -> None:
    check_error(ask(Dispatcher({"m": method}), request("m")), -32603)
    assert {record.name for record in caplog.records} == {"jsonrpc_amqp.dispatch"}
    assert "Traceback" in caplog.text


def test_a_reply_that_a_method_lets_through_says_why_it_is_not_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    reply = to_exception(NotOk(-32602, "Invalid params", "there", 1))
    check_error(ask(Dispatcher({"m": raising(reply)}), request("m")), -32603)
    (record,) = caplog.records
    assert "it did not catch the error that a call of its own ended in" in record.message
    assert record.exc_info
    assert record.exc_info[1] is reply


@pytest.mark.parametrize("exception", [InternalError("the disk is full"), JsonRpcError(-32603, "the disk is full")])
def test_internal_errors_on_purpose_are_logged_as_others_are(
    exception: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher = Dispatcher({"m": raising(exception)})
    assert ask(dispatcher, request("m"))["error"] == {"code": -32603, "message": "the disk is full"}
    assert ask(dispatcher, notification("m")) is ...
    assert ["method 'm' failed" in record.message and bool(record.exc_info) for record in caplog.records] == [True] * 2


def test_an_application_error_of_a_notification_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    dispatcher = Dispatcher({"m": raising(OutOfStock("a7"))})
    assert ask(dispatcher, notification("m")) is ...
    assert dispatcher.failures == 1
    assert [record.message for record in caplog.records] == ["a notification of 'm' ended in: 'As users define them'"]


def test_jsonrpcservers_own_methods() -> None:
    @jsonrpcserver.method(name="tests.greet")
    def greet(name: str) -> Any:
        return Success(f"hello {name}")

    try:
        assert ask(Dispatcher(global_methods), request("tests.greet", ["you"]))["result"] == "hello you"
    finally:
        del global_methods["tests.greet"]


def test_importing_it_warns_of_nothing() -> None:
    command = [sys.executable, "-W", "error", "-c", f"import {invocation.__name__}"]
    subprocess.run(command, check=True, capture_output=True, timeout=50)


def test_a_prepared_method_responds_without_a_dispatcher() -> None:
    method = PreparedMethod("subtract", subtract, False)
    assert method.respond([3, 1], 7) == {"jsonrpc": "2.0", "result": 2, "id": 7}
    check_error(without_data(method.respond([3], None)), -32602, None)


def test_results_of_what_has_no_signature_are_not_checked() -> None:
    assert ask(Dispatcher({"max": max}, check_results=True), request("max", [1, 2]))["result"] == 2
