"""Requests in, answers out: the letter of JSON-RPC 2.0, the caps, and what a failing method may not do."""

from __future__ import annotations

import collections
import functools
import inspect
import json
import logging
import math
import operator
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonrpcserver
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonrpcserver import Error, InvalidParams, JsonRpcError, Success

from jsonrpc_amqp.context import NoEnvelope, Request, current_request, enter, leave
from jsonrpc_amqp.errors import remote_error
from jsonrpc_amqp.jsonrpc import dispatcher as dispatch_module
from jsonrpc_amqp.jsonrpc.dispatcher import Call, Decoded, Dispatcher, global_methods, internal_error, too_large

SPECIFICATION = json.loads((Path(__file__).parents[2] / "vectors" / "specification.json").read_text(encoding="utf-8"))

MESSAGES = {
    -32700: "Parse error",
    -32600: "Invalid Request",
    -32601: "Method not found",
    -32602: "Invalid params",
    -32603: "Internal error",
}


def request(method: str, params: Any = None, id: Any = 1, **more: Any) -> dict[str, Any]:
    """One call, as a value."""
    return {"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params}), "id": id, **more}


def notification(method: str, params: Any = None) -> dict[str, Any]:
    value = request(method, params)
    del value["id"]
    return value


def ask(dispatcher: Dispatcher, value: Any) -> Any:
    """Send a value (or bytes as they are), give the answer as the standard library reads it; ``...`` for none."""
    answer = dispatcher(value if isinstance(value, bytes) else json.dumps(value).encode())
    return ... if answer is None else json.loads(answer)


def check_error(response: Any, code: int, id: Any = 1, *, data: Any = ...) -> None:
    """``data``: what it must be; ``...`` for none."""
    error = {"code": code, "message": MESSAGES[code]} | ({} if data is ... else {"data": data})
    assert response == {"jsonrpc": "2.0", "error": error, "id": id}


@pytest.fixture
def dispatcher() -> Dispatcher:
    return Dispatcher({"echo": lambda value: value, "boom": boom})


def boom(*args: Any) -> None:
    raise ValueError("password=hunter2")


# --- the examples of the specification ------------------------------------------------------------------------------


def subtract(minuend: float, subtrahend: float) -> float:
    return minuend - subtrahend


def add_up(*numbers: float) -> float:
    return sum(numbers)


def do_nothing(*args: Any) -> None:
    pass


SPECIFICATION_METHODS: dict[str, Callable[..., Any]] = {
    "subtract": subtract,
    "sum": add_up,
    "get_data": lambda: ["hello", 5],
    "update": do_nothing,
    "notify_hello": do_nothing,
    "notify_sum": do_nothing,
}


def without_data(answer: Any) -> Any:
    """Take ``data`` off error objects: the specification leaves it to the server, its examples have none."""
    if isinstance(answer, list):
        return [without_data(response) for response in answer]
    if isinstance(answer, dict) and "error" in answer:
        return answer | {"error": {name: value for name, value in answer["error"].items() if name != "data"}}
    return answer


def test_the_vectors_describe_the_methods_that_they_need() -> None:
    assert set(SPECIFICATION["methods"]) == set(SPECIFICATION_METHODS)
    assert not set(SPECIFICATION["absent"]) & set(SPECIFICATION_METHODS)
    assert len(SPECIFICATION["examples"]) == 15


@pytest.mark.parametrize("example", SPECIFICATION["examples"], ids=lambda example: example["description"])
def test_specification(example: dict[str, Any]) -> None:
    answer = Dispatcher(SPECIFICATION_METHODS)(example["request"].encode())
    assert (None if answer is None else without_data(json.loads(answer))) == example["response"]


# --- the envelope ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "id", "data"),
    [
        (1, None, "a request must be an object"),
        (None, None, "a request must be an object"),
        ("x", None, "a request must be an object"),
        ({}, None, 'jsonrpc must be "2.0"'),
        ({"method": "echo", "params": [1], "id": 1}, 1, 'jsonrpc must be "2.0"'),
        (request("echo", [1], jsonrpc="1.0"), 1, 'jsonrpc must be "2.0"'),
        (request("echo", [1], jsonrpc=2.0), 1, 'jsonrpc must be "2.0"'),
        (request("echo", [1], jsonrpc=["2.0"]), 1, 'jsonrpc must be "2.0"'),
        ({"jsonrpc": "2.0", "id": "a"}, "a", "method must be a string"),
        (request("") | {"method": 1}, 1, "method must be a string"),
        (request("") | {"method": None}, 1, "method must be a string"),
        (request("") | {"method": ["echo"]}, 1, "method must be a string"),
        (request("echo", "bar", 1.5), 1.5, "params must be an array or an object"),
        (request("echo", 5), 1, "params must be an array or an object"),
        (request("echo") | {"params": None}, 1, "params must be an array or an object"),
        (request("echo", True), 1, "params must be an array or an object"),
        (request("echo", [1], True), None, "id must be a string, a number or null"),
        (request("echo", [1], [1]), None, "id must be a string, a number or null"),
        (request("echo", [1], {"a": 1}), None, "id must be a string, a number or null"),
        (notification("echo", "bar"), None, "params must be an array or an object"),
    ],
)
def test_invalid_requests(dispatcher: Dispatcher, value: Any, id: Any, data: str) -> None:
    check_error(ask(dispatcher, value), -32600, id, data=data)
    (response,) = ask(dispatcher, [value])
    check_error(response, -32600, id, data=data)


