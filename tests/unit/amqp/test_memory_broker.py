"""The broker of ``memory://``: topics, queues, expiry, delivery limits, dead letters."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from jsonrpc_amqp.amqp import memory_broker as module
from jsonrpc_amqp.amqp.base import Plan, Publish
from jsonrpc_amqp.amqp.memory_broker import Broker, Message, Queue, broker_named, topic_matches
from jsonrpc_amqp.errors import TopologyMismatch

from ...transport_tools import TOPICS


@pytest.mark.parametrize(("binding_key", "routing_key", "matches"), [*TOPICS, ("#", "", True), ("*", "", False)])
def test_topic_matches(binding_key: str, routing_key: str, matches: bool) -> None:
    assert topic_matches(binding_key, routing_key) is matches


class FakeConsumer:
    """Takes so many messages, and keeps them."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken: list[Message] = []

    def has_room(self) -> bool:
        return len(self.taken) < self.room

    def take(self, message: Message) -> None:
        self.taken.append(message)

    def receive(self, message: Message) -> int:
        self.taken.append(message)
        return len(self.taken)

    def lose(self) -> None:
        self.room = 0


numbers = count(1)


def message(body: bytes = b"", **properties: Any) -> Message:
    return Message(next(numbers), Publish("e", "k", body, **properties), None)


def bodies(messages: Any) -> list[bytes]:
    return [each.sent.body for each in messages]


