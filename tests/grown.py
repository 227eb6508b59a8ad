"""A message whose header grows on its way, by means that every user of RabbitMQ has."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pika

# Bytes of routing keys that fit the header of a message that is published.
_KEYS = 110_000
_PATIENCE = 10.0


def grow(
    channel: Any, body: bytes, key: str, own: str, size: int, *, also: Sequence[str] = (), **properties: Any
) -> int:
    """
    Publish a message over ``jsonrpc``, and have it dead-lettered from one queue to the next.

    RabbitMQ notes each death in the header ``x-death``, with all routing keys, and those in ``CC``. Each time the
    message goes to ``key`` and to ``also``, too.

    Args:
        channel: Of pika, in confirm mode, of a user who may publish with ``key``, and have queues and bind them with
            ``own.#``.
        size: Until the header has as many bytes.

    Returns:
        How many messages went to ``key``.
    """
    bound, count = f"{own}.#", _KEYS // (len(own) + 206)
    headers = {"CC": [*also, *(f"{own}.{number:x<200}" for number in range(count))]}
    queue = _queue(channel, bound)
    channel.basic_publish("jsonrpc", key, body, pika.BasicProperties(headers=headers, **properties))
    sent = 1
    while True:
        tag, grown = _take(channel, queue)
        if grown > size:
            channel.basic_ack(tag)
            return sent
        channel.queue_unbind(queue, "jsonrpc", bound)
        # Not one queue again: RabbitMQ counts the deaths in a queue, and notes the first one.
        queue = _queue(channel, bound)
        channel.basic_reject(tag, requeue=False)
        sent += 1


def _queue(channel: Any, key: str) -> str:
    arguments = {"x-dead-letter-exchange": "jsonrpc"}
    queue = str(channel.queue_declare("", exclusive=True, arguments=arguments).method.queue)
    channel.queue_bind(queue, "jsonrpc", key)
    return queue


def _take(channel: Any, queue: str) -> tuple[int, int]:
    """Return tag and bytes of the header of the message that is about to come."""
    give_up = time.monotonic() + _PATIENCE
    while time.monotonic() < give_up:
        method, properties, _body = channel.basic_get(queue)
        if method is not None:
            return int(method.delivery_tag), sum(map(len, properties.encode()))
        time.sleep(0.01)
    raise AssertionError("the message did not come")
