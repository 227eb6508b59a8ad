"""One dead letter: its key, and what is read from its message."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from struct import pack
from typing import Any

import pytest
from amqp.serialization import dumps

from jsonrpc_amqp import NoDeadLetter
from jsonrpc_amqp.amqp.base import Delivery
from jsonrpc_amqp.operator.letter import (
    MOST_LISTED_HEADERS,
    MOST_LISTED_METHOD,
    HeldLetter,
    Service,
    digest_of,
    headers_to_resend,
    read_letter,
    select,
    without_body,
)

from ...dead_letters import JUNK, two_that_begin_alike

NOTIFICATION = b'{"jsonrpc": "2.0", "method": "record", "params": [1]}'
CALL = b'{"jsonrpc": "2.0", "method": "record", "params": [1], "id": 1}'
SERVICE = Service("jsonrpc", "S_req")


def letter(
    body: bytes, headers: dict[Any, Any] | None = None, exchange: str = "S_dead", **properties: Any
) -> HeldLetter:
    if headers is not None:
        properties["raw_headers"] = bytes(dumps("F", (headers,)))
    return read_letter(Delivery(1, 1, False, exchange, "S.request.someone", body, **properties), SERVICE)


# -- keys -----------------------------------------------------------------------------------------------------


def test_the_ids_of_a_letter_do_not_run_into_one_another() -> None:
    def digest(message_id: str, correlation_id: str, body: bytes) -> str:
        message = Delivery(1, 1, False, "", "k", body, message_id=message_id, correlation_id=correlation_id)
        return digest_of(message, body, False)

    assert len({digest("a", "b", b""), digest("ab", "", b""), digest("", "ab", b""), digest("a", "", b"b")}) == 4


def test_a_key_names_letters_of_one_sender_which_are_all_checked_or_all_not() -> None:
    checked = {"x-death": [{"reason": "rejected", "queue": "S_req"}]}
    letters = [letter(NOTIFICATION), letter(NOTIFICATION, user_id="a"), letter(NOTIFICATION, checked)]
    assert len({held.letter.key for held in letters}) == 3
    assert letter(NOTIFICATION, {"trace": "t"}, user_id="a").letter.key == letters[1].letter.key


def test_letters_are_selected_in_their_order() -> None:
    letters = [letter(b"1"), letter(b"2"), letter(b"1"), letter(b"3")]
    one, two = letters[0].letter.key, letters[1].letter.key
    assert one == letters[2].letter.key == letters[0].digest[:12]
    assert select(letters, [two, one]) == letters[:3]
    assert select(letters, [letters[3].digest]) == letters[3:]


def test_a_key_that_names_no_letter_or_several() -> None:
    letters = [letter(body) for body in two_that_begin_alike("S.request.someone", checked=False)]
    start = letters[0].digest[:4]
    with pytest.raises(NoDeadLetter, match=f"2 dead letters have a key that begins with {start}"):
        select(letters, [start])
    with pytest.raises(NoDeadLetter, match="no dead letter has the key 0000"):
        select([], ["0000"])


@pytest.mark.parametrize("key", ["", "abc", "ABCD", "xyz12", "ab cd", "0" * 65, "all\x1b"])
def test_a_malformed_key_is_found_before_letters_are_taken(key: str) -> None:
    taken: list[bytes] = []

    def take() -> Iterator[HeldLetter]:
        taken.append(CALL)
        yield letter(CALL)

    with pytest.raises(ValueError, match="hexadecimal") as caught:
        select(take(), [key])
    assert not taken
    assert str(caught.value).isprintable()


# -- messages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "method"), JUNK)
def test_junk_is_read_as_it_is(body: bytes, method: str | None) -> None:
    held = letter(body)
    assert (held.letter.body, held.letter.method, held.letter.is_notification) == (body, method, False)
    assert held.obstacle is not None


@pytest.mark.parametrize(
    ("deaths", "known"),
    [
        ([{"reason": "rejected", "count": 2, "time": datetime(2026, 1, 2)}], ("rejected", 2, datetime(2026, 1, 2))),
        ([{"reason": "rejected"}, {"reason": "forged"}], ("rejected", None, None)),
        ([{"reason": 5, "count": "2", "time": 7}], (None, None, None)),
        ([], (None, None, None)),
        (["x"], (None, None, None)),
        ("x", (None, None, None)),
    ],
)
def test_the_last_death(deaths: Any, known: tuple[Any, Any, datetime | None]) -> None:
    read = letter(CALL, {"x-death": deaths}).letter
    died = None if known[2] is None else known[2].replace(tzinfo=UTC)
    assert (read.reason, read.count, read.died) == (*known[:2], died)


# -- whether a server has checked it ------------------------------------------------------------------------------


def entry(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + value


def text(value: bytes) -> bytes:
    return b"S" + pack(">I", len(value)) + value


def with_length(kind: bytes, content: bytes) -> bytes:
    return kind + pack(">I", len(content)) + content


def deaths(*entries: bytes) -> bytes:
    """Return the header ``x-death`` with one death of these entries."""
    return entry(b"x-death", with_length(b"A", with_length(b"F", b"".join(entries))))


QUEUE, EXPIRED, REJECTED = (
    entry(b"queue", text(b"S_req")),
    entry(b"reason", text(b"expired")),
    entry(b"reason", text(b"rejected")),
)


def is_checked(entries: bytes, exchange: str = "S_dead") -> bool:
    return letter(NOTIFICATION, exchange=exchange, raw_headers=pack(">I", len(entries)) + entries).letter.checked


def test_what_a_server_rejected_is_checked() -> None:
    assert is_checked(deaths(QUEUE, REJECTED))
    assert is_checked(deaths(REJECTED, QUEUE))


@pytest.mark.parametrize("reason", [b"expired", b"maxlen", b"delivery_limit", b"", b"REJECTED"])
def test_what_the_broker_moved_itself_is_not_checked(reason: bytes) -> None:
    assert not is_checked(deaths(QUEUE, entry(b"reason", text(reason))))


def test_what_another_queue_dropped_is_not_checked() -> None:
    assert not is_checked(deaths(entry(b"queue", text(b"T_req")), REJECTED))
    assert not is_checked(deaths(REJECTED))


@pytest.mark.parametrize("exchange", ["", "jsonrpc"])
def test_what_was_put_there_is_not_checked(exchange: str) -> None:
    """By its name, or over the exchange that users may publish to: no part of such a message is the broker's."""
    assert not is_checked(deaths(QUEUE, REJECTED), exchange)