@pytest.mark.parametrize("id", [1, 0, -5, 2**64, 10**300, 1.5, "a", "", "\u00e9", "x" * 500, None])
def test_ids_come_back_as_they_were(dispatcher: Dispatcher, id: Any) -> None:
    assert ask(dispatcher, request("echo", [7], id)) == {"jsonrpc": "2.0", "result": 7, "id": id}
    check_error(ask(dispatcher, request("absent", [7], id)), -32601, id)


def test_a_null_id_is_a_call_and_a_missing_one_a_notification(dispatcher: Dispatcher) -> None:
    assert ask(dispatcher, b'{"jsonrpc":"2.0","method":"echo","params":[1],"id":null}')["id"] is None
    assert ask(dispatcher, b'{"jsonrpc":"2.0","method":"echo","params":[1]}') is ...


@pytest.mark.parametrize(
    "value",
    [notification("echo", [1]), notification("absent"), notification("echo", [1, 2, 3]), notification("boom")],
)
def test_notifications_are_never_answered(dispatcher: Dispatcher, value: Any) -> None:
    assert ask(dispatcher, value) is ...
    assert ask(dispatcher, [value, value]) is ...
    assert [response["id"] for response in ask(dispatcher, [value, request("echo", [1]), value])] == [1]


def test_unknown_members_are_ignored(dispatcher: Dispatcher) -> None:
    assert ask(dispatcher, request("echo", [1], foo="bar", result=3, error={}))["result"] == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"{",
        b'"\xff"',
        b"NaN",
        b"\xef\xbb\xbf{}",
        b"{}{}",
        b'{"jsonrpc":"2.0","method":"echo","id":1e999}',
        b'{"jsonrpc":"2.0","method":"echo","params":[NaN],"id":1}',
        b"[" * 100_000,
        "{}".encode("utf-16"),
    ],
    ids=lambda body: ascii(body[:20]),
)
def test_what_is_no_json_is_a_parse_error(dispatcher: Dispatcher, body: bytes) -> None:
    error = ask(dispatcher, body)
    check_error(without_data(error), -32700, None)
    assert isinstance(error["error"]["data"], str)
    assert dispatcher.failures == 1


# --- batches --------------------------------------------------------------------------------------------------------


def test_a_batch_is_answered_in_order_member_by_member(dispatcher: Dispatcher) -> None:
    batch = [request("echo", [n], n) for n in range(3)] + [5, request("absent", id="a"), notification("echo", [1])]
    batch += [request("boom", id="b"), request("echo", {"value": None}, "c")]
    answer = ask(dispatcher, batch)
    assert [response["id"] for response in answer] == [0, 1, 2, None, "a", "b", "c"]
    codes = [response.get("error", {}).get("code") for response in answer]
    assert codes == [None, None, None, -32600, -32601, -32603, None]


