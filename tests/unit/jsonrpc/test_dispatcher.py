"""Requests in, replies out: the letter of JSON-RPC 2.0, and the caps."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jsonrpc_amqp.context import NoEnvelope, Request, current_request, enter, leave
from jsonrpc_amqp.errors import NOT_AUTHORISED
from jsonrpc_amqp.jsonrpc.dispatcher import Call, Decoded, Dispatcher

from .tools import MESSAGES, ask, boom, check_error, do_nothing, notification, request, subtract, without_data

SPECIFICATION = json.loads((Path(__file__).parents[2] / "vectors" / "specification.json").read_text(encoding="utf-8"))


# -- the examples of the specification ----------------------------------------------------------------------


def add_up(*numbers: float) -> float:
    return sum(numbers)


SPECIFICATION_METHODS: dict[str, Callable[..., Any]] = {
    "subtract": subtract,
    "sum": add_up,
    "get_data": lambda: ["hello", 5],
    "update": do_nothing,
    "notify_hello": do_nothing,
    "notify_sum": do_nothing,
}


def test_the_vectors_describe_the_methods_that_they_need() -> None:
    assert set(SPECIFICATION["methods"]) == set(SPECIFICATION_METHODS)
    assert not set(SPECIFICATION["absent"]) & set(SPECIFICATION_METHODS)
    assert len(SPECIFICATION["examples"]) == 15


@pytest.mark.parametrize("example", SPECIFICATION["examples"], ids=lambda example: example["description"])
def test_specification(example: dict[str, Any]) -> None:
    answer = Dispatcher(SPECIFICATION_METHODS)(example["request"].encode())
    assert (None if answer is None else without_data(json.loads(answer))) == example["response"]


# -- the envelope -------------------------------------------------------------------------------------------


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
    check_error(ask(dispatcher, request("absent", [7], id)), -32601, id, data="absent")


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


# -- batches ------------------------------------------------------------------------------------------------


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


# -- caps ---------------------------------------------------------------------------------------------------


def test_the_size_cap_of_requests() -> None:
    dispatcher = Dispatcher({"size": len}, max_size=1024)
    body = json.dumps(request("size", ["x"])).encode()
    body = body.replace(b"x", b"x" * (1024 - len(body) + 1))
    assert len(body) == 1024
    assert "result" in ask(dispatcher, body)
    check_error(ask(dispatcher, body + b" "), -32600, None, data="the request has 1025 bytes, over the cap of 1024")


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


@pytest.mark.parametrize("length", [1, 64, 100, 256])
@pytest.mark.parametrize("letter", ["a", "é", "€", "\U0001f600"])
def test_the_cap_of_method_names(length: int, letter: str) -> None:
    name = letter * (length // len(letter.encode()))
    dispatcher = Dispatcher(max_method=length)
    too_long = f"method is over the cap of {length} bytes"
    check_error(ask(dispatcher, request(name + letter)), -32601, data=too_long)
    check_error(ask(dispatcher, [request(name + letter)])[0], -32601, data=too_long)
    refused = ask(dispatcher, notification(name + letter))
    assert (refused["error"]["code"], refused["error"]["data"], refused["id"]) == (-32600, too_long, None)
    if name:
        assert ask(dispatcher, request(name))["error"]["code"] == -32601
        dispatcher.register(lambda: 1, name)
        assert ask(dispatcher, request(name))["result"] == 1
    with pytest.raises(ValueError, match=f"more than {length} bytes, see max_method"):
        dispatcher.register(lambda: 1, name + letter)
    with pytest.raises(ValueError, match="max_method"):
        Dispatcher({name + letter: lambda: 1}, max_method=length)


def test_a_name_over_the_cap_reaches_no_rule() -> None:
    asked: list[Any] = []

    def authorize(request: Request) -> bool:
        asked.append(request.method)
        return True

    dispatcher = Dispatcher(authorize=authorize)
    check_error(ask(dispatcher, request("a" * 257)), -32601, data="method is over the cap of 256 bytes")
    assert not asked
    assert ask(dispatcher, request("a" * 256))["error"]["code"] == -32601
    assert len(asked) == 1


@pytest.mark.parametrize("limits", [{"max_size": 1023}, {"max_batch": 0}, {"max_depth": 2}, {"max_method": 0}])
def test_limits_that_leave_no_room_for_a_reply_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        Dispatcher(**limits)  # type: ignore[arg-type]


def test_the_least_limits_do() -> None:
    dispatcher = Dispatcher({"echo": lambda value: value}, max_size=1024, max_batch=1, max_depth=3)
    assert ask(dispatcher, [request("echo", [1])]) == [{"jsonrpc": "2.0", "result": 1, "id": 1}]
    assert ask(dispatcher, [request("absent")])[0]["error"]["code"] == -32601


# -- authorization ------------------------------------------------------------------------------------------


def test_what_is_refused_does_not_tell_which_methods_there_are() -> None:
    dispatcher = Dispatcher({"add": lambda a, b: a + b}, authorize=lambda request: request.method == "open")
    call = json.dumps(request("add", [1, 2], 7)).encode()
    replies = [dispatcher(call), dispatcher(call.replace(b"add", b"none"))]
    assert replies[0] == replies[1]
    assert json.loads(replies[0] or b"")["error"]["code"] == NOT_AUTHORISED
    assert (dispatcher.refusals, dispatcher.failures) == (2, 2)


def test_members_of_a_batch_are_authorised_one_by_one() -> None:
    ran = []
    dispatcher = Dispatcher({"open": lambda: 1, "shut": lambda: ran.append(1)}, authorize=lambda r: r.method == "open")
    members = [{"jsonrpc": "2.0", "method": name, "id": name} for name in ("open", "shut")]
    members.append({"jsonrpc": "2.0", "method": "shut"})
    opened, shut = json.loads(dispatcher(json.dumps(members).encode()) or b"")
    assert opened["result"] == 1
    assert (shut["error"]["code"], shut["id"]) == (NOT_AUTHORISED, "shut")
    assert ran == []
    assert dispatcher.refusals == 2


# -- the three steps, and the current request ---------------------------------------------------------------


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


# -- any input ----------------------------------------------------------------------------------------------


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
def test_arbitrary_bytes_get_a_reply(body: bytes) -> None:
    dispatcher = Dispatcher({"echo": lambda value: value})
    answer = dispatcher(body)
    assert answer is not None
    check_answer(answer)


@given(json_values | nearly_requests | st.lists(nearly_requests | json_values, max_size=4))
@settings(deadline=None)
def test_arbitrary_json_gets_none_or_a_valid_reply(value: Any) -> None:
    dispatcher = Dispatcher({"echo": lambda value: value, "boom": boom})
    check_answer(dispatcher(json.dumps(value).encode()))
