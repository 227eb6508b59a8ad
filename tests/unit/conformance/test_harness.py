"""How replies are compared with what they should be."""

from __future__ import annotations

from typing import Any

import pytest

from jsonrpc_amqp.amqp.raw_client import Message
from jsonrpc_amqp.conformance.checks import checks
from jsonrpc_amqp.conformance.harness import Fault, call, expect_error, read, same, same_response


def reply(body: bytes) -> Message:
    return Message("q", "x", "k", body, {})


def error(code: Any, message: Any = "m", **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": {"code": code, "message": message, **more}, "id": 1}


@pytest.mark.parametrize(("got", "wanted"), [(1, 1.0), (1, True), (0, False), ("1", 1), ([1, 2], [2, 1]), ({}, None)])
def test_values_that_differ(got: Any, wanted: Any) -> None:
    with pytest.raises(Fault, match="the answer is"):
        same(got, wanted)


def test_values_that_are_the_same() -> None:
    same({"a": 1, "b": [None]}, {"b": [None], "a": 1})


def test_responses_are_compared_without_texts_and_order() -> None:
    result = {"jsonrpc": "2.0", "result": 1, "id": 2}
    same_response([error(-1, "one", data=5), result], [result, error(-1, "two")])
    with pytest.raises(Fault, match="with any texts"):
        same_response(error(-1), error(-2))
    with pytest.raises(Fault):
        same_response(error(-1, None), error(-1))


def test_long_values_are_cut() -> None:
    with pytest.raises(Fault) as fault:
        same("x" * 1000, 1)
    assert len(str(fault.value)) < 250


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (None, "no JSON-RPC 2.0 error"),
        ({"jsonrpc": "2.0", "result": 1, "id": 1}, "no JSON-RPC 2.0 error"),
        ({**error(-1), "jsonrpc": "1.0"}, "no JSON-RPC 2.0 error"),
        (error("-1"), "an integer code"),
        (error(True), "an integer code"),
        (error(-1, None), "a string message"),
        (error(-3), "-1 or -2 is due"),
        ({**error(-1), "id": 1.0}, "of the id"),
    ],
)
def test_errors_that_are_wrong(got: Any, message: str) -> None:
    with pytest.raises(Fault, match=message):
        expect_error(got, (-1, -2), 1)


def test_errors_that_are_right() -> None:
    expect_error(error(-2), (-1, -2), 1)


@pytest.mark.parametrize("body", [b"", b"{", b'"\xff"', b"NaN", b"[Infinity]"])
def test_replies_that_are_no_json(body: bytes) -> None:
    with pytest.raises(Fault, match="no JSON"):
        read(reply(body))


def test_replies_that_are_json() -> None:
    assert read(reply(call("m", [1], "i"))) == {"jsonrpc": "2.0", "method": "m", "params": [1], "id": "i"}


def test_every_check_has_a_name_of_its_own() -> None:
    names = [(check.group, check.name) for check in checks()]
    assert len(names) == len(set(names)) > 100
    assert {group for group, _name in names} == {"specification", "wire", "vectors", "hostile"}
