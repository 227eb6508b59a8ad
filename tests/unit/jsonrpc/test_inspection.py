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
    assert (requested.ids, requested.is_batch) == (ids, is_batch)
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


def batch_of(*ids: Any) -> inspection.Requested:
    return inspection.Requested(ids, True)


def ok(id: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "result": id, "id": id}


def bad(id: Any, code: int = -32601) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": {"code": code, "message": "no"}, "id": id}


@pytest.mark.parametrize(
    ("requested", "reply"),
    [
        (inspection.Requested((7,), False), ok(7)),
        (inspection.Requested((1,), False), ok(1.0)),
        (inspection.Requested((None,), False), ok(None)),
        (inspection.Requested((7,), False), bad(None)),
        (batch_of(1, "b", None), [ok("b"), ok(None), bad(1)]),
        (batch_of(1, 1), [ok(1), bad(1)]),
        # The batch was refused as a whole.
        (batch_of(1, "b"), bad(None)),
        (batch_of(1, "b"), bad(1)),
        # A request of another version has a response of another version.
        (inspection.read(b'{"method": "m", "id": 7}'), {"result": 1, "error": None, "id": 7}),
        (inspection.read(b'{"version": "1.1", "method": "m", "id": 7}'), {"result": 1}),
    ],
)
def test_a_reply_that_answers_each_call_is_left_as_it_is(requested: inspection.Requested, reply: Any) -> None:
    text = json.dumps(reply, indent=1).encode()
    assert inspection.repair(requested, text, RemoteError(-32005, "lost"))[:2] == (text, 0)


LOST = -32005
REPAIRED: dict[str, tuple[list[Any], Any, list[tuple[Any, int | None]]]] = {
    "a response is missing": ([1, None, ""], [ok(1)], [(1, None), (None, LOST), ("", LOST)]),
    "a response is not asked for": ([1], [ok(1), ok(2)], [(1, None)]),
    "a response came twice": ([1, 2], [ok(1), ok(1), ok(2)], [(1, None), (2, None)]),
    "the id has another type": ([1, 2], [ok("1"), ok(2)], [(1, LOST), (2, None)]),
    "a boolean is no number": ([1], [ok(True)], [(1, LOST)]),
    "no object": ([1, 2], [5, ok(2)], [(1, LOST), (2, None)]),
    "no version": ([1, 2], [{"result": 1, "id": 1}, ok(2)], [(1, LOST), (2, None)]),
    "result and error": ([1, 2], [{**ok(1), "error": None}, ok(2)], [(1, LOST), (2, None)]),
    "no code": ([1, 2], [{**bad(1), "error": {}}, ok(2)], [(1, LOST), (2, None)]),
    "no id": ([1, 2], [{"jsonrpc": "2.0", "result": 1}, ok(2)], [(1, LOST), (2, None)]),
    "the id of a list": ([1], [ok([1]), ok(1)], [(1, None)]),
    "an error without an id": ([1, 2], [bad(None, -32600), ok(2)], [(1, -32600), (2, None)]),
    "which error is whose": ([1, 2, 3], [bad(None, -32600), ok(2)], [(1, LOST), (2, None), (3, LOST)]),
    "a result without an id": ([1, 2], [ok(None), ok(2)], [(1, LOST), (2, None)]),
    "empty": ([1, 2], [], [(1, LOST), (2, LOST)]),
    "a single result": ([1, 2], ok(1), [(1, LOST), (2, LOST)]),
    "a text": ([1, 2], "x", [(1, LOST), (2, LOST)]),
    "null": ([1], None, [(1, LOST)]),
}


@pytest.mark.parametrize("fault", REPAIRED)
def test_each_call_of_a_batch_has_one_response_after_all(fault: str) -> None:
    ids, reply, wanted = REPAIRED[fault]
    text, missing, _lacks_ids = inspection.repair(
        batch_of(*ids), json.dumps(reply).encode(), RemoteError(LOST, "lost", {"a": 1})
    )
    assert [(each["id"], each.get("error", {}).get("code")) for each in json.loads(text)] == wanted
    assert missing == sum(code == LOST for _id, code in wanted)


@pytest.mark.parametrize(
    "text",
    ["", "<html>", "5", "[]", '{"ok": true}', "[" * 5000, '{"jsonrpc": "2.0", "result": NaN, "id": 7}', '{"result": 1}']
    + [json.dumps(each) for each in (ok("7"), ok(None), ok(8), [ok(7)], {**ok(7), "error": None})],
)
def test_what_does_not_answer_a_single_call(text: str) -> None:
    reply, missing, _lacks_ids = inspection.repair(
        inspection.Requested((7,), False), text.encode(), RemoteError(LOST, "lost")
    )
    assert (json.loads(reply)["error"]["code"], json.loads(reply)["id"], missing) == (LOST, 7, 1)


@pytest.mark.parametrize(
    ("requested", "reply", "missing", "missing_by_id"),
    [
        (inspection.Requested((7,), False), bad(None), 0, 1),
        (inspection.Requested((7,), False), bad(7), 0, 0),
        (inspection.Requested((7,), False, False), {"error": "x", "id": None}, 0, 1),
        (batch_of(1, 2), bad(None), 0, 2),
        (batch_of(1, 2), bad(3), 0, 2),
        (batch_of(1, 2), bad(2), 0, 0),
        (batch_of(1, 2), [ok(1), bad(None)], 0, 1),
        (batch_of(1, 2), [ok(1), ok(2), bad(None)], 0, 0),
        (batch_of(1, 2), [ok(2), ok(1)], 0, 0),
    ],
)
def test_by_id_alone(requested: inspection.Requested, reply: Any, missing: int, missing_by_id: int) -> None:
    text, lost = json.dumps(reply).encode(), RemoteError(LOST, "lost")
    members = reply if isinstance(reply, list) else [reply]
    lacks_ids = any(each["id"] is None for each in members)
    assert inspection.repair(requested, text, lost)[1:] == (missing, lacks_ids)
    assert inspection.repair(requested, text, lost, by_id_alone=True)[1:] == (missing_by_id, lacks_ids)


def test_what_is_known_by_its_ids_alone() -> None:
    call = {"jsonrpc": "2.0", "method": "m"}
    bodies = [
        {**call, "id": 1},
        [{**call, "id": 1}, call],
        {**call, "id": None},
        [{**call, "id": 1}, 5],
        call,
        {"id": 1},
    ]
    known = [inspection.read(json.dumps(body).encode()).has_ids_alone for body in bodies]
    assert known == [True, True, False, False, False, False]
