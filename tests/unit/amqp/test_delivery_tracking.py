"""Delivery tags: what a broker would make of the acks, whose confirm it is, which publish a refusal is about."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jsonrpc_amqp.amqp.base import DIRECT_REPLY_TO, Outcome, Publish, Returned
from jsonrpc_amqp.amqp.delivery_tracking import Confirms, Recent, Unacked, find_rejected, unroutable
from jsonrpc_amqp.errors import Overloaded, TransportError, Unroutable

# -- acks: what a broker would make of them -----------------------------------------------------------------------


class ConsumingChannel:
    """The broker's side of a channel that consumes: what it handed over, and what it was told."""

    def __init__(self) -> None:
        self.outstanding: set[int] = set()
        self.acked: list[int] = []

    def deliver(self, tag: int) -> None:
        self.outstanding.add(tag)

    def nack(self, tag: int) -> None:
        self.outstanding.remove(tag)

    def ack(self, tag: int, multiple: bool) -> None:
        """Take an ack as RabbitMQ does, which closes the channel for a tag that is not outstanding."""
        assert tag in self.outstanding
        covered = {each for each in self.outstanding if each <= tag} if multiple else {tag}
        self.outstanding -= covered
        self.acked += covered


@given(st.lists(st.sampled_from(["deliver", "deliver", "finish", "finish", "requeue", "collect"])), st.randoms())
def test_each_finished_delivery_is_acked_once_and_no_other(steps: list[str], chance: random.Random) -> None:
    unacked, channel = Unacked(), ConsumingChannel()
    running: set[int] = set()
    finished: set[int] = set()
    tags = 0
    for step in [*steps, "collect"]:
        if step == "deliver":
            tags += 1
            channel.deliver(tags)
            running.add(tags)
        elif step == "collect":
            acks = unacked.collect()
            for tag, multiple in acks:
                channel.ack(tag, multiple)
            # All that is finished, nothing that runs, nothing twice.
            assert sorted(channel.acked) == sorted(finished)
            assert channel.outstanding == running
            assert not unacked.due
            # Nor is more remembered than what came behind the oldest that runs.
            assert not acks or all(tag > min(running, default=tags) for tag in unacked._settled)
        elif running:
            tag = chance.choice(sorted(running))
            running.remove(tag)
            if step == "finish":
                unacked.finish(tag)
                finished.add(tag)
            else:
                unacked.note_settled(tag)
                channel.nack(tag)


def finish(unacked: Unacked, *tags: int) -> None:
    for tag in tags:
        unacked.finish(tag)


def test_run_of_finished_deliveries_costs_one_frame() -> None:
    unacked = Unacked()
    finish(unacked, *range(100, 0, -1))
    assert unacked.collect() == [(100, True)]


def test_single_delivery_is_acked_alone() -> None:
    unacked = Unacked()
    finish(unacked, 1)
    assert unacked.collect() == [(1, False)]


def test_nothing_is_due_twice() -> None:
    unacked = Unacked()
    finish(unacked, 1, 2)
    unacked.collect()
    assert unacked.collect() == []


def test_multiple_stops_before_work_that_still_runs() -> None:
    unacked = Unacked()
    finish(unacked, 1, 2, 4, 5)
    assert unacked.collect() == [(2, True), (4, False), (5, False)]


def test_run_goes_on_behind_deliveries_that_were_acked_alone() -> None:
    unacked = Unacked()
    finish(unacked, 2, 3)
    assert unacked.collect() == [(2, False), (3, False)]
    finish(unacked, 1, 4, 5)
    assert unacked.collect() == [(5, True)]


def test_last_tag_named_is_one_that_the_broker_still_awaits() -> None:
    unacked = Unacked()
    finish(unacked, 3)
    assert unacked.collect() == [(3, False)]
    finish(unacked, 1, 2)
    # Not 3: it was acked before, and naming it again would close the channel.
    assert unacked.collect() == [(2, True)]


def test_deliveries_given_back_are_passed_over() -> None:
    unacked = Unacked()
    unacked.note_settled(1)
    unacked.note_settled(3)
    finish(unacked, 2)
    assert unacked.collect() == [(2, False)]
    finish(unacked, 4)
    assert unacked.collect() == [(4, False)]


