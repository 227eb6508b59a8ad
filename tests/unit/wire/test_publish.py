"""The messages that carry calls, notifications and replies: addresses, properties, deadlines."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jsonrpc_amqp.errors import CallTimeout, InvalidName
from jsonrpc_amqp.jsonrpc import messages
from jsonrpc_amqp.wire.names import client_word, qid_of, reply_binding
from jsonrpc_amqp.wire.publish import (
    Address,
    call_message,
    deadline_of,
    milliseconds,
    notification_message,
    reply_message,
)
from jsonrpc_amqp.wire.reply_route import reply_route

from ...vectors import cases
from .tools import (
    JSON_VALUES,
    NOW,
    PLAIN_WORD,
    SERVICES,
    TOKEN,
    address_of,
    check_publish,
    deadline_in,
    delivery,
    frames,
    is_legal,
    new_encoder,
    request_key,
)

DOC = Path(__file__).parents[3] / "docs" / "protocol.md"


# -- addresses ----------------------------------------------------------------------------------------------


@cases("keys.json", "keys")
def test_keys(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    address = Address(exchange="jsonrpc", service=inputs["service"], client=inputs["client"])
    assert request_key(address, inputs["qid"]) == expected["request_key"]
    assert address.notification_key == expected["notification_key"]
    assert reply_binding(inputs["service"], inputs["client"]) == expected["reply_binding"]
    route = reply_route(delivery(expected["request_key"]), service=inputs["service"], exchange="jsonrpc")
    assert route == ("jsonrpc", expected["response_key"], True)


def test_longest_legal_names_fit_into_a_key() -> None:
    address = Address(exchange="x", service="s" * 80, client=client_word("u" * 64, TOKEN))
    assert len(request_key(address, "q" * 64)) <= 254  # the reply's has one byte more


@pytest.mark.parametrize(("length", "fits"), [(179, True), (180, False)])
def test_keys_that_could_exceed_255_bytes_are_refused_in_advance(length: int, fits: bool) -> None:
    # "S" + ".response." + client + "." + 64 bytes of qid
    if fits:
        assert Address(exchange="x", service="S", client="c" * length).client == "c" * length
    else:
        with pytest.raises(InvalidName, match="255"):
            Address(exchange="x", service="S", client="c" * length)


def test_address_refuses_an_illegal_service() -> None:
    with pytest.raises(InvalidName, match="'request'"):
        Address(exchange="x", service="a.request", client="c")


@given(SERVICES, st.text(max_size=21), JSON_VALUES)
def test_any_key_has_its_words_and_fits(service: str, user: str, request_id: Any) -> None:
    try:
        address = Address(exchange="x", service=service, client=client_word(user, TOKEN))
    except InvalidName:
        assert not is_legal(service) or 3 * len(user.encode()) > 64
        return
    key = request_key(address, qid_of(request_id))
    words = key.split(".")
    assert words[: len(words) - 3] == service.split(".")
    assert words[-3] == "request"
    assert all(PLAIN_WORD.fullmatch(word) for word in words)
    assert len(key.encode()) <= 254


# -- deadlines ----------------------------------------------------------------------------------------------


@cases("keys.json", "milliseconds")
def test_milliseconds(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    assert milliseconds(inputs["seconds"]) == expected["milliseconds"]


@given(st.floats(allow_nan=False))
def test_milliseconds_are_what_amqp_takes_and_never_too_few(seconds: float) -> None:
    result = milliseconds(seconds)
    assert type(result) is int
    assert 1 <= result <= 4294967295
    if seconds < 4294967:
        assert result / 1000 >= seconds - 1e-6
    if seconds > 0:
        assert result <= seconds * 1000 + 1


def test_deadline_counts_from_when_the_request_arrived_here() -> None:
    assert deadline_of(delivery(timeout_ms=2500), NOW) == NOW + 2.5


def test_request_without_timeout_ms_has_no_deadline() -> None:
    assert deadline_of(delivery(), NOW) is None


# -- messages -----------------------------------------------------------------------------------------------


@cases("requests.json", "publish")
def test_requests(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    address, method, params = address_of(inputs), inputs["method"], inputs["params"]
    if inputs["kind"] == "notification":
        message = notification_message(
            address,
            messages.notification(method, params),
            message_id=inputs["message_id"],
            persistent=inputs.get("persistent", True),
        )
        check_publish(message, expected)
        return
    body = messages.request(method, params, inputs["id"])
    options: dict[str, Any] = {
        "number": inputs["number"],
        "qid": qid_of(inputs["id"]),
        "deadline": deadline_in(inputs["seconds"]),
        "now": NOW,
        "persistent": inputs.get("persistent", False),
        "headers": inputs.get("headers"),
    }
    if "error" in expected:
        with pytest.raises(CallTimeout) as caught:
            call_message(address, body, **options)
        assert caught.value.may_have_run is False
    else:
        check_publish(call_message(address, body, **options), expected)


@cases("batches.json", "publish")
def test_batches(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    address, body = address_of(inputs), messages.encode(inputs["members"])
    kind = messages.classify(body)
    if kind.is_notification:
        message = notification_message(address, body, message_id=inputs["message_id"])
    else:
        deadline = deadline_in(inputs["seconds"])
        qid = qid_of(kind.id)
        message = call_message(address, body, number=inputs["number"], qid=qid, deadline=deadline, now=NOW)
    check_publish(message, {**expected, "body": inputs["members"]})


def test_call_without_bounds_in_time() -> None:
    address = Address(exchange="x", service="S", client="c")
    message = call_message(address, b"{}", number="1", qid="1", deadline=math.inf, now=NOW)
    assert message.expiration_ms == message.timeout_ms == 4294967295


@cases("answers.json", "publish")
def test_replies(inputs: dict[str, Any], expected: dict[str, Any] | None) -> None:
    arrived = inputs["request"]
    request = delivery(arrived["routing_key"], arrived["exchange"], **arrived["properties"])
    route = reply_route(request, service=inputs["service"], exchange=inputs["exchange"], request_queues=["S_req"])
    if expected is None:
        assert route is None
        return
    assert route is not None
    message = reply_message(request, b"{}", route=route, now=NOW, deadline=deadline_in(inputs["seconds"]))
    check_publish(message, {**expected, "body": {}})


def test_worked_example_of_the_docs() -> None:
    """The bytes in the docs are those that are sent, and mean what the docs say."""
    dump = DOC.read_text(encoding="utf-8").split("```hex\n")[1].split("```")[0]
    data = bytes.fromhex(dump)
    address = Address(exchange="jsonrpc", service="calc", client=f"alice-{TOKEN}", user="alice")
    body = messages.request("add", [1, 2], 7)
    message = call_message(address, body, number="7", qid="7", deadline=NOW + 5, now=NOW)
    assert new_encoder().publish(1, message) == data
    method, header, content = frames(data)
    assert (method.method.exchange, method.method.routing_key) == ("jsonrpc", f"calc.request.alice-{TOKEN}.7")
    assert header.properties.headers == {"timeout-ms": 5000}
    assert json.loads(content.fragment) == {"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 7}
