"""Dispatchers of other libraries: each call gets one response, with its id, whatever the library does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from jsonrpc_amqp.context import NoEnvelope, Request, enter, leave
from jsonrpc_amqp.jsonrpc import inspection
from jsonrpc_amqp.jsonrpc.foreign import ForeignDispatcher, NotBegun


class Ambiguous:
    """As an array of numpy is."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")

    __eq__ = __bool__  # type: ignore[assignment]


Reply = Callable[[dict[str, Any]], object]


def respond(request: dict[str, Any], result: Any = 1) -> str:
    return json.dumps({"jsonrpc": "2.0", "result": result, "id": request["id"]})


def raising(exc: BaseException) -> Reply:
    def reply(_request: dict[str, Any]) -> object:
        raise exc

    return reply


FAULTS: dict[str, Reply] = {
    "raises": raising(KeyError("secret")),
    "exits": raising(SystemExit("secret")),
    "is interrupted": raising(KeyboardInterrupt("secret")),
    "None": lambda request: None,
    "empty": lambda request: "",
    "no text": lambda request: 5,
    "an object that is neither true nor false": lambda request: Ambiguous(),
    "a tuple": lambda request: (respond(request), [0]),
    "no JSON": lambda request: "<html>secret",
    "NaN": lambda request: respond(request, float("nan")),
    "too deep": lambda request: respond(request, json.loads("[" * 100 + "]" * 100)),
    "no UTF-8": lambda request: b'{"jsonrpc": "2.0", "result": "\xff", "id": 1}',
    "a lone surrogate": lambda request: respond(request).replace("result", "\ud800"),
    "an array": lambda request: f"[{respond(request)}]",
    "no object": lambda request: '"secret"',
    "no version": lambda request: json.dumps({"result": 1, "id": request["id"]}),
    "neither": lambda request: json.dumps({"jsonrpc": "2.0", "id": request["id"]}),
    "both": lambda request: json.dumps({"jsonrpc": "2.0", "result": 1, "error": None, "id": request["id"]}),
    "no id": lambda request: '{"jsonrpc": "2.0", "result": 1}',
    "another id": lambda request: respond({"id": "secret"}),
    "no code": lambda request: json.dumps({"jsonrpc": "2.0", "error": {"message": "x"}, "id": request["id"]}),
    "a text as code": lambda request: json.dumps(
        {"jsonrpc": "2.0", "error": {"code": "1", "message": "x"}, "id": request["id"]}
    ),
}


def library(fault: Reply = respond) -> Callable[[str], Any]:
    """
    Return a library with the methods "good" and "bad".

    It takes calls with an id of null, an empty one or a fraction for notifications, and wants no batches.
    """

    def dispatch(text: str) -> object:
        request = json.loads(text)
        assert isinstance(request, dict)
        assert set(request) <= {"jsonrpc", "method", "params", "id"}
        if request.get("id") in (None, "") or isinstance(request["id"], float):
            return "" if request["method"] == "good" else fault({"id": None, **request})
        return respond(request) if request["method"] == "good" else fault(request)

    return dispatch


def call(method: str, *id: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, **dict.fromkeys(["id"][: len(id)], *id or [None])}


def ask(dispatch: Callable[[bytes], bytes | None], body: Any) -> Any:
    reply = dispatch(json.dumps(body).encode())
    return None if reply is None else json.loads(reply)