def test_deliveries_given_back_only_need_no_ack() -> None:
    unacked = Unacked()
    unacked.note_settled(1)
    assert unacked.collect() == []


# -- confirms -------------------------------------------------------------------------------------------------------


def publish(key: str = "S.request.c.1", body: bytes = b"{}", **properties: Any) -> Publish:
    return Publish(properties.pop("exchange", "jsonrpc"), key, body, **properties)


def returned(**ids: str | None) -> Returned:
    return Returned(312, "NO_ROUTE", "jsonrpc", "S.request.c.1", ids.get("correlation_id"), ids.get("message_id"))


def must_not_be_told(error: TransportError | None) -> None:
    raise AssertionError("settle() gives outcomes, it does not tell them")


def outcomes(count: int) -> list[Outcome]:
    return [partial(must_not_be_told) for _ in range(count)]


def confirms(count: int) -> tuple[Confirms, list[Outcome]]:
    """Give a channel with so many publishes under way, and who awaits each."""
    channel, waiting = Confirms(), outcomes(count)
    for number, outcome in enumerate(waiting, start=1):
        channel.add(publish(correlation_id=str(number)), outcome)
    return channel, waiting


def test_confirm_is_told_to_who_published() -> None:
    channel, (_first, second, _third) = confirms(3)
    assert channel.settle(2, multiple=False, nack=False) == [(second, None)]
    assert len(channel) == 2


def test_multiple_confirms_all_up_to_it_in_order() -> None:
    channel, (first, second, third, fourth) = confirms(4)
    channel.settle(2, multiple=False, nack=False)
    assert channel.settle(3, multiple=True, nack=False) == [(first, None), (third, None)]
    assert channel.drain() == [(publish(correlation_id="4"), fourth)]
    assert second is not fourth


@pytest.mark.parametrize("multiple", [False, True])
def test_nack_means_overloaded(multiple: bool) -> None:
    channel, (first, second, _third) = confirms(3)
    settled = channel.settle(2, multiple=multiple, nack=True)
    assert [outcome for outcome, _error in settled] == ([first, second] if multiple else [second])
    for _outcome, error in settled:
        assert isinstance(error, Overloaded)
        assert not error.may_have_run
        assert "S.request.c.1" in str(error)


@pytest.mark.parametrize(("tag", "multiple"), [(0, True), (1, False), (9, False)])
def test_confirm_of_nothing_under_way_decides_nothing(tag: int, multiple: bool) -> None:
    channel, _outcomes = confirms(2)
    channel.settle(1, multiple=False, nack=False)
    assert channel.settle(tag, multiple, nack=False) == []
    assert len(channel) == 1


def test_return_is_told_with_the_ack_that_follows() -> None:
    channel, (first, second, third) = confirms(3)
    channel.note_returned(returned(correlation_id="2"))
    (told_first, none), (told_second, error), (told_third, nothing) = channel.settle(3, multiple=True, nack=False)
    assert (told_first, told_second, told_third) == (first, second, third)
    assert none is nothing is None
    assert isinstance(error, Unroutable)
    assert not error.may_have_run


def test_return_of_a_notification_is_matched_by_message_id() -> None:
    channel, waiting = Confirms(), outcomes(3)
    for message, outcome in zip(
        (publish(message_id="c-1"), publish(message_id="c-2"), publish(correlation_id="2")), waiting, strict=True
    ):
        channel.add(message, outcome)
    channel.note_returned(returned(message_id="c-2"))
    settled = channel.settle(3, multiple=True, nack=False)
    assert [(outcome, type(error)) for outcome, error in settled] == list(
        zip(waiting, (type(None), Unroutable, type(None)), strict=True)
    )


def test_return_is_told_once() -> None:
    channel, _outcomes = confirms(1)
    channel.note_returned(returned(correlation_id="1"))
    channel.settle(1, multiple=False, nack=False)
    channel.add(publish(correlation_id="1"), must_not_be_told)
    assert channel.settle(2, multiple=False, nack=False) == [(must_not_be_told, None)]


def test_no_more_returns_are_kept_than_messages_wait() -> None:
    channel, told = confirms(2)
    for number in range(100):
        channel.note_returned(returned(correlation_id=f"never sent {number}"))
    assert len(channel._returned) == 2
    assert [outcome for outcome, _error in channel.settle(2, True, False)] == told