def set_clock(monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    monkeypatch.setattr(module, "monotonic", lambda: now)


# -- a queue --------------------------------------------------------------------------------------------------------


def test_consumers_take_turns_as_long_as_they_have_room() -> None:
    queue, busy, free = Queue("q"), FakeConsumer(1), FakeConsumer(3)
    queue.consumers.extend([busy, free])
    for body in (b"1", b"2", b"3", b"4", b"5"):
        queue.put(message(body))
    assert bodies(busy.taken) == [b"1"]
    assert bodies(free.taken) == [b"2", b"3", b"4"]
    assert bodies(queue.ready) == [b"5"]


def test_what_is_put_back_returns_to_its_place() -> None:
    queue = Queue("q")
    messages = [message(b"%d" % number) for number in range(4)]
    queue.put(messages[1])
    queue.put(messages[3])
    assert queue.put_back([messages[2], messages[0]], failed=True) == []
    assert bodies(queue.ready) == [b"0", b"1", b"2", b"3"]
    assert [each.redelivered for each in queue.ready] == [True, False, True, False]


@pytest.mark.parametrize(
    ("queue_type", "failed", "counts"),
    [("quorum", True, [1, 2]), ("quorum", False, [None, None]), ("classic", True, [None, None])],
)
def test_only_a_quorum_queue_counts_failed_deliveries(queue_type: str, failed: bool, counts: list[int | None]) -> None:
    queue, sent, seen = Queue("q", Plan("e", queue="q", queue_type=queue_type)), message(), []
    for _ in counts:
        queue.put_back([sent], failed=failed)
        seen.append(queue.ready.popleft().headers.get("x-delivery-count"))
    assert seen == counts


def test_what_is_over_the_delivery_limit_is_not_put_back() -> None:
    queue, sent = Queue("q", Plan("e", queue="q", queue_type="quorum", delivery_limit=1)), message()
    for failed in (False, False, True):
        assert queue.put_back([sent], failed=failed) == []
        assert queue.ready.popleft() is sent
    assert queue.put_back([sent], failed=True) == [sent]
    assert not queue.ready


def test_messages_expire_at_the_head_only(monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, 100.0)
    queue = Queue("q")
    for body, expiration_ms in ((b"1", 5), (b"2", None), (b"3", 5)):
        queue.put(message(body, expiration_ms=expiration_ms))
    set_clock(monkeypatch, 100.0049)
    assert queue.drop_expired() == 3
    set_clock(monkeypatch, 100.0051)
    assert queue.drop_expired() == 2
    assert bodies(queue.ready) == [b"2", b"3"]
    consumer = FakeConsumer(9)
    queue.consumers.append(consumer)
    queue.pump()
    assert bodies(consumer.taken) == [b"2"]


# -- a broker -------------------------------------------------------------------------------------------------------


@pytest.fixture
def broker() -> Broker:
    return Broker()


def test_a_message_is_copied_once_to_each_queue_that_is_bound(broker: Broker) -> None:
    broker.declare_exchange("e", passive=False)
    for name, keys in (("one", ("a.#", "#.b")), ("two", ("a.b",)), ("three", ("c",))):
        broker.declare_queue(Queue(name), passive=False)
        for key in keys:
            broker.bind("e", name, key)
    assert broker.route(Publish("e", "a.b", b""), None)
    assert [len(broker.queues[name].ready) for name in ("one", "two", "three")] == [1, 1, 0]
    assert not broker.route(Publish("e", "d", b""), None)
    broker.delete_queue("two")
    assert broker.route(Publish("e", "a.b", b""), None)


def test_the_default_exchange_knows_queues_by_name(broker: Broker) -> None:
    broker.declare_queue(Queue("q"), passive=False)
    assert broker.route(Publish("", "q", b""), None)
    assert not broker.route(Publish("", "other", b""), None)


def test_a_direct_reply_arrives_and_counts_as_no_route(broker: Broker) -> None:
    broker.direct["there"] = consumer = FakeConsumer(1)
    assert not broker.route(Publish("", "there", b"reply"), None)
    assert bodies(consumer.taken) == [b"reply"]


def test_what_is_missing_is_a_mismatch_if_only_looked_for(broker: Broker) -> None:
    with pytest.raises(TopologyMismatch, match="no exchange 'e'"):
        broker.declare_exchange("e", passive=True)
    with pytest.raises(TopologyMismatch, match="no queue 'q'"):
        broker.declare_queue(Queue("q"), passive=True)
    assert (broker.exchanges, broker.queues) == ({}, {})


def test_a_queue_with_other_arguments_is_a_mismatch_unless_only_looked_for(broker: Broker) -> None:
    plan = Plan("e", queue="q", queue_type="quorum", delivery_limit=5)
    queue = broker.declare_queue(Queue("q", plan), passive=False)
    assert broker.declare_queue(Queue("q", plan), passive=False) is queue
    assert broker.declare_queue(Queue("q"), passive=True) is queue
    with pytest.raises(TopologyMismatch, match="exists with x-queue-type 'quorum', and x-queue-type 'classic'"):
        broker.declare_queue(Queue("q"), passive=False)


def test_a_dead_letter_says_why_and_does_not_expire(broker: Broker) -> None:
    queue = Queue("q", Plan("e", queue="q", dead_letters="dead"))
    broker.dead_letter(queue, [message()], "rejected")  # there is no such queue: dropped
    broker.declare_queue(Queue("dead"), passive=False)
    broker.dead_letter(queue, [message(b"1", expiration_ms=5)], "rejected")
    broker.dead_letter(Queue("other"), [message()], "rejected")
    [letter] = broker.queues["dead"].ready
    assert (letter.sent.body, letter.expires) == (b"1", None)
    assert letter.headers == {"x-first-death-reason": "rejected", "x-first-death-queue": "q"}


def test_a_cut_loses_each_session_and_forgets_if_asked_to(broker: Broker) -> None:
    sessions = [FakeConsumer(1), FakeConsumer(1)]
    broker.sessions.update(sessions)
    broker.declare_queue(Queue("q"), passive=False)
    broker.declare_exchange("e", passive=False)
    broker.cut()
    assert [session.room for session in sessions] == [0, 0]
    assert "q" in broker.queues
    broker.cut(forget=True)
    assert (broker.queues, broker.exchanges) == ({}, {})


def test_a_name_has_one_broker() -> None:
    assert broker_named("tests-of-names") is broker_named("tests-of-names")
    assert broker_named("tests-of-names") is not broker_named("tests-of-others")
