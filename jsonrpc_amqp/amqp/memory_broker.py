"""
The broker of ``memory://``: exchanges, queues, routing, expiry, delivery limits and dead letters.

One lock per broker guards all of its state; but for ``cut``, everything here needs it held.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from itertools import count
from threading import Lock
from time import monotonic
from typing import Any, Protocol

from ..errors import TopologyMismatch
from .base import DELIVERY_COUNT, Delivery, Plan, Publish


class Subscriber(Protocol):
    """What a queue delivers to: a session."""

    def has_room(self) -> bool:
        """Return whether its prefetch allows another delivery."""
        ...

    def take(self, message: Message) -> None:
        """Take a message of its queue."""
        ...

    def receive(self, message: Message) -> int:
        """Take a message, and return its delivery tag."""
        ...

    def lose(self) -> None:
        """End as if the connection were lost."""
        ...


def topic_matches(binding_key: str, routing_key: str) -> bool:
    """
    Return whether a topic exchange routes ``routing_key`` to a queue bound with ``binding_key``.

    ``*`` stands for exactly one word, ``#`` for any number of words, none included.
    """
    # With a dot before every word, "no words at all" needs no case of its own.
    return _topic(binding_key).fullmatch("." + routing_key if routing_key else "") is not None


@lru_cache(maxsize=4096)
def _topic(binding_key: str) -> re.Pattern[str]:
    wild = {"*": r"\.[^.]*", "#": r"(?:\.[^.]*)*"}
    words = binding_key.split(".") if binding_key else []
    return re.compile("".join(wild.get(word, r"\." + re.escape(word)) for word in words))


class Message:
    """A message in one queue: each queue has its own copy, with its own flags and number."""

    __slots__ = ("expires", "headers", "number", "redelivered", "reply_to", "returns", "sent")

    def __init__(self, number: int, sent: Publish, reply_to: str | None) -> None:
        self.number = number
        self.sent = sent
        self.reply_to = reply_to
        self.redelivered = False
        self.returns = 0
        self.expires = None if sent.expiration_ms is None else monotonic() + sent.expiration_ms / 1000
        timeout = {} if sent.timeout_ms is None else {"timeout-ms": sent.timeout_ms}
        self.headers = {**(sent.headers or {}), **timeout}

    def delivery(self, channel: int, tag: int) -> Delivery:
        sent = self.sent
        return Delivery(
            channel,
            tag,
            self.redelivered,
            sent.exchange,
            sent.routing_key,
            sent.body,
            size=len(sent.body),
            correlation_id=sent.correlation_id,
            reply_to=self.reply_to,
            timeout_ms=sent.timeout_ms,
            message_id=sent.message_id,
            user_id=sent.user_id,
            # Nothing is encoded here, so there are no bytes to decode later.
            raw_headers=b"" if self.headers else None,
            headers_of=self._headers_of,
        )

    def note_redelivery(self, *, counted: bool) -> None:
        self.redelivered = True
        if counted:
            self.returns += 1
            self.headers[DELIVERY_COUNT] = self.returns

    def _headers_of(self, raw: bytes) -> dict[str, Any]:
        return dict(self.headers)


class Queue:
    """Messages in the order of their numbers, and the sessions that consume them in turn."""

    def __init__(self, name: str, plan: Plan | None = None, owner: Subscriber | None = None) -> None:
        self.name = name
        # Without a type RabbitMQ takes the default of its virtual host, which is classic unless set.
        self.queue_type = (plan and plan.queue_type) or "classic"
        self.delivery_limit = plan.delivery_limit if plan and self.queue_type == "quorum" else None
        self.dead_letters = plan and plan.dead_letters
        self.owner = owner
        self.ready: deque[Message] = deque()
        self.consumers: deque[Subscriber] = deque()

    @property
    def arguments(self) -> dict[str, object]:
        """What another declaration must be equal to."""
        return {
            "x-queue-type": self.queue_type,
            "x-delivery-limit": self.delivery_limit,
            "x-dead-letter-exchange": self.dead_letters,
        }

    def put(self, message: Message) -> None:
        self.ready.append(message)
        self.pump()

    def put_back(self, messages: Iterable[Message], *, failed: bool) -> list[Message]:
        """
        Requeue each message in its old place; return those over the delivery limit.

        Args:
            failed: They count as failed deliveries, where the queue counts those.
        """
        returning = list(messages)
        for message in returning:
            message.note_redelivery(counted=failed and self.queue_type == "quorum")
        dead = [message for message in returning if self._is_over_limit(message)]
        alive = [message for message in returning if message not in dead]
        self.ready = deque(sorted([*alive, *self.ready], key=lambda message: message.number))
        self.pump()
        return dead

    def _is_over_limit(self, message: Message) -> bool:
        return self.delivery_limit is not None and message.returns > self.delivery_limit

    def pump(self) -> None:
        """Deliver what may be delivered."""
        while self.drop_expired() and (consumer := self._next_consumer()):
            consumer.take(self.ready.popleft())

    def drop_expired(self) -> int:
        """Drop what has expired at the head, and only there, as RabbitMQ does; return how many are left."""
        while self.ready and (expires := self.ready[0].expires) is not None and expires <= monotonic():
            self.ready.popleft()
        return len(self.ready)

    def _next_consumer(self) -> Subscriber | None:
        for _ in range(len(self.consumers)):
            consumer = self.consumers[0]
            self.consumers.rotate(-1)
            if consumer.has_room():
                return consumer
        return None


class Broker:
    """What the connections to one name share."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.numbers = count(1)
        # The binding keys of each queue name of each exchange.
        self.exchanges: dict[str, dict[str, set[str]]] = {}
        self.queues: dict[str, Queue] = {}
        self.direct: dict[str, Subscriber] = {}
        self.sessions: set[Subscriber] = set()

    def cut(self, *, forget: bool = False) -> None:
        with self.lock:
            for session in list(self.sessions):
                session.lose()
            if forget:
                self.exchanges.clear()
                self.queues.clear()

    def declare_exchange(self, name: str, *, passive: bool) -> None:
        if passive and name not in self.exchanges:
            raise TopologyMismatch(f"NOT_FOUND - no exchange '{name}'")
        self.exchanges.setdefault(name, {})

    def declare_queue(self, wanted: Queue, *, passive: bool) -> Queue:
        name = wanted.name
        if passive and name not in self.queues:
            raise TopologyMismatch(f"NOT_FOUND - no queue '{name}'")
        queue = self.queues.setdefault(name, wanted)
        for argument, current in () if passive else queue.arguments.items():
            if current != wanted.arguments[argument]:
                raise TopologyMismatch(
                    f"queue '{name}' exists with {argument} {current!r}, and {argument} {wanted.arguments[argument]!r} "
                    "was asked for"
                )
        return queue

    def dead_letter(self, queue: Queue, messages: Iterable[Message], reason: str) -> None:
        """Send messages to the dead letters of their queue, if it has any."""
        dead_letters = self.queues.get(queue.dead_letters or "")
        if dead_letters is None:
            return
        for message in messages:
            letter = Message(next(self.numbers), replace(message.sent, expiration_ms=None), message.reply_to)
            letter.headers |= {"x-first-death-reason": reason, "x-first-death-queue": queue.name}
            dead_letters.put(letter)

    def delete_queue(self, name: str) -> None:
        self.queues.pop(name, None)
        for keys_of in self.exchanges.values():
            keys_of.pop(name, None)

    def bind(self, exchange: str, queue: str, binding_key: str) -> None:
        self.exchanges[exchange].setdefault(queue, set()).add(binding_key)

    def route(self, sent: Publish, reply_to: str | None) -> bool:
        """Put a message into every queue that it is for. False: there is none."""
        if not sent.exchange and sent.routing_key in self.direct:
            # RabbitMQ does not count this as a route: if mandatory, such a message is returned as well.
            self.direct[sent.routing_key].receive(Message(0, sent, reply_to))
        names = self._bound(sent.exchange, sent.routing_key)
        for name in names:
            self.queues[name].put(Message(next(self.numbers), sent, reply_to))
        return bool(names)

    def _bound(self, exchange: str, routing_key: str) -> list[str]:
        if not exchange:
            return [routing_key] if routing_key in self.queues else []
        keys_of = self.exchanges[exchange]
        return [name for name, keys in keys_of.items() if any(topic_matches(key, routing_key) for key in keys)]


_brokers: dict[str, Broker] = {}


def broker_named(name: str) -> Broker:
    return _brokers.setdefault(name, Broker())