def test_drain_gives_up_on_all_oldest_first() -> None:
    channel, waiting = confirms(3)
    assert channel.drain() == [(publish(correlation_id=str(n)), waiting[n - 1]) for n in (1, 2, 3)]
    assert len(channel) == 0
    assert channel.settle(3, multiple=True, nack=False) == []


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans())), st.randoms())
def test_each_publish_is_settled_once_with_its_own_fate(steps: list[tuple[bool, ...]], chance: random.Random) -> None:
    channel = Confirms()
    waiting: dict[int, tuple[Outcome, bool]] = {}
    published = 0
    for publishes, multiple, nack in steps:
        if publishes or not waiting:
            published += 1
            (outcome,) = outcomes(1)
            channel.add(publish(correlation_id=f"call {published}"), outcome)
            waiting[published] = (outcome, chance.random() < 0.3)
            if waiting[published][1]:
                channel.note_returned(returned(correlation_id=f"call {published}"))
            continue
        tag = chance.choice(sorted(waiting))
        meant = [each for each in sorted(waiting) if each <= tag] if multiple else [tag]
        expected = [waiting.pop(each) for each in meant]
        settled = channel.settle(tag, multiple, nack)
        assert [outcome for outcome, _error in settled] == [outcome for outcome, _unroutable in expected]
        for (_outcome, error), (_same, came_back) in zip(settled, expected, strict=True):
            assert type(error) is (Overloaded if nack else Unroutable if came_back else type(None))
        assert len(channel) == len(waiting)


def test_unroutable_says_what_and_where() -> None:
    error = unroutable(returned(correlation_id="1"))
    assert not error.may_have_run
    for part in ("'S.request.c.1'", "'jsonrpc'", "312 NO_ROUTE"):
        assert part in str(error)


# -- which publish a refusal is about ---------------------------------------------------------------------------------

MESSAGES = [
    publish("S.request.c.1", b"x"),
    publish("S.request.c.2", b"xx", user_id="alice"),
    publish("", b"xxx", exchange="", reply_to=DIRECT_REPLY_TO),
    publish("S.request.c.4", b"x" * 17, exchange="other"),
    publish("S.request.c.4", b"x" * 17),
    publish("S.request.c.2", b"xx", user_id="alice"),
]


@pytest.mark.parametrize(
    ("refusal", "place"),
    [
        # RabbitMQ 3.10
        (
            "ACCESS_REFUSED - access to topic 'S.request.c.2' in exchange 'jsonrpc' in vhost '/' refused for user 'b'",
            1,
        ),
        ("ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'bob'", 2),
        ("ACCESS_REFUSED - access to exchange 'other' in vhost '/' refused for user 'bob'", 3),
        ("PRECONDITION_FAILED - user_id property set to 'alice' but authenticated user was 'bob'", 1),
        ("PRECONDITION_FAILED - fast reply consumer does not exist", 2),
        ("PRECONDITION_FAILED - message size 17 larger than max size 16", 3),
        ("NOT_FOUND - no exchange 'other' in vhost '/'", 3),
        # RabbitMQ 4.0
        (
            "ACCESS_REFUSED - write access to topic 'S.request.c.4' in exchange 'jsonrpc' in vhost '/' refused for "
            "user 'bob'",
            4,
        ),
        ("ACCESS_REFUSED - write access to exchange 'amq.default' in vhost '/' refused for user 'bob'", 2),
        ("PRECONDITION_FAILED - message size 17 is larger than configured max size 16", 3),
        # Nothing among them
        (
            "ACCESS_REFUSED - access to topic 'S.request.c' in exchange 'jsonrpc' in vhost '/' refused for user 'bob'",
            None,
        ),
        ("ACCESS_REFUSED - access to topic 'S.request.c.1' in exchange 'other' in vhost '/' refused for u 'b'", None),
        ("PRECONDITION_FAILED - message size 1 larger than max size 0", 0),
        ("PRECONDITION_FAILED - message size 170 larger than max size 16", None),
        ("PRECONDITION_FAILED - user_id property set to 'ali' but authenticated user was 'bob'", None),
        ("PRECONDITION_FAILED - user_id property set to 'alice.b' but authenticated user was 'bob'", None),
        ("NOT_FOUND - no exchange 'oth' in vhost '/'", None),
        ("NOT_FOUND - no exchange 'other.b' in vhost '/'", None),
        ("NOT_FOUND - no queue 'other' in vhost '/'", None),
        ("PRECONDITION_FAILED - unknown delivery tag 2", None),
        ("", None),
    ],
)
def test_refused_message_is_found_by_the_text(refusal: str, place: int | None) -> None:
    assert find_rejected(MESSAGES, refusal)[:1] == ([] if place is None else [place])
    # As errors quote it.
    quoted = f"the broker at 'host' refused: {refusal.rstrip('.')}. Check permissions"
    assert find_rejected(MESSAGES, quoted) == find_rejected(MESSAGES, refusal)


