"""The broker rejects single messages: requests to a full queue, and replies of servers."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pika
import pytest

from jsonrpc_amqp import InternalError, Overloaded

from ..broker import Broker
from ..tools import wait_for
from .census import census
from .ends import AnyClient, Servers, Service, is_set, make_clients, nap, queues, stats_of, targets
from .tally import Case
from .traffic import Traffic

BROKER_MAX = 100_000
STRANGERS = 5


@pytest.mark.fault(
    "full-queue",
    fault="queue at its x-max-length that rejects (reject-publish): a call and a notification in each round",
    bound="Overloaded at once; the connection is kept",
    mechanism="publisher confirms (confirm=True for calls), matched by delivery tag",
    full=1000,
    short=50,
    seconds=1,
    breath=0,
)
def test_queue_is_full(case: Case, broker: Broker, service: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(f"{broker.url}?heartbeat=0"))
    channel = connection.channel()
    channel.exchange_declare("jsonrpc", "topic", durable=True)
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    called = targets(service)[0]
    channel.queue_declare(called.queue, durable=True, arguments=limits)
    channel.queue_bind(called.queue, "jsonrpc", f"{called.service}.request.#")
    with census(broker), make_clients(broker.url, service, confirm=True) as clients:
        clients[0].notify("fills.the.queue")
        for _ in case.rounds():
            for client in clients:
                _meet_full_queue(case, client)
        assert stats_of(clients, "connections") == len(clients)
        assert stats_of(clients, "pending") == 0
    channel.queue_delete(called.queue)
    connection.close()


def _meet_full_queue(case: Case, client: AnyClient) -> None:
    for form in (client.call, client.notify):
        began = time.monotonic()
        with pytest.raises(Overloaded) as caught:
            form("x")
        case.within("a rejection", time.monotonic() - began, bound=0.5, slack=1)
        assert not caught.value.may_have_run
        case.ended(client, "no server", "errors", error="Overloaded")
        case.bit("basic.nack", 1)


@pytest.fixture(scope="module")
def strict() -> Iterator[Broker]:
    """A node that rejects large messages, and most replies of the user ``srv``."""
    with Broker(extra_config={"max_message_size": str(BROKER_MAX)}) as node:
        node.ctl("add_user", "srv", "srv")
        node.ctl("set_permissions", "srv", ".*", ".*", ".*")
        node.restrict_topics("srv", r"^[a-z0-9-]+\.response\.guest", ".*")
        yield node


class Stranger:
    """Sends requests whose replies the broker rejects: the server may not write to their key."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(f"{url}?heartbeat=0"))
        self._channel = self._connection.channel()

    def ask(self, service: str, number: int) -> None:
        body = b'{"jsonrpc": "2.0", "method": "count", "params": [%d], "id": 1}' % number
        self._channel.basic_publish("jsonrpc", f"{service}.request.mallory.q1", body)

    def close(self) -> None:
        self._connection.close()


