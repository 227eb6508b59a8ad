"""What bodies request, errors that reply to them, and dispatchers of other libraries."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jsonrpc_amqp import RemoteError
from jsonrpc_amqp.jsonrpc import inspection

CALL: dict[str, Any] = {"jsonrpc": "2.0", "method": "m", "id": 7}
NOTIFICATION = {"jsonrpc": "2.0", "method": "m"}


@pytest.mark.parametrize(
    ("body", "ids", "is_batch"),
    [
        (CALL, (7,), False),
        ({**CALL, "id": "a.b"}, ("a.b",), False),
        ({**CALL, "id": 1.5}, (1.5,), False),
        ({**CALL, "id": None}, (None,), False),
        (NOTIFICATION, (), False),
        # An invalid request awaits an error; an invalid id cannot be sent back.
        ({**CALL, "id": [1]}, (None,), False),
        ({**CALL, "id": True}, (None,), False),
        ({"method": "m"}, (None,), False),
        ({"method": 1, "id": 7}, (7,), False),
        ([], (None,), False),
        (5, (None,), False),
        ([CALL, NOTIFICATION, {**CALL, "id": "b"}, 5], (7, "b", None), True),
        ([NOTIFICATION], (), True),
    ],
)
def test_what_a_body_requests(body: Any, ids: tuple[Any, ...], is_batch: bool) -> None:
    requested = inspection.read(json.dumps(body).encode())
    assert requested == (ids, is_batch)
    assert requested.is_notification == (ids == ())


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", -32700), (b"{", -32700), (b"\xff", -32700), (b"[" * 101 + b"]" * 101, -32700), (b"[1,1,1,1]", -32600)],
)
def test_bodies_that_are_invalid_as_a_whole(body: bytes, code: int) -> None:
    with pytest.raises(RemoteError) as refused:
        inspection.read(body, max_batch=3)
    assert refused.value.code == code


def test_an_error_replies_to_each_call() -> None:
    error = RemoteError(-32005, "why", {"a": 1})
    error_object = {"code": -32005, "message": "why", "data": {"a": 1}}
    assert json.loads(inspection.error(inspection.Requested((7,), False), error)) == {
        "jsonrpc": "2.0",
        "error": error_object,
        "id": 7,
    }
    assert json.loads(inspection.error(inspection.Requested((7, "b"), True), error)) == [
        {"jsonrpc": "2.0", "error": error_object, "id": 7},
        {"jsonrpc": "2.0", "error": error_object, "id": "b"},
    ]
    # No call awaits a response, but over HTTP there is always a reply.
    for none in (inspection.Requested((), False), inspection.Requested((), True)):
        assert json.loads(inspection.error(none, RemoteError(1, "why"))) == {
            "jsonrpc": "2.0",
            "error": {"code": 1, "message": "why"},
            "id": None,
        }


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ('{"result": 1}', True),
        ('{"error": null, "id": 1}', True),
        ('[{"result": 1}, {"error": {}}]', True),
        ("[]", False),
        ('[{"result": 1}, 5]', False),
        ('{"ok": true}', False),
        ("null", False),
        ("<html>", False),
        ("", False),
    ],
)
def test_what_is_a_response(text: str, is_one: bool) -> None:
    assert inspection.is_response(text.encode()) is is_one


def test_a_dispatcher_of_others_is_guarded() -> None:
    seen: list[str] = []

    def dispatch(text: str) -> str | None:
        seen.append(text)
        return {"m": '{"result": 1}', "silent": "", "none": None}[json.loads(text)["method"]]

    guarded = inspection.dispatcher(dispatch, max_batch=3)
    assert guarded(json.dumps(CALL).encode()) == b'{"result": 1}'
    # Its reply to a notification is dropped.
    assert guarded(json.dumps(NOTIFICATION).encode()) is None
    for method in ("silent", "none"):
        reply = json.loads(guarded(json.dumps({**CALL, "method": method}).encode()) or b"")
        assert (reply["id"], reply["error"]["code"]) == (7, -32603)
        assert guarded(json.dumps({**NOTIFICATION, "method": method}).encode()) is None
    calls = len(seen)
    assert json.loads(guarded(b"{") or b"")["error"]["code"] == -32700
    assert json.loads(guarded(b"[1,1,1,1]") or b"")["error"]["code"] == -32600
    assert len(seen) == calls


def test_a_dispatcher_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    def dispatch(text: str) -> str:
        raise KeyError("secret")

    guarded = inspection.dispatcher(dispatch)
    replies = json.loads(guarded(json.dumps([CALL, NOTIFICATION, {**CALL, "id": "b"}]).encode()) or b"")
    assert [(each["id"], each["error"]) for each in replies] == [
        (7, {"code": -32603, "message": "Internal error"}),
        ("b", {"code": -32603, "message": "Internal error"}),
    ]
    assert guarded(json.dumps(NOTIFICATION).encode()) is None
    assert caplog.text.count("KeyError: 'secret'") == 2
