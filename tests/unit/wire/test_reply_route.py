"""Where the replies to requests go: tables first, then what holds for any input."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jsonrpc_amqp.amqp.memory_broker import topic_matches
from jsonrpc_amqp.errors import InvalidName
from jsonrpc_amqp.wire.names import client_word, qid_of, reply_binding, request_binding
from jsonrpc_amqp.wire.publish import Address
from jsonrpc_amqp.wire.reply_route import reply_route, reply_to_filter

from ...vectors import cases
from .tools import JSON_VALUES, SERVICES, TOKEN, delivery, is_legal, request_key


@cases("keys.json", "reply")
def test_reply_routes(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    arrived = inputs["delivery"]
    route = reply_route(
        delivery(arrived["routing_key"], arrived["exchange"], reply_to=arrived["reply_to"]),
        service=inputs["service"],
        exchange=inputs["exchange"],
        request_queues=inputs["request_queues"],
        allowed=reply_to_filter(inputs["reply_to_allowed"]),
    )
    assert (None if route is None else route._asdict()) == expected["route"]


@given(
    SERVICES.filter(is_legal), st.sampled_from(["request", "response", "control"]) | st.text(max_size=21), JSON_VALUES
)
@example("request-x", "request", "request")
def test_reply_key_differs_in_one_word(service: str, user: str, request_id: Any) -> None:
    try:
        client = client_word(user, TOKEN)
    except InvalidName:
        return
    key = request_key(Address(exchange="x", service=service, client=client), qid_of(request_id))
    route = reply_route(delivery(key, "x"), service=service, exchange="x")
    assert route is not None
    before, after = key.split("."), route.routing_key.split(".")
    assert len(before) == len(after)
    changed = [(place, old, new) for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert changed == [(len(service.split(".")), "request", "response")]


def binding_of(address: Address) -> str:
    return reply_binding(address.service, address.client)


@given(st.lists(st.tuples(SERVICES.filter(is_legal), st.text(max_size=5)), min_size=1, max_size=4), JSON_VALUES)
@example([("S", "request"), ("S", "response"), ("S.T", "request")], "request")
@example([("S", "a.b"), ("S", "a"), ("S", "*"), ("S", "#"), ("S", None)], "a.b")
def test_reply_reaches_its_client_and_no_other(clients: list[tuple[str, str | None]], request_id: Any) -> None:
    addresses = [
        Address(exchange="x", service=service, client=client_word(user, f"token{number:07}"))
        for number, (service, user) in enumerate(clients)
    ]
    for address in addresses:
        key = request_key(address, qid_of(request_id))
        assert [each for each in clients if topic_matches(request_binding(each[0]), key)] == [
            each for each in clients if each[0] == address.service
        ]
        route = reply_route(delivery(key, "x"), service=address.service, exchange="x")
        assert route is not None
        assert [each for each in addresses if topic_matches(binding_of(each), route.routing_key)] == [address]
        assert not topic_matches(request_binding(address.service), route.routing_key)


@given(st.binary(max_size=255))
def test_keys_that_are_not_utf8_are_mirrored_byte_for_byte(tail: bytes) -> None:
    key = b"S.request." + tail
    route = reply_route(delivery(key.decode("utf-8", "surrogateescape")), service="S", exchange="jsonrpc")
    if len(key) > 254:
        assert route is None
    else:
        assert route is not None
        assert route.routing_key.encode("utf-8", "surrogateescape") == b"S.response." + tail


@given(st.text(max_size=300))
@example("S_req")
@example("amq.gen-x")
@example("amq.rabbitmq.reply-to.x")
def test_no_reply_is_written_where_it_could_do_harm(queue: str) -> None:
    route = reply_route(delivery(reply_to=queue), service="S", exchange="jsonrpc", request_queues=["work"])
    if route is None:
        return
    assert (route.exchange, route.routing_key) == ("", queue)
    assert 1 <= len(queue.encode()) <= 255
    assert queue != "work"
    assert not queue.endswith("_req")
    assert not queue.startswith("amq.") or queue.startswith(("amq.gen-", "amq.rabbitmq.reply-to."))


@pytest.mark.parametrize(
    "allowed", [r"friends\..*", re.compile(r"friends\..*"), lambda name: name.startswith("friends.")]
)
def test_reply_to_allowed_takes_patterns_and_callables(allowed: Any) -> None:
    may = reply_to_filter(allowed)
    assert may is not None
    assert may("friends.1")
    assert not may("my.friends.1")


def test_reply_to_allowed_is_optional() -> None:
    assert reply_to_filter(None) is None