class Counting(Service):
    """Counts how often it was called with each number, and returns results of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: Counter[int] = Counter()
        self.may_return = threading.Event()
        self.may_return.set()
        self.begun_counts: set[int] = set()
        self._lock = threading.Lock()
        self.methods |= {"count": self.count, "large": self.large}
        self.coroutines |= {"count": self.count_on_loop, "large": self.large_on_loop}

    def count(self, number: int) -> None:
        self.begun_counts.add(number)
        time.sleep(0.05)
        assert self.may_return.wait(10)
        with self._lock:
            self.runs[number] += 1

    async def count_on_loop(self, number: int) -> None:
        self.begun_counts.add(number)
        await asyncio.sleep(0.05)
        assert await is_set(self.may_return, 10)
        with self._lock:
            self.runs[number] += 1

    def large(self, size: int, number: int) -> str:
        self.count(number)
        return "x" * size

    async def large_on_loop(self, size: int, number: int) -> str:
        await self.count_on_loop(number)
        return "x" * size


@pytest.mark.fault(
    "rejected-reply",
    fault="reply rejected by the broker",
    bound="the request is acknowledged once; other work in flight is not redelivered; the connection is kept",
    mechanism="replies have a channel of their own, which is reopened; "
    "the text of the error identifies the rejected reply",
    full=50,
    short=3,
    seconds=10,
)
@pytest.mark.parametrize("why", ["403 for its key", "too large"])
def test_reply_is_rejected(case: Case, strict: Broker, service: str, why: str) -> None:
    served = Counting()
    url = strict.url.replace("guest:guest", "srv:srv")
    served.servers(url, service).start().stop()
    with census(strict, durable=queues(service)):
        _reject(case, strict, service, served, why, url)


def _reject(case: Case, strict: Broker, service: str, served: Counting, why: str, url: str) -> None:
    stranger, called, numbers = Stranger(strict.url), targets(service), itertools.count()
    with served.servers(url, service) as servers, make_clients(strict.url, service) as clients:
        with Traffic(clients, called) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                others = nap(clients, called, 0.2, "done")
                for target in called:
                    if why == "too large":
                        for client in clients:
                            large = [BROKER_MAX, next(numbers)]
                            with pytest.raises(InternalError, match="too many for the broker"):
                                client.call("large", large, service=target.service)
                            case.bit("replies rejected", 1)
                    else:
                        number = next(numbers)
                        stranger.ask(target.service, number)
                        wait_for(lambda number=number: served.runs[number] == 1)  # type: ignore[misc]
                        case.bit("replies rejected", 1)
                assert [each.result(5) for each in others] == ["done"] * len(others)
        case.account(traffic)
        assert traffic.errors.total() == 0
        asked = case.record.bites["replies rejected"]
        if why != "too large":
            wait_for(lambda: servers.stats()["dropped_replies"] == asked)
        _check_once(servers, clients, served, asked)
    stranger.close()


@pytest.mark.fault(
    "reply-404",
    fault="reply rejected because its exchange was deleted (404)",
    bound="the request is acknowledged once; other work in flight is not redelivered; the connection is kept",
    mechanism="as above; the exchange and the bindings are declared again before the next reply is sent",
    full=50,
    short=3,
    seconds=20,
)
def test_exchange_of_a_reply_is_deleted(
    case: Case, broker: Broker, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    served = Counting()
    served.servers(broker.url, service, exchange=service).start().stop()
    with census(broker, durable=queues(service)):
        _delete_exchange(case, broker.url, service, served)
    # If the exchange was declared again before the reply was sent, the reply was not rejected.
    case.bit("replies rejected", caplog.text.count("closed a channel for replies"), least=case.repeats // 2)


def _delete_exchange(case: Case, url: str, service: str, served: Counting) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(f"{url}?heartbeat=0"))
    channel = connection.channel()
    called, numbers = targets(service), itertools.count()
    with (
        served.servers(url, service, exchange=service) as servers,
        make_clients(url, service, exchange=service, timeout=1.5) as clients,
        make_clients(url, service, exchange=service, reply="direct") as direct,
    ):
        for _ in case.rounds():
            others = nap(direct, called, 0.3, "done")
            served.may_return.clear()
            asked = [(client, target, next(numbers)) for client in clients for target in called]
            lost = [
                client.submit("count", [number], service=target.service, retry="safe")
                for client, target, number in asked
            ]
            wait_for(lambda asked=asked: served.begun_counts >= {number for *_, number in asked})  # type: ignore[misc]
            channel.exchange_delete(service)
            deleted = time.monotonic()
            served.may_return.set()
            # Some of their replies are held back until the exchange is declared again.
            assert [each.result(5) for each in others] == ["done"] * len(others)
            for client in direct:
                for target in called:
                    assert client.call("double", [2], service=target.service, retry="safe") == 4
            case.within("service again", time.monotonic() - deleted, bound=2, slack=1)
            for (client, target, _number), each in zip(asked, lost, strict=True):
                error = each.exception(4)
                case.ended(
                    client, target, "errors" if error else "results", error=type(error).__name__ if error else ""
                )
        assert served.runs == Counter(range(next(numbers)))
        assert servers.stats()["redelivered"] == 0
        assert servers.stats()["connections"] == len(called)
        assert stats_of([*clients, *direct], "pending") == 0
    connection.close()


def _check_once(servers: Servers, clients: list[AnyClient], served: Counting, count: int) -> None:
    assert served.runs == Counter(range(count))
    assert servers.stats()["redelivered"] == 0
    assert servers.stats()["connections"] == len(servers.of)
    assert stats_of(clients, "connections") == len(clients)
    assert stats_of(clients, "pending") == 0