def test_a_batch_of_one_is_answered_with_an_array(dispatcher: Dispatcher) -> None:
    assert ask(dispatcher, [request("echo", [1])]) == [{"jsonrpc": "2.0", "result": 1, "id": 1}]


def test_a_batch_within_a_batch_is_no_request(dispatcher: Dispatcher) -> None:
    (response,) = ask(dispatcher, [[request("echo", [1])]])
    check_error(response, -32600, None, data="a request must be an object")


def test_the_batch_cap() -> None:
    ran: list[int] = []
    dispatcher = Dispatcher({"run": ran.append}, max_batch=3)
    assert len(ask(dispatcher, [request("run", [n]) for n in range(3)])) == 3
    check_error(
        ask(dispatcher, [notification("run", [n]) for n in range(4)]),
        -32600,
        None,
        data="the batch is over the cap of 3 members",
    )
    assert ran == [0, 1, 2]


def test_a_body_that_is_refused_as_a_whole_leaves_a_trace(caplog: pytest.LogCaptureFixture) -> None:
    # With notifications only, nobody else is told.
    Dispatcher({"run": int}, max_batch=3)(json.dumps([notification("run", [n]) for n in range(4)]).encode())
    assert "refused a body as a whole: the batch is over the cap of 3 members" in caplog.text


# --- methods and their arguments ------------------------------------------------------------------------------------


class Counter:
    """A callable object that is false."""

    def __len__(self) -> int:
        return 0

    def __call__(self, step: int) -> int:
        return step + 1

    def bound(self, step: int, **more: int) -> list[Any]:
        return [step, more]

    @classmethod
    def of_class(cls, step: int) -> str:
        return f"{cls.__name__} {step}"


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


INVALID = object()

