"""Which way requests and replies go."""

from __future__ import annotations

import pytest

from jsonrpc_amqp.amqp.base import DIRECT_REPLY_TO
from jsonrpc_amqp.client.addresses import Addresses, Routing, resolve_routing
from jsonrpc_amqp.errors import InvalidName
from jsonrpc_amqp.wire.publish import Address, QueueAddress

X = "exchange"


def addresses(*, user: str | None = "guest", **routing: str | None) -> Addresses:
    options: dict[str, str | None] = {"route": None, "reply": None, "queue": None, **routing}
    return Addresses(resolve_routing(X, **options), user)


# -- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "reply", "queue", "expected"),
    [
        (None, None, None, Routing(X, "topic", False, None)),
        ("topic", None, None, Routing(X, "topic", False, None)),
        (None, "topic", None, Routing(X, "topic", False, None)),
        (None, "queue", None, Routing(X, "queue", False, None)),
        (None, "direct", None, Routing(X, "direct", False, None)),
        ("topic", "direct", None, Routing(X, "direct", False, None)),
        ("queue", None, None, Routing("", "queue", True, None)),
        ("queue", "queue", None, Routing("", "queue", True, None)),
        ("queue", "direct", None, Routing("", "direct", True, None)),
        (None, None, "q", Routing("", "queue", True, "q")),
        ("queue", None, "q", Routing("", "queue", True, "q")),
        (None, "direct", "q", Routing("", "direct", True, "q")),
    ],
)
def test_routing(route: str | None, reply: str | None, queue: str | None, expected: Routing) -> None:
    assert resolve_routing(X, route=route, reply=reply, queue=queue) == expected


@pytest.mark.parametrize(
    ("route", "reply", "queue", "text"),
    [
        ("direct", None, None, "route is 'topic' or 'queue', not 'direct'"),
        (None, "fast", None, "reply is 'topic', 'queue' or 'direct', not 'fast'"),
        ("topic", None, "q", "requests go either to the queue that is named, or over the exchange: leave out route"),
        ("queue", "topic", None, "a request that is sent to a queue has no key to answer to: reply is 'queue' or "),
        (None, "topic", "q", "a request that is sent to a queue has no key to answer to: reply is 'queue' or "),
    ],
)
def test_options_that_do_not_go_together(route: str | None, reply: str | None, queue: str | None, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        resolve_routing(X, route=route, reply=reply, queue=queue)


@pytest.mark.parametrize(("queue", "expected"), [(None, "S_req"), ("q", "q")])
def test_queue_of_a_service(queue: str | None, expected: str) -> None:
    assert resolve_routing(X, route="queue", reply=None, queue=queue).queue_of("S") == expected


# -- what may be called ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["topic", "queue"])
@pytest.mark.parametrize("name", ["a b", "", "request", "S" * 81])
def test_service_names_that_break_a_rule(route: str, name: str) -> None:
    with pytest.raises(InvalidName):
        addresses(route=route).check(name)


def test_name_of_a_queue_is_no_service_name() -> None:
    addresses(queue="any queue").check("any queue")


def test_user_name_that_breaks_a_rule() -> None:
    with pytest.raises(InvalidName):
        addresses(user="u" * 65)


def test_client_of_one_queue_calls_one_service() -> None:
    made = addresses(queue="q")
    made.check("S")
    made.services.add("S")
    with pytest.raises(ValueError, match=r"^this client calls queue 'q', so it cannot call service 'T'$"):
        made.check("T")


# -- addresses ------------------------------------------------------------------------------------------------------


def test_address_over_the_exchange() -> None:
    made = addresses()
    made.new_connection()
    made.opened("")
    address = made.of("S")
    assert isinstance(address, Address)
    assert (address.exchange, address.service, address.user, address.reply_to) == (X, "S", "guest", None)
    assert address.client.startswith("guest-")
    assert made.reply_binding("S") == f"S.response.{address.client}.#"
    assert made.reply_key("S", "7") == f"S.response.{address.client}.7"
    assert made.of("S") is address


@pytest.mark.parametrize(("queue", "expected"), [(None, "S_req"), ("q", "q")])
def test_address_by_queue(queue: str | None, expected: str) -> None:
    made = addresses(route="queue", queue=queue)
    made.new_connection()
    made.opened("amq.gen-1")
    address = made.of("S")
    assert isinstance(address, QueueAddress)
    assert (address.exchange, address.key_of("7"), address.reply_to) == ("", expected, "amq.gen-1")
    assert made.reply_key("S", "7") == "amq.gen-1"


def test_unknown_user_has_a_word_and_sends_no_user_id() -> None:
    address = addresses(user=None).of("S")
    assert address.client.startswith("_-")
    assert address.user is None


def test_each_connection_has_addresses_of_its_own() -> None:
    made = addresses(reply="queue")
    made.new_connection()
    made.opened("amq.gen-1")
    first = made.of("S")
    made.new_connection()
    made.opened("amq.gen-2")
    second = made.of("S")
    assert (first.reply_to, second.reply_to) == ("amq.gen-1", "amq.gen-2")
    assert first.client != second.client


@pytest.mark.parametrize("route", ["topic", "queue"])
def test_direct_replies_need_no_queue(route: str) -> None:
    made = addresses(route=route, reply="direct")
    made.opened("amq.gen-1")
    assert (made.of("S").reply_to, made.reply_key("S", "7")) == (DIRECT_REPLY_TO, DIRECT_REPLY_TO)