def outcomes(replies: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    """Return id, and code or result, of each."""
    return [(each["id"], each["error"]["code"] if "error" in each else each["result"]) for each in replies]


@pytest.mark.parametrize("fault", FAULTS)
def test_each_call_of_a_batch_gets_its_own_response(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    dispatch = ForeignDispatcher(library(FAULTS[fault]))
    batch = [
        call("good", 1),
        {"foo": "boo"},
        call("bad", 1),
        call("bad"),
        call("good", None),
        5,
        call("good"),
        call("bad", None),
        call("bad", "b"),
        call("good", ""),
        {**call("good", 7), "jsonrpc": "1.0"},
        call("good", 1.5),
    ]
    replies = ask(dispatch, batch)
    assert outcomes(replies) == [
        (1, 1),
        (None, -32600),
        (1, -32603),
        (None, 1),
        (None, -32600),
        (None, -32603),
        ("b", -32603),
        ("", 1),
        (7, -32600),
        (1.5, 1),
    ]
    assert "secret" not in json.dumps(replies)
    assert "'bad'" in caplog.text
    raised = fault in ("raises", "exits", "is interrupted")
    assert dispatch.failures == 6 + raised  # a notification that raised counts as well


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("id", [7, "a.b", None, "", 1.5, 2**70])
def test_a_single_call_gets_its_response(fault: str, id: Any) -> None:
    dispatch = ForeignDispatcher(library(FAULTS[fault]))
    assert outcomes([ask(dispatch, call("bad", id))]) == [(id, -32603)]
    assert outcomes([ask(dispatch, call("good", id))]) == [(id, 1)]
    assert ask(dispatch, [call("bad")]) is None
    assert ask(dispatch, call("bad")) is None


def test_an_error_of_the_library_gets_the_id_of_its_call() -> None:
    error = {"jsonrpc": "2.0", "error": {"code": -32099, "message": "no", "data": [1]}, "id": None}
    dispatch = ForeignDispatcher(lambda text: json.dumps(error).encode())
    assert ask(dispatch, [call("bad", 3), call("bad", "")]) == [{**error, "id": 3}, {**error, "id": ""}]
    assert dispatch.failures == 2


def test_the_library_gets_params_and_no_other_members() -> None:
    seen: list[Any] = []

    def dispatch(text: str) -> str:
        seen.append(json.loads(text))
        return respond(seen[-1])

    foreign = ForeignDispatcher(dispatch)
    for params in ([1, {"a": "ü"}], {"a": [1]}):
        ask(foreign, {**call("m", 1), "params": params, "more": 1})
        assert seen.pop() == {**call("m", 1), "params": params}
    ask(foreign, {**call("m", 1), "params": []})
    assert seen.pop() == call("m", 1)


def test_limits() -> None:
    dispatch = ForeignDispatcher(library(lambda request: respond(request, "x" * 5000)), max_batch=3, max_size=2048)
    assert outcomes([ask(dispatch, [call("good", 1)] * 4)]) == [(None, -32600)]
    assert outcomes([ask(dispatch, call("good", "x" * 3000))]) == [(None, -32600)]
    assert outcomes(ask(dispatch, [call("bad", 1), call("good", 2)])) == [(1, -32603), (2, 1)]
    assert outcomes([json.loads(dispatch(b"{") or b"")]) == [(None, -32700)]
    assert outcomes([ask(inspection.dispatcher(library(), max_batch=1), [1, 2])]) == [(None, -32600)]


class Returned(NoEnvelope):
    count = 0

    def give_back(self) -> None:
        type(self).count += 1


def test_a_body_of_which_nothing_began_is_given_back() -> None:
    Returned.count = 0
    dispatch = ForeignDispatcher(library(raising(NotBegun("no server"))))
    token = enter(Request(None, None, False, Returned()))
    try:
        assert ask(dispatch, [{"foo": "boo"}, call("bad", 1), call("good", 2)]) is None
        assert ask(dispatch, call("bad")) is None
        assert Returned.count == 2
        # The first ran, so the body must not run elsewhere.
        replies = ask(dispatch, [call("good", 1), call("bad", 2), call("good", 3), call("bad")])
        assert outcomes(replies) == [(1, 1), (2, -32603), (3, 1)]
        assert replies[1]["error"]["data"] == "it did not run: no server"
        assert Returned.count == 2
    finally:
        leave(token)
    assert ask(dispatch, call("bad", 1)) is None  # without a message there is nothing to give back