METHODS: dict[str, Callable[..., Any]] = {
    "subtract": subtract,
    "keyword_only": keyword_only,
    "positional_only": positional_only,
    "everything": everything,
    "wrapped": wrapped,
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
    ("method", "args", "kwargs"),
    [
        ("subtract", [3], {}),
        ("subtract", [3, 2, 1], {}),
        ("subtract", [], {"minuend": 1, "subtrahend": 2, "x": 3}),
        ("keyword_only", [1], {}),
        ("keyword_only", [], {"b": 1}),
        ("everything", [1], {}),
        ("nothing", [1], {}),
    ],
)
def test_invalid_params_say_what_is_wrong(method: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    with pytest.raises(TypeError) as caught:
        inspect.signature(METHODS[method]).bind(*args, **kwargs)
    check_error(ask(Dispatcher(METHODS), request(method, args or kwargs)), -32602, data=str(caught.value))


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


def test_the_log_has_the_traceback_and_the_answer_has_not_the_secret(
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
def test_an_exception_without_a_text_is_answered_all_the_same(exception: Exception, data: Any) -> None:
    def method() -> None:
        raise exception

    check_error(ask(Dispatcher({"m": method}, expose_errors=True), request("m")), -32603, data=data)


# --- outcomes -------------------------------------------------------------------------------------------------------


def raising(exception: Exception) -> Callable[[], Any]:
    def method() -> Any:
        raise exception

    return method


class Code(int):
    pass


@pytest.mark.parametrize(
    ("method", "outcome"),
    [
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
    dispatcher = Dispatcher({"m": method})
    assert ask(dispatcher, request("m")) == {"jsonrpc": "2.0", **outcome, "id": 1}
    assert dispatcher.failures == ("error" in outcome)
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
        raising(remote_error(-32601, "Method not found", "there")),
    ],
)
def test_outcomes_that_are_no_error_objects(method: Callable[[], Any], caplog: pytest.LogCaptureFixture) -> None:
    check_error(ask(Dispatcher({"m": method}), request("m")), -32603)
    assert {record.name for record in caplog.records} == {"jsonrpc_amqp.dispatch"}
    assert "Traceback" in caplog.text


@dataclass
class Reading:
    value: float


@pytest.mark.parametrize(
    "result",
    [object(), math.nan, [math.inf], Reading(math.nan), "\ud800", 10**5000, {(1, 2): 3}],
    ids=lambda result: type(result).__name__,
)
def test_results_without_a_form_cost_themselves_only(result: Any, caplog: pytest.LogCaptureFixture) -> None:
    dispatcher = Dispatcher({"bad": lambda: result, "echo": lambda value: value})
    check_error(ask(dispatcher, request("bad")), -32603)
    first, second, third = ask(dispatcher, [request("echo", [1], 1), request("bad", id=2), request("echo", [3], 3)])
    assert (first["result"], third["result"]) == (1, 3)
    check_error(second, -32603, 2)
    assert dispatcher.failures == 2
    assert "'bad'" in caplog.text
    assert "Traceback" in caplog.text
    assert ask(Dispatcher({"bad": lambda: result}, expose_errors=True), request("bad"))["error"]["data"]


def test_error_data_without_a_form_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    dispatcher = Dispatcher({"m": lambda: Error(5, "no", object())})
    assert ask(dispatcher, request("m"))["error"] == {"code": 5, "message": "no"}
    assert dispatcher.failures == 1
    assert "Traceback" in caplog.text


# --- caps -----------------------------------------------------------------------------------------------------------


def test_the_size_cap_of_requests() -> None:
    dispatcher = Dispatcher({"size": len}, max_size=1024)
    body = json.dumps(request("size", ["x"])).encode()
    body = body.replace(b"x", b"x" * (1024 - len(body) + 1))
    assert len(body) == 1024
    assert "result" in ask(dispatcher, body)
    check_error(ask(dispatcher, body + b" "), -32600, None, data="the request has 1025 bytes, over the cap of 1024")


def test_the_size_cap_of_replies() -> None:
    dispatcher = Dispatcher({"make": lambda size: "x" * size}, max_size=2000)
    around = len(b'{"jsonrpc":"2.0","result":"","id":1}')
    largest = dispatcher(json.dumps(request("make", [2000 - around])).encode())
    assert largest is not None
    assert len(largest) == 2000
    check_error(
        ask(dispatcher, request("make", [2001 - around])),
        -32603,
        data="the reply is over the size cap of 2000 bytes",
    )
    assert dispatcher.failures == 1


@pytest.mark.parametrize("position", range(5))
def test_a_large_result_costs_itself_only(position: int) -> None:
    dispatcher = Dispatcher({"make": lambda size: "x" * size}, max_size=4096)
    answer = ask(dispatcher, [request("make", [4000 if n == position else 10], n) for n in range(5)])
    assert [response["id"] for response in answer] == list(range(5))
    assert [n for n, response in enumerate(answer) if "error" in response] == [position]
    assert dispatcher.failures == 1


def test_results_that_are_large_together_are_written_while_there_is_room() -> None:
    dispatcher = Dispatcher({"make": lambda size: "x" * size}, max_size=10_000)
    body = dispatcher(json.dumps([request("make", [3000], n) for n in range(10)]).encode())
    assert body is not None
    assert len(body) <= 10_000
    answer = json.loads(body)
    assert ["result" in response for response in answer] == [True] * 2 + [False] * 8


def test_the_results_of_a_batch_are_not_all_in_memory_at_once() -> None:
    class Large(str):
        alive = most = 0

        def __new__(cls) -> Large:
            cls.alive += 1
            cls.most = max(cls.most, cls.alive)
            return super().__new__(cls, "x" * 5000)

        def __del__(self) -> None:
            type(self).alive -= 1

    dispatcher = Dispatcher({"large": Large}, max_size=10_000)
    assert len(ask(dispatcher, [request("large", id=n) for n in range(20)])) == 20
    assert Large.most <= 2


@pytest.mark.parametrize("batch", [False, True])
def test_a_reply_never_passes_the_cap_even_with_huge_ids(batch: bool) -> None:
    dispatcher = Dispatcher(max_size=1024)
    value: Any = [request("absent", id="x" * 100 + str(n)) for n in range(6)] if batch else request("a", id="x" * 960)
    body = dispatcher(json.dumps(value, separators=(",", ":")).encode())
    assert body is not None
    assert len(body) <= 1024
    check_error(json.loads(body), -32603, None, data="the reply is over the size cap of 1024 bytes")


@pytest.mark.parametrize("batch", [False, True])
def test_the_depth_cap(batch: bool) -> None:
    def nest(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        return value

    dispatcher = Dispatcher({"echo": lambda value: value, "nest": nest}, max_depth=10)
    # Around the value: the request, its params, perhaps the batch. The response has no params.
    room = 10 - 2 - batch
    wrap: Callable[[Any], Any] = (lambda value: [value]) if batch else (lambda value: value)
    assert ask(dispatcher, wrap(request("echo", [nest(room)]))) == wrap(
        {"jsonrpc": "2.0", "result": nest(room), "id": 1}
    )
    assert ask(dispatcher, wrap(request("echo", [nest(room + 1)])))["error"]["code"] == -32700
    assert "result" in json.dumps(ask(dispatcher, wrap(request("nest", [room + 1]))))
    answer = ask(dispatcher, wrap(request("nest", [room + 2])))
    check_error(answer[0] if batch else answer, -32603)


@pytest.mark.parametrize("limits", [{"max_size": 1023}, {"max_batch": 0}, {"max_depth": 2}])
def test_limits_that_leave_no_room_for_an_answer_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        Dispatcher(**limits)  # type: ignore[arg-type]


def test_the_least_limits_do() -> None:
    dispatcher = Dispatcher({"echo": lambda value: value}, max_size=1024, max_batch=1, max_depth=3)
    assert ask(dispatcher, [request("echo", [1])]) == [{"jsonrpc": "2.0", "result": 1, "id": 1}]
    assert ask(dispatcher, [request("absent")])[0]["error"]["code"] == -32601


# --- registering ----------------------------------------------------------------------------------------------------


def test_the_decorator_in_all_its_forms() -> None:
    dispatcher = Dispatcher()

    def now() -> int:
        return 1

    assert dispatcher.method(now) is now
    assert dispatcher.method("time.now")(now) is now
    assert dispatcher.method(name="time.also")(now) is now
    assert dispatcher.method()(now) is now
    dispatcher.register(now, "last")
    for name in ("now", "time.now", "time.also", "last"):
        assert ask(dispatcher, request(name))["result"] == 1


async def asynchronous() -> None:
    pass


async def asynchronous_generator() -> Any:
    yield 1


class AsynchronousObject:
    async def __call__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("name", "function", "error", "match"),
    [
        ("rpc.x", do_nothing, ValueError, "reserves"),
        ("rpc.", do_nothing, ValueError, "reserves"),
        ("", do_nothing, ValueError, "empty"),
        (5, do_nothing, TypeError, "string"),
        ("a", 5, TypeError, "not callable"),
        ("a", "do_nothing", TypeError, "not callable"),
        ("a", asynchronous, TypeError, "async def, which is not supported yet"),
        ("a", asynchronous_generator, TypeError, "async def"),
        ("a", functools.partial(asynchronous), TypeError, "async def"),
        ("a", AsynchronousObject(), TypeError, "async def"),
    ],
)
def test_what_cannot_be_registered(name: Any, function: Any, error: type[Exception], match: str) -> None:
    dispatcher = Dispatcher()
    with pytest.raises(error, match=match):
        dispatcher.register(function, name)
    with pytest.raises(error, match=match):
        Dispatcher({name: function})
    if isinstance(name, str):
        assert ask(dispatcher, request(name))["error"]["code"] == -32601


@pytest.mark.parametrize("name", ["rpc", "rpcx", "RPC.x", "a.rpc.b", "system.describe", "\u00e9", " "])
def test_names_that_are_not_reserved(name: str) -> None:
    assert "result" in ask(Dispatcher({name: do_nothing}), request(name))


@pytest.mark.parametrize("function", [lambda: 1, functools.partial(do_nothing), Counter()])
def test_a_function_without_a_name_needs_one(function: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="no name of its own"):
        Dispatcher().register(function)


def test_a_name_is_registered_once() -> None:
    counter = Counter()
    given = {"given": do_nothing}
    dispatcher = Dispatcher(given)
    dispatcher.register(counter.bound, "bound")
    dispatcher.register(counter.bound, "bound")
    dispatcher.register(do_nothing, "given")
    with pytest.raises(ValueError, match="'bound' is registered already"):
        dispatcher.register(do_nothing, "bound")
    with pytest.raises(ValueError, match="'given' is registered already"):
        dispatcher.register(boom, "given")
    assert given == {"given": do_nothing}


def test_given_methods_stay_live() -> None:
    methods: dict[Any, Any] = {"a": lambda: 1}
    dispatcher = Dispatcher(methods)
    assert ask(dispatcher, request("a"))["result"] == 1
    methods["b"] = lambda: 2
    assert ask(dispatcher, request("b"))["result"] == 2
    methods["a"] = lambda: 3
    assert ask(dispatcher, request("a"))["result"] == 3
    del methods["a"]
    check_error(ask(dispatcher, request("a")), -32601)


def test_given_methods_that_cannot_be_called_are_known_when_called(caplog: pytest.LogCaptureFixture) -> None:
    methods: dict[Any, Any] = {}
    dispatcher = Dispatcher(methods)
    methods.update({"rpc.x": do_nothing, "later": asynchronous, "five": 5})
    check_error(ask(dispatcher, request("rpc.x")), -32601)
    assert not caplog.records
    check_error(ask(dispatcher, request("later")), -32603)
    check_error(ask(dispatcher, request("five")), -32603)
    assert "async def, which is not supported yet" in caplog.text
    assert "not callable" in caplog.text


def test_a_given_mapping_that_raises_costs_that_call_only(caplog: pytest.LogCaptureFixture) -> None:
    class Fragile(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            raise RuntimeError("no lookups today")

    dispatcher = Dispatcher(Fragile())
    check_error(ask(dispatcher, request("absent")), -32603)
    assert "no lookups today" in caplog.text


def test_names_from_the_wire_make_no_methods() -> None:
    methods: dict[str, Callable[..., Any]] = collections.defaultdict(lambda: do_nothing)
    dispatcher = Dispatcher(methods)
    for name in ("absent", "__class__", "method", "register", "", "do_nothing"):
        check_error(ask(dispatcher, request(name)), -32601)
    assert not methods


def test_jsonrpcservers_own_methods() -> None:
    @jsonrpcserver.method(name="tests.greet")
    def greet(name: str) -> Any:
        return Success(f"hello {name}")

    try:
        assert ask(Dispatcher(global_methods), request("tests.greet", ["you"]))["result"] == "hello you"
    finally:
        del global_methods["tests.greet"]


def test_without_methods_none_are_shared() -> None:
    first, second = Dispatcher(), Dispatcher()
    first.register(do_nothing)
    check_error(ask(second, request("do_nothing")), -32601)


def test_the_librarys_own_extensions_can_be_called_and_users_cannot_add_any() -> None:
    dispatcher = Dispatcher(_extensions={"rpc.discover": lambda: {"openrpc": "1.3.2"}})
    assert ask(dispatcher, request("rpc.discover"))["result"] == {"openrpc": "1.3.2"}
    check_error(ask(dispatcher, request("rpc.other")), -32601)
    with pytest.raises(ValueError, match="reserves"):
        dispatcher.register(do_nothing, "rpc.other")


# --- the three steps, and what stands around them ---------------------------------------------------------------------


def test_the_steps_one_by_one(dispatcher: Dispatcher) -> None:
    decoded = dispatcher.decode(json.dumps([request("echo", [1], "a"), notification("echo", {"value": 2}), 3]).encode())
    call, told, refused = decoded.members
    assert call == Call("echo", [1], "a", False)
    assert told == Call("echo", {"value": 2}, None, True)
    assert decoded.is_batch
    assert dispatcher.invoke(call) == {"jsonrpc": "2.0", "result": 1, "id": "a"}
    assert dispatcher.invoke(told) is None
    assert dispatcher.invoke(refused) is refused
    answer = dispatcher.encode(decoded, [{"jsonrpc": "2.0", "result": 9, "id": "a"}, None, refused])
    assert answer is not None
    assert [response.get("result") for response in json.loads(answer)] == [9, None]
    assert dispatcher.encode(Decoded([told], False), [None]) is None


def test_answers_for_what_never_got_here() -> None:
    check_error(json.loads(too_large(20, 10)), -32600, None, data="the request has 20 bytes, over the cap of 10")
    check_error(json.loads(internal_error()), -32603, None)
    check_error(json.loads(internal_error("why")), -32603, None, data="why")


def test_methods_know_their_request() -> None:
    seen: list[Request] = []
    dispatcher = Dispatcher({"look": lambda: seen.append(current_request())})
    ask(dispatcher, [request("look", id="a"), notification("look"), request("look", id=None)])
    assert [(each.method, each.id, each.is_notification) for each in seen] == [
        ("look", "a", False),
        ("look", None, True),
        ("look", None, False),
    ]
    assert seen[0].remaining is None
    with pytest.raises(RuntimeError):
        current_request()


def test_methods_see_the_envelope_that_the_server_set() -> None:
    seen: list[Request] = []
    dispatcher = Dispatcher({"look": lambda: seen.append(current_request()), "boom": boom})
    around = Request(None, None, False, NoEnvelope(service="s", routing_key="s.request.c.1", redelivered=True))
    token = enter(around)
    try:
        ask(dispatcher, [request("boom"), request("look")])
        assert current_request() is around
    finally:
        leave(token)
    assert (seen[0].method, seen[0].routing_key, seen[0].redelivered) == ("look", "s.request.c.1", True)


def test_a_method_may_dispatch() -> None:
    dispatcher = Dispatcher()

    @dispatcher.method
    def outer() -> list[Any]:
        inner = ask(dispatcher, request("inner", id=2))
        return [inner["result"], current_request().id]

    @dispatcher.method
    def inner() -> Any:
        return current_request().id

    assert ask(dispatcher, request("outer", id=1))["result"] == [2, 1]


def test_failures_are_counted_by_any_number_of_threads(dispatcher: Dispatcher) -> None:
    logging.getLogger("jsonrpc_amqp.dispatch").disabled = True
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    bodies = [json.dumps(value).encode() for value in (request("absent"), notification("boom"), [1, 2], {})]
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(dispatcher, bodies * 250))
    finally:
        sys.setswitchinterval(interval)
        logging.getLogger("jsonrpc_amqp.dispatch").disabled = False
    assert answers.count(None) == 250
    assert dispatcher.failures == 250 * 5


def test_importing_it_warns_of_nothing() -> None:
    command = [sys.executable, "-W", "error", "-c", f"import {dispatch_module.__name__}"]
    subprocess.run(command, check=True, capture_output=True, timeout=50)


# --- whatever comes -------------------------------------------------------------------------------------------------

text = st.text(max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=10,
)
nearly_requests = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | json_values,
        "method": st.sampled_from(["echo", "boom", "rpc.x", "absent"]) | json_values,
        "params": st.lists(json_values, max_size=2) | st.fixed_dictionaries({"value": json_values}) | json_values,
        "id": st.integers() | text | json_values,
    },
)