@pytest.mark.parametrize(
    "entries",
    [
        b"",
        # RabbitMQ 3 writes into the first header of that name, and leaves the others.
        deaths(QUEUE, EXPIRED) + deaths(QUEUE, REJECTED),
        # In an entry of the sender's, it counts the first reason and queue, and leaves the others.
        deaths(QUEUE, EXPIRED, REJECTED),
        deaths(EXPIRED, QUEUE, REJECTED),
        deaths(entry(b"queue", text(b"T_req")), REJECTED, QUEUE),
        # Only the first death is the last one.
        entry(b"x-death", with_length(b"A", with_length(b"F", QUEUE + EXPIRED) + with_length(b"F", QUEUE + REJECTED))),
        # RabbitMQ 3 does not write these.
        entry(b"x-last-death-reason", text(b"rejected")) + entry(b"x-last-death-queue", text(b"S_req")),
        entry(b"x-first-death-reason", text(b"rejected")) + deaths(QUEUE, EXPIRED),
        # A value that compares as equal in RabbitMQ, of another type; and one that cannot be read.
        deaths(QUEUE, entry(b"reason", with_length(b"x", b"expired")), REJECTED),
        deaths(QUEUE, entry(b"reason", b"T" + b"\xff" * 8), REJECTED),
        entry(b"x-death", b"T" + b"\xff" * 8) + deaths(QUEUE, REJECTED),
        b"\5break?" + deaths(QUEUE, REJECTED),
    ],
)
def test_a_sender_cannot_say_that_a_server_checked_it(entries: bytes) -> None:
    assert not is_checked(entries)


def test_what_can_be_sent_again() -> None:
    assert letter(NOTIFICATION).obstacle is None
    assert letter(NOTIFICATION, {"trace": "t"}).obstacle is None
    assert "it is a call" in str(letter(CALL).obstacle)
    assert "it is a call" in str(letter(CALL, {"trace": "t"}).obstacle)


BEYOND = b"T" + b"\xff" * 8  # a time that Python has no form for


def with_entries(entries: bytes) -> HeldLetter:
    return letter(NOTIFICATION, raw_headers=pack(">I", len(entries)) + entries)


def test_a_header_that_cannot_be_read_keeps_a_letter_from_being_sent_again_and_no_other_from_being_read() -> None:
    death = dumps("F", ({"x-death": [{"reason": "rejected", "count": 3}], "trace": "t"},))[4:]
    held = with_entries(b"\4when" + BEYOND + death)
    assert (held.letter.reason, held.letter.count, held.letter.headers["trace"]) == ("rejected", 3, "t")
    assert "its header 'when' cannot be read, and would be lost" in str(held.obstacle)


def test_headers_that_are_not_sent_again_need_not_be_read() -> None:
    for name in (b"x-when", b"timeout-ms", b"CC"):
        assert with_entries(bytes([len(name)]) + name + BEYOND).obstacle is None


def test_what_is_behind_a_break_would_be_lost() -> None:
    assert "cannot be read" in str(with_entries(b"\5trace?").obstacle)


def test_headers_that_are_sent_again() -> None:
    headers = {"trace": "t", "x-death": [], "timeout-ms": 1, "CC": ["a"], "BCC": ["b"], b"\xff": 1, "x": 2}
    assert headers_to_resend(letter(NOTIFICATION, headers).letter) == {"trace": "t", "\udcff": 1, "x": 2}


def test_what_could_not_be_decoded_is_not_sent_again() -> None:
    held = read_letter(Delivery(1, 1, False, "", "S.request.someone", None), SERVICE)
    assert held.obstacle is not None
    assert "cannot be read" in held.obstacle
    assert held.letter.body == b""


# -- in a list ------------------------------------------------------------------------------------------------


def test_a_list_without_bodies_holds_nothing_that_a_sender_can_make_large() -> None:
    name = "x" * 1_000_000
    held = letter(b'{"jsonrpc": "2.0", "method": "%b"}' % name.encode(), {"trace": [[]] * MOST_LISTED_HEADERS})
    assert (held.letter.method, len(held.letter.headers["trace"])) == (name, MOST_LISTED_HEADERS)
    listed = without_body(held)
    assert (listed.method, listed.headers, listed.body) == (name[:MOST_LISTED_METHOD], {}, b"")
    assert (listed.key, listed.size) == (held.letter.key, len(held.letter.body))


def test_a_list_without_bodies_holds_all_else() -> None:
    held = letter(NOTIFICATION, {"trace": "t"}, user_id="a")
    assert replace(without_body(held), body=NOTIFICATION) == held.letter
