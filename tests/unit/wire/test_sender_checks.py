"""Whether a request comes from the user that its routing key names."""

from __future__ import annotations

import pytest

from jsonrpc_amqp.wire.sender_checks import client_of, refuse_sender

from .tools import TOKEN, dead_letter_headers, delivery

SERVED = [
    (f"S.request.alice-{TOKEN}.7", "alice"),
    (f"S.request.alice-{TOKEN}._", "alice"),
    (f"S.request.alice-{TOKEN}.-5", "alice"),
    (f"S.request.alice-{TOKEN}", "alice"),
    ("S.request", "alice"),
    (f"S.request.a%2Eb-{TOKEN}.7", "a.b"),
    (f"S.request.a-b-c-{TOKEN}.7", "a-b-c"),
    (f"S.request.CN%3Dalice%2CO%3DACME-{TOKEN}.7", "CN=alice,O=ACME"),
    (f"S.request.J%C3%BCrgen-{TOKEN}.7", "Jürgen"),
]

# Key, user, and whether the sender gets a reply if there is no reply_to.
REFUSED = [
    (f"S.request.alice-{TOKEN}.7", None, False),
    (f"S.request.alice-{TOKEN}.7", "", False),
    (f"S.request.alice-{TOKEN}.7", "bob", False),
    (f"S.request.alice-{TOKEN}", "bob", False),
    (f"S.request.a.b-{TOKEN}.7", "a.b", False),
    (f"S.request.axb-{TOKEN}.7", "a.b", False),
    (f"S.request.ALICE-{TOKEN}.7", "alice", False),
    (f"S.request.alice-x-{TOKEN}.7", "alice", False),
    (f"S.request.alice-{TOKEN}.7.8", "alice", False),
    (f"S.request.alice-{TOKEN}.*", "alice", False),
    (f"S.request.alice-{TOKEN}.#", "alice", False),
    (f"S.request.alice-{TOKEN}.", "alice", False),
    (f"S.request.alice-{TOKEN[:-1]}.7", "alice", False),
    ("S.request.alice", "alice", False),
    ("S.request.q538", "alice", False),
    ("S.request.", "alice", False),
    ("S.requests", "alice", False),
    (f"T.request.alice-{TOKEN}.7", "alice", False),
    (f"S.response.alice-{TOKEN}.7", "alice", False),
    ("S_req", "alice", False),
    ("", "alice", False),
    ("S.request", None, False),
    (f"S.request._-{TOKEN}.7", None, True),
    ("S.request.alice\udcff", "alice\udcff", False),
    (f"S.request.{'x' * 65}-{TOKEN}.7", "x" * 65, False),
]


@pytest.mark.parametrize(("key", "user"), SERVED)
def test_a_sender_that_its_key_names_is_served(key: str, user: str) -> None:
    assert refuse_sender(delivery(key, user_id=user), service="S", exchange="jsonrpc") is None


@pytest.mark.parametrize(("key", "user", "may_reply"), REFUSED)
def test_any_other_sender_is_refused(key: str, user: str | None, may_reply: bool) -> None:
    refusal = refuse_sender(delivery(key, user_id=user), service="S", exchange="jsonrpc")
    assert refusal is not None
    assert refusal.may_reply is may_reply
    assert refusal.reason.isprintable()
    replied = refuse_sender(delivery(key, user_id=user, reply_to="my.replies"), service="S", exchange="jsonrpc")
    assert replied is not None
    assert replied.may_reply


@pytest.mark.parametrize("exchange", ["", "other", "amq.topic"])
def test_another_exchange_is_refused(exchange: str) -> None:
    got = delivery(f"S.request.alice-{TOKEN}.7", exchange, user_id="alice")
    assert refuse_sender(got, service="S", exchange="jsonrpc") is not None


@pytest.mark.parametrize(
    ("key", "user"),
    [(f"S.request.eve-{TOKEN}.7", "calc"), ("S.request.q538", "calc"), (f"S.request._-{TOKEN}.7", None)],
)
def test_who_wrote_a_dead_letter_is_not_said_to_have_sent_it(key: str, user: str | None) -> None:
    """Eve can have a reply of the server, with its user_id, sent to the server; that is not to be blamed on it."""
    got = delivery(key, user_id=user, raw_headers=dead_letter_headers())
    refusal = refuse_sender(got, service="S", exchange="jsonrpc")
    assert refusal is not None
    assert "dead letter" in refusal.reason
    assert "calc" not in refusal.reason
    assert not refusal.may_reply


@pytest.mark.parametrize(("key", "user"), SERVED)
def test_a_dead_letter_is_refused(key: str, user: str) -> None:
    got = delivery(key, user_id=user, raw_headers=dead_letter_headers())
    refusal = refuse_sender(got, service="S", exchange="jsonrpc")
    assert refusal is not None
    assert not refusal.may_reply


@pytest.mark.parametrize(
    ("tail", "user", "expected"),
    [
        (f"alice-{TOKEN}.7", "alice", True),
        (f"alice-{TOKEN}", "alice", True),
        (f"a%2Eb-{TOKEN}.7", "a.b", True),
        (f"_-{TOKEN}.7", None, True),
        (f"alice-{TOKEN}.7", "eve", False),
        (f"alice-{TOKEN}.7.8\n", "eve", False),
        (f"alice-{TOKEN}.7", None, False),
        (f"_-{TOKEN}.7", "eve", False),
        (f"alice-{TOKEN}.7", "x" * 65, False),
        ("q518", "eve", None),
        ("a.b", "eve", None),
        (f"q-{TOKEN}x.1", "eve", None),
    ],
)
def test_whether_a_reply_goes_to_the_client_that_sent_the_request(
    tail: str, user: str | None, expected: bool | None
) -> None:
    assert client_of(tail, delivery("S.request", user_id=user)) is expected


def test_a_dead_letter_is_of_no_client() -> None:
    got = delivery("S.request", user_id="alice", raw_headers=dead_letter_headers())
    assert client_of(f"alice-{TOKEN}.7", got) is False
