"""The dialect of the recipe of 2011: requests read, replies written, calls translated."""

from __future__ import annotations

import json
from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest

from jsonrpc_amqp import (
    EncodeError,
    MalformedReply,
)
from jsonrpc_amqp.amqp.base import Delivery
from jsonrpc_amqp.dialects import MalformedEnvelope
from jsonrpc_amqp.dialects.recipe2011 import RecipeClient, RecipeServer
from jsonrpc_amqp.jsonrpc import messages
from jsonrpc_amqp.wire.publish import Address, call_message

from .tools import read, translated

METHODS: dict[str, Callable[..., Any]] = {"note": lambda value: value, "now": lambda: "now", "two": lambda a, b: [a, b]}


def recipe(method: str = "note") -> RecipeServer:
    return RecipeServer("S", "X", method, lambda name: signature(METHODS[name]) if name in METHODS else None)


# -- the server ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "request_", "key"),
    [
        (
            b'{"q":{"q":"time can you get me please?"},"qid":"q518"}',
            {"jsonrpc": "2.0", "method": "note", "params": [{"q": "time can you get me please?"}], "id": "q518"},
            "S.response.q518",
        ),
        (
            b'{"qid": "0", "q": "what time is it?"}',
            {"jsonrpc": "2.0", "method": "note", "params": ["what time is it?"], "id": "0"},
            "S.response.0",
        ),
        (
            b'{"qid":293742,"q":[]}',
            {"jsonrpc": "2.0", "method": "note", "params": [[]], "id": "293742"},
            "S.response.293742",
        ),
        (
            b'{"q":null,"qid":"a.b"}',
            {"jsonrpc": "2.0", "method": "note", "params": [None], "id": "a.b"},
            "S.response.a.b",
        ),
    ],
)
def test_recipe_call(body: bytes, request_: Any, key: str) -> None:
    inbound = translated(recipe(), body)
    assert json.loads(inbound.body) == request_
    assert inbound.route == ("X", key, True)
    assert inbound.content_type == "text/plain"


@pytest.mark.parametrize("body", [b'{"q":{"q":"hello AMQP backend, I am Java"}}', b'{"q":1,"qid":null}'])
def test_recipe_one_way(body: bytes) -> None:
    inbound = translated(recipe(), body)
    assert "id" not in json.loads(inbound.body)
    assert inbound.route is None


def test_recipe_method_that_takes_nothing() -> None:
    inbound = translated(recipe("now"), b'{"q":"what time is it?","qid":"1"}')
    assert json.loads(inbound.body) == {"jsonrpc": "2.0", "method": "now", "id": "1"}


def test_recipe_replies() -> None:
    inbound = translated(recipe(), b'{"q":1,"qid":"1"}')
    assert inbound.reply(b'{"jsonrpc":"2.0","result":{"msg":"x"},"id":"1"}') == b'{"msg":"x"}'
    assert inbound.reply(b'{"jsonrpc":"2.0","result":null,"id":"1"}') == b"null"
    error = inbound.reply(b'{"jsonrpc":"2.0","error":{"code":-32603,"message":"Internal error"},"id":"1"}')
    assert json.loads(error) == {"error": {"code": -32603, "message": "Internal error"}}


VICTIM = b'{"q":1,"qid":"alice-0123456789ab.7"}'


@pytest.mark.parametrize("user", [None, "eve"])
def test_recipe_qid_of_another_client(user: str | None) -> None:
    with pytest.raises(MalformedEnvelope, match="names a client that did not send it"):
        read(recipe(), VICTIM, user_id=user)


@pytest.mark.parametrize(
    ("body", "user", "is_to_sender"),
    [
        (VICTIM, "alice", True),
        (b'{"q":1,"qid":"q518"}', "alice", False),
        (b'{"q":1,"qid":"_-0123456789ab.7"}', None, False),
    ],
)
def test_recipe_reply_says_who_the_server_is_to_a_verified_sender_only(
    body: bytes, user: str | None, is_to_sender: bool
) -> None:
    inbound = read(recipe(), body, user_id=user)
    assert inbound is not None
    assert inbound.is_to_sender is is_to_sender


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"junk",
        b"5",
        b'"q"',
        b"{}",
        b'{"qid":"q1"}',
        b'{"q":1,"qid":["q1"]}',
        b'{"q":1,"qid":true}',
        b'{"q":1,"qid":1.5}',
        b'{"q":1,"qid":""}',
        b'{"q":1,"qid":"%s"}' % (b"x" * 250),
        b'{"q":1,"qid":1%s}' % (b"0" * 400),
        b"\xff\xfe",
    ],
)
def test_recipe_malformed(body: bytes) -> None:
    with pytest.raises(MalformedEnvelope):
        read(recipe(), body)


@pytest.mark.parametrize(
    ("body", "properties"),
    [
        (b'{"jsonrpc":"2.0","method":"note","params":[1],"id":1}', {}),
        (b'{"jsonrpc":"2.0","method":"note","q":1}', {}),
        (b'{"jsonrpc":"1.0"}', {}),
        (b"[]", {}),
        (b" [1", {}),
        (b"junk", {"correlation_id": "7"}),
        (b"{}", {"reply_to": "replies"}),
    ],
)
def test_recipe_leaves_json_rpc_alone(body: bytes, properties: Any) -> None:
    assert read(recipe(), body, **properties) is None


@pytest.mark.parametrize(
    ("method", "problem"),
    [("note", None), ("now", None), ("absent", "there is no method 'absent'"), ("two", "'two' cannot be called")],
)
def test_recipe_method_that_cannot_serve(method: str, problem: str | None) -> None:
    found = recipe(method).problem()
    assert found is None if problem is None else problem in str(found)


# -- the client ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'[{"jsonrpc":"2.0","method":"x","id":1}]',
        b"junk",
        b'{"jsonrpc":"2.0","method":"x","params":[1,2],"id":1}',
    ],
)
def test_recipe_client_has_no_form_for_it(body: bytes) -> None:
    with pytest.raises(EncodeError, match="nothing was sent"):
        RecipeClient().check(body)


def test_recipe_client_translates_a_call() -> None:
    address = Address(exchange="X", service="S", client="alice-0123456789ab")
    body = messages.request("anything", {"q": "time?"}, 7)
    message = call_message(address, body, number="5", qid="7", deadline=None, now=0.0)
    sent = RecipeClient().request(address, "5", message)
    assert json.loads(sent.body) == {"q": {"q": "time?"}, "qid": "alice-0123456789ab.5"}
    assert (sent.routing_key, sent.content_type) == ("S.request.alice-0123456789ab", "text/plain")
    assert RecipeClient().number(Delivery(1, 1, False, "X", "S.response.alice-0123456789ab.5", b"")) == "5"


def test_recipe_client_takes_what_merely_has_an_error_member_for_a_result() -> None:
    response = json.loads(RecipeClient().response(b'{"id": 1}', b'{"error": "none"}'))
    assert response == {"jsonrpc": "2.0", "id": 1, "result": {"error": "none"}}
    error = {"code": -32603, "message": "Internal error"}
    response = json.loads(RecipeClient().response(b'{"id": 1}', json.dumps({"error": error}).encode()))
    assert response == {"jsonrpc": "2.0", "id": 1, "error": error}


def test_recipe_reply_that_is_nested_too_deep_ends_the_call_at_once() -> None:
    response = RecipeClient().response(b'{"id": 1}', b"[" * 100 + b"]" * 100)
    with pytest.raises(MalformedReply, match="deeper"):
        messages.result_of(response, 1)