def test_no_message_is_none_refused() -> None:
    assert find_rejected([], "PRECONDITION_FAILED - fast reply consumer does not exist") == []


def test_all_messages_that_a_refusal_may_be_about_are_found() -> None:
    messages = [publish("a"), publish("b"), publish("a")]
    refusal = "ACCESS_REFUSED - access to topic 'a' in exchange 'jsonrpc' in vhost '/' refused for user 'bob'"
    assert find_rejected(messages, refusal) == [0, 2]


def refusal_of(message: Publish, access: str) -> str:
    """Give RabbitMQ's text for a topic that permissions do not allow, as py-amqp reads it: unescaped, cut at 252."""
    key, exchange = message.routing_key, message.exchange
    text = f"ACCESS_REFUSED - {access} to topic '{key}' in exchange '{exchange}' in vhost '/' refused for user 'bob'"
    data = text.encode("utf-8", "surrogateescape")
    return (data if len(data) <= 255 else data[:252] + b"...").decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("access", ["access", "write access"])
@pytest.mark.parametrize(
    "tail",
    [b"it's", b"'", b"a' in exchange 'b", b"a\nb", b"\xc3\xbc", b"\xed\xa0\x80", b"x." * 116, b"x" + b"\xc3\xbc" * 115]
    + [b"x" * length for length in range(185, 240)],
)
def test_refused_topic_is_found_whatever_is_in_the_key(access: str, tail: bytes) -> None:
    # Keys are read from the wire so.
    key = (b"S.response." + tail).decode("utf-8", "surrogateescape")
    message = publish(key)
    others = [publish("S.response.a"), publish("T" + key[1:])]
    messages = [*others, message, publish("S.response.c")]
    assert find_rejected(messages, refusal_of(message, access)) == [2]


def test_recent_messages_are_in_order() -> None:
    recent = Recent()
    for message in MESSAGES:
        recent.add(message)
    assert list(recent) == MESSAGES


def remembered(recent: Recent, number: int) -> bool:
    return f"k{number}" in {message.routing_key for message in recent}


def test_most_recent_messages_are_remembered() -> None:
    recent = Recent()
    for number in range(1030):
        recent.add(publish(f"k{number}"))
    assert [number for number in range(1030) if not remembered(recent, number)] == list(range(6))


def test_large_messages_are_forgotten_earlier_but_never_the_last() -> None:
    recent = Recent()
    for number in range(10):
        recent.add(publish(f"k{number}", bytes(1 << 20)))
    assert [number for number in range(10) if remembered(recent, number)] == [6, 7, 8, 9]
    recent.add(publish("k10", bytes(5 << 20)))
    assert [number for number in range(11) if remembered(recent, number)] == [10]
    # And the count of bytes goes down with them.
    recent.add(publish("k11", bytes(1 << 20)))
    recent.add(publish("k12", bytes(1 << 20)))
    assert [number for number in range(13) if remembered(recent, number)] == [11, 12]


def test_count_of_bytes_goes_down_with_messages_that_were_too_many() -> None:
    recent = Recent()
    for number in range(2000):
        recent.add(publish(f"k{number}", bytes(4000)))
    # 1,024 of 4,000 bytes are below 4 MiB, so only their number bounds them.
    assert next(number for number in range(2000) if remembered(recent, number)) == 2000 - 1024