def check_response(response: Any) -> None:
    """Section 5 of the specification."""
    assert set(response) in ({"jsonrpc", "result", "id"}, {"jsonrpc", "error", "id"})
    assert response["jsonrpc"] == "2.0"
    assert type(response["id"]) in (str, int, float, type(None))
    if "error" in response:
        error = response["error"]
        assert {"code", "message"} <= set(error) <= {"code", "message", "data"}
        assert type(error["code"]) is int
        assert error["message"] == MESSAGES[error["code"]]


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} was sent")


def check_answer(answer: bytes | None) -> None:
    if answer is None:
        return
    value = json.loads(answer.decode("utf-8"), parse_constant=refuse_constant)
    assert value != []
    for response in value if isinstance(value, list) else [value]:
        check_response(response)


@given(st.binary() | text.map(str.encode))
@settings(deadline=None)
def test_arbitrary_bytes_get_an_answer(body: bytes) -> None:
    dispatcher = Dispatcher({"echo": lambda value: value})
    answer = dispatcher(body)
    assert answer is not None
    check_answer(answer)


@given(json_values | nearly_requests | st.lists(nearly_requests | json_values, max_size=4))
@settings(deadline=None)
def test_arbitrary_json_gets_none_or_a_valid_answer(value: Any) -> None:
    dispatcher = Dispatcher({"echo": lambda value: value, "boom": boom})
    check_answer(dispatcher(json.dumps(value).encode()))
