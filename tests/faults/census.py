"""Checks that a case leaves no queues, connections, threads or file descriptors behind."""

from __future__ import annotations

import gc
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..broker import Broker
from ..tools import wait_for
from .ends import start_loops

PATIENCE = 10.0
# One call of rabbitmqctl for both, as each call takes a second.
_QUESTION = """
Names = [element(4, amqqueue:get_name(Queue)) || Queue <- rabbit_amqqueue:list()],
lists:flatten(io_lib:format("~p ~s", [length(rabbit_networking:connections()), lists:join(<<" ">>, Names)])).
"""


@contextmanager
def census(*brokers: Broker, durable: set[str] | None = None) -> Iterator[None]:
    """
    Fail if queues, connections, threads or file descriptors are left over when the block ends.

    Args:
        brokers: The nodes to query before and after.
        durable: Queues that are meant to remain.
    """
    start_loops()
    there_before = [
        _there(broker, durable or set()) for broker in brokers
    ]  # takes a second, in which earlier connections end
    threads, descriptors = _threads(), _descriptors()
    yield
    wait_for(lambda: len(_threads()) <= len(threads), told=lambda: f"threads: {threads} became {_threads()}")
    wait_for(lambda: _descriptors() <= descriptors, told=lambda: f"descriptors: {descriptors}, now {_descriptors()}")
    for broker, before in zip(brokers, there_before, strict=True):
        give_up = time.monotonic() + PATIENCE
        while (after := _there(broker, durable or set())) != before:
            assert time.monotonic() < give_up, f"left over at the broker: (connections, queues) {before} became {after}"


def _threads() -> list[str]:
    gc.collect()
    # Once its methods have been quick, a server's connection has a second thread, the follower.
    return sorted(thread.name for thread in threading.enumerate() if not thread.name.endswith("-io-2"))


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _there(broker: Broker, durable: set[str]) -> tuple[int, list[str]]:
    # ``rabbitmqctl`` writes a long text as several.
    connections, *queues = re.sub(r'"\s*"', "", broker.eval(_QUESTION)).strip('"').split()
    return int(connections), sorted(set(queues) - durable)
