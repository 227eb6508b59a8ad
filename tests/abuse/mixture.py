"""The hostile messages of the mixed check: the corpus, and what it lacks, at random by a seed."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from typing import Any

from .corpus import GOOD, REPLIES, REQUESTS, Message, call

TOKEN = "0123456789ab"
DIRECT = "amq.rabbitmq.reply-to"
# Bytes from which a body is large, and what part of the messages is: each holds the interpreter for a while.
_LARGE, _PART_LARGE = 1 << 16, 0.002
_INVALID_COPIES: tuple[Any, ...] = ("x", 1, [1], ["x", None], {"a": "b"}, [["x"]], True)


class Mixture:
    """
    Makes messages.

    Args:
        chance: What is drawn from it depends on its seed alone.
        queue: The name of a queue of the sender's own.

    Attributes:
        kinds: The names of what was made so far.
    """

    def __init__(self, chance: random.Random, queue: str) -> None:
        self._chance = chance
        self._queue = queue
        corpus = [(f"request: {name}", message) for name, case in REQUESTS.items() for message in case]
        corpus += [(f"reply: {name}", message) for name, case in REPLIES.items() for message in case]
        self._small = [each for each in corpus if len(each[1].body) < _LARGE]
        self._large = [each for each in corpus if len(each[1].body) >= _LARGE]
        # Each once, before one comes again.
        self._deck: list[tuple[str, Message]] = []
        self._made: list[tuple[str, Callable[[], Message]]] = [
            ("a dialect's request", self._dialect),
            ("a method of random name", lambda: Message(call(self._word()))),
            ("a version of random text", lambda: Message(call(jsonrpc=self._word()))),
            ("a random id", lambda: Message(call(id=self._word()))),
            ("random bytes", lambda: Message(chance.randbytes(chance.randrange(200)))),
            ("copies", self._copied),
            ("headers of random names", lambda: self._with_headers({self._word(): self._word() for _ in range(9)})),
            ("a random expiration", lambda: Message(GOOD, properties={"expiration": str(chance.randrange(100))})),
            ("a random timeout", lambda: self._with_headers({"timeout-ms": chance.randrange(100)})),
        ]
        self.kinds: set[str] = set()

    def next(self, user: str) -> Message:
        """Return the next message that this user sends."""
        chance = self._chance
        if chance.random() < _PART_LARGE:
            if not self._deck:
                self._deck = chance.sample(self._large, len(self._large))
            name, message = self._deck.pop()
        elif chance.random() < 0.3:
            name, make = chance.choice(self._made)
            message = make()
        else:
            name, message = chance.choice(self._small)
        self.kinds.add(name)
        properties = dict(message.properties)
        if len(str(properties.get("headers", {}).get("x", ""))) > _LARGE:
            return message  # as large as the broker takes
        tail = message.tail
        # Of the corpus most pass the check of the sender so.
        if chance.random() < 0.7:
            properties.setdefault("user_id", user)
        if tail is None:
            token = TOKEN if chance.random() < 0.7 else self._word()
            tail = f".{user}-{token}.{chance.randrange(10**6)}"
        if "reply_to" not in properties and (reply_to := self._reply_to()):
            properties["reply_to"] = reply_to
        if "correlation_id" not in properties and chance.random() < 0.5:
            properties["correlation_id"] = self._word()
        return dataclasses.replace(message, tail=tail, properties=properties)

    @property
    def is_complete(self) -> bool:
        """Whether each kind was made."""
        return len(self.kinds) == len(self._small) + len(self._large) + len(self._made)

    def _word(self) -> str:
        return f"{self._chance.getrandbits(48):012x}"

    def _reply_to(self) -> str | None:
        word = self._word()
        names = (None, None, None, DIRECT, DIRECT, self._queue, self._queue, word, f"amq.gen-{word}")
        # No well-formed name of a process that does not exist: RabbitMQ up to 4.1 ends a connection at each, and a node
        # took 3 GB within two minutes of that. tests/security has these.
        invented = (f"{DIRECT}.{word}", f"{DIRECT}.g2dkAAdub2RlQGE{word}.{word}", f"{word}_req")
        return self._chance.choice((*names, *invented))

    def _dialect(self) -> Message:
        qid: Any = self._chance.choice((self._word(), "neighbour-0123456789ab", "", "#", None, 10**70, [1], "x" * 300))
        return Message(json.dumps({"q": [self._word()], "qid": qid}).encode())

    def _copied(self) -> Message:
        keys = [f"{self._word()}.request.x", f"guarded.request.{self._word()}"]
        copies = self._chance.choice((keys, keys[:1] * 50, *_INVALID_COPIES))
        return self._with_headers({self._chance.choice(("CC", "BCC")): copies})

    @staticmethod
    def _with_headers(headers: dict[str, Any]) -> Message:
        return Message(GOOD, properties={"headers": headers})
