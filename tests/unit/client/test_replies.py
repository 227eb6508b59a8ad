"""Replies are paired with the calls that wait for them; what is no reply is counted and logged."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest

from jsonrpc_amqp.amqp.base import Delivery, Publish
from jsonrpc_amqp.client.addresses import Addresses, AnyAddress, Routing
from jsonrpc_amqp.client.pending import Pending
from jsonrpc_amqp.client.replies import Replies
from jsonrpc_amqp.errors import MalformedReply
from jsonrpc_amqp.wire.reply_checks import ReplyChecks

from .fakes import EXCHANGE, SERVICE, FakeCall, call, notification


class Dialect:
    """Numbers are in message ids; bodies are turned round."""

    def check(self, body: bytes) -> None:
        raise AssertionError("replies are not requests")

    def request(self, address: AnyAddress, number: str, message: Publish) -> Publish:
        raise AssertionError("replies are not requests")

    def number(self, delivery: Delivery) -> str | None:
        return delivery.message_id

    def response(self, request: bytes, body: bytes) -> bytes:
        if body == b"?":
            raise ValueError("no such reply")
        return request + body[::-1]


class Pairing:
    """Replies, and the calls that wait for them."""

    def __init__(self, *, dialect: Dialect | None = None, users: frozenset[str] | None = None) -> None:
        self.pending = Pending()
        self.addresses = Addresses(Routing(EXCHANGE), "guest")
        self.addresses.new_connection()
        self.stats: Counter[str] = Counter()
        self.replies = Replies(self.pending, self.addresses, ReplyChecks(EXCHANGE, users), dialect, self.stats)

    def call(self, made: FakeCall | None = None, *, number: str = "1", sent: bool = True) -> FakeCall:
        """Return a call that is pending."""
        made = made or call(body=b"request")
        made.number, made.sent = number, sent
        self.pending.add(made)
        return made

    def delivery(
        self, body: bytes | None = b"[1]", *, number: str | None = "1", qid: str = "7", **more: Any
    ) -> Delivery:
        exchange = more.pop("exchange", EXCHANGE)
        key = more.pop("key", None) or self.addresses.reply_key(SERVICE, qid)
        return Delivery(1, 1, False, exchange, key, body, correlation_id=number, **more)

    def receive(self, *deliveries: Delivery) -> None:
        """Handle deliveries as the client does."""
        self.replies.translate(list(deliveries))
        self.replies.end_calls(self.replies.pair(list(deliveries)))


def test_reply_ends_its_call() -> None:
    made = Pairing()
    waits, other = made.call(), made.call(number="2")
    made.receive(made.delivery(b"[2]"))
    assert (waits.ends, other.ends, len(made.pending)) == ([b"[2]"], [], 1)
    assert made.stats == {}


def test_pairing_ends_no_call() -> None:
    made = Pairing()
    waits, delivery = made.call(), made.delivery()
    assert made.replies.pair([delivery]) == [(delivery, waits, None)]
    assert (waits.ends, len(made.pending)) == ([], 0)


def test_reply_to_a_call_that_a_signal_handler_cancels_meanwhile_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Pairing()
    waits = made.call()
    # The handler runs while the reply is looked at.
    monkeypatch.setattr(made.replies, "_mismatch", lambda *_args: made.pending.pop("1") and None)
    made.receive(made.delivery())
    assert (waits.ends, made.stats) == ([], {"dropped_replies": 1})


@pytest.mark.parametrize("number", ["2", "", None])
def test_reply_to_no_call_is_dropped(number: str | None, caplog: pytest.LogCaptureFixture) -> None:
    made = Pairing()
    waits = made.call()
    with caplog.at_level(logging.INFO, "jsonrpc_amqp.client"):
        made.receive(made.delivery(number=number))
    assert (waits.ends, made.stats) == ([], {"dropped_replies": 1})
    assert caplog.record_tuples[0][1] == logging.INFO
    assert caplog.messages[0].startswith("dropped a late reply (correlation_id ")
    assert made.replies.hint == ""


@pytest.mark.parametrize(
    "forged",
    [
        {"exchange": ""},
        {"key": "S.response.guest-other.7"},
        {"qid": "8"},
        {"user_id": "eve"},
        {"user_id": None},
    ],
)
def test_reply_that_does_not_fit_is_rejected(forged: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    made = Pairing(users=frozenset({"server"}))
    waits = made.call()
    made.receive(made.delivery(**{"user_id": "server", **forged}))
    assert (waits.ends, len(made.pending), made.stats) == ([], 1, {"rejected_replies": 1})
    assert caplog.record_tuples[0][1] == logging.WARNING
    assert caplog.messages[0].startswith("rejected an answer (correlation_id ")
    assert caplog.messages[0].endswith("; its call goes on waiting")
    made.receive(made.delivery(user_id="server"))
    assert waits.ends == [b"[1]"]


@pytest.mark.parametrize("what", ["a notification", "not sent"])
def test_reply_to_what_was_not_asked_is_rejected(what: str) -> None:
    made = Pairing()
    waits = made.call(notification()) if what == "a notification" else made.call(sent=False)
    made.receive(made.delivery())
    assert (waits.ends, len(made.pending), made.stats) == ([], 1, {"rejected_replies": 1})
    assert made.replies.hint.endswith("nothing was asked under this number")


def test_hint_counts_the_rejected_and_quotes_the_last() -> None:
    made = Pairing(users=frozenset({"server"}))
    assert made.replies.hint == ""
    made.call()
    made.receive(made.delivery(exchange="x"), made.delivery(user_id="eve"))
    assert made.replies.hint.startswith(". 2 answers were rejected so far; of the last: it is from")
    assert "eve" in made.replies.hint


def test_reply_over_the_size_cap() -> None:
    made = Pairing()
    waits = made.call()
    made.receive(made.delivery(None, size=70_000))
    assert isinstance(waits.error, MalformedReply)
    assert str(waits.error) == "the answer of 'S' has 70000 bytes, over the size cap"
    assert waits.error.may_have_run


# -- dialects -------------------------------------------------------------------------------------------------------


def test_dialect_numbers_and_translates() -> None:
    made = Pairing(dialect=Dialect())
    first, second = made.call(), made.call(number="2")
    # There the number is the qid.
    made.receive(
        made.delivery(b"abc", number=None, message_id="2", qid="2"),
        made.delivery(b"xyz", number=None, message_id="1", qid="1"),
    )
    assert (first.ends, second.ends) == ([b"requestzyx"], [b"requestcba"])


def test_dialect_checks_the_key_by_the_number() -> None:
    made = Pairing(dialect=Dialect())
    waits = made.call()
    made.receive(made.delivery(message_id="1", qid="7"))
    assert (waits.ends, made.stats) == ([], {"rejected_replies": 1})


def test_reply_that_a_dialect_cannot_read() -> None:
    made = Pairing(dialect=Dialect())
    waits = made.call()
    made.receive(made.delivery(b"?", message_id="1", qid="1"))
    assert isinstance(waits.error, MalformedReply)
    assert str(waits.error) == "the answer of 'S' makes no sense: no such reply"


def test_reply_in_a_dialect_over_the_size_cap() -> None:
    made = Pairing(dialect=Dialect())
    waits = made.call()
    made.receive(made.delivery(None, size=9, message_id="1", qid="1"))
    assert str(waits.error) == "the answer of 'S' has 9 bytes, over the size cap"


def test_hint_of_a_dialect() -> None:
    made = Pairing(dialect=Dialect())
    assert made.replies.hint == ". Is it a server that speaks this dialect?"
    made.call()
    made.receive(made.delivery(exchange="x", message_id="1"))
    assert made.replies.hint.startswith(". Is it a server that speaks this dialect?. 1 answers were rejected so far")


# -- order ----------------------------------------------------------------------------------------------------------


def test_calls_with_callbacks_come_last_and_keep_their_order() -> None:
    made, ended = Pairing(), []
    for number, has_callbacks in (("1", True), ("2", False), ("3", True), ("4", False)):
        waits = made.call(call(body=number.encode(), has_callbacks=has_callbacks), number=number)
        waits.on_end = lambda each: ended.append(each.number)
    made.receive(*(made.delivery(number=number) for number in ("1", "2", "9", "3", "4")))
    assert ended == ["2", "4", "1", "3"]
    assert made.stats == {"dropped_replies": 1}


def test_a_reply_that_cannot_be_decoded_is_told_in_the_hint(caplog: pytest.LogCaptureFixture) -> None:
    pairing = Pairing()
    pairing.replies.note_undecoded(pairing.delivery(None), "its headers are too large")
    assert pairing.stats == {"rejected_replies": 1}
    assert "1 answers were rejected so far; of the last: its headers are too large" in pairing.replies.hint
    assert "cannot be read ('S.response." in caplog.text
