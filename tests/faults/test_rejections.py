"""The broker rejects single messages: requests to a full queue, and replies of servers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pika
import pytest

from jsonrpc_amqp import Client, InternalError, Overloaded, Server

from ..broker import Broker
from ..tools import wait_for
from .census import census
from .tally import Case
from .traffic import Service, Traffic, make_client

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
    channel.queue_declare(f"{service}_req", durable=True, arguments=limits)
    channel.queue_bind(f"{service}_req", "jsonrpc", f"{service}.request.#")
    with census(broker), make_client(broker.url, service, confirm=True) as client:
        client.notify("fills.the.queue")
        for _ in case.rounds():
            for form in (client.call, client.notify):
                began = time.monotonic()
                with pytest.raises(Overloaded) as caught:
                    form("x")
                case.within("a rejection", time.monotonic() - began, bound=0.5, slack=1)
                assert not caught.value.may_have_run
                case.record.errors["Overloaded"] = case.record.errors.get("Overloaded", 0) + 1
                case.bit("basic.nack", 1)
        assert client.stats()["connections"] == 1
        assert client.stats()["pending"] == 0
    channel.queue_delete(f"{service}_req")
    connection.close()


@pytest.fixture(scope="module")
def strict() -> Iterator[Broker]:
    """A node that rejects large messages, and most replies of the user ``srv``."""
    with Broker(extra_config={"max_message_size": str(BROKER_MAX)}) as node:
        node.ctl("add_user", "srv", "srv")
        node.ctl("set_permissions", "srv", ".*", ".*", ".*")
        node.restrict_topics("srv", r"^[a-z0-9]+\.response\.guest", ".*")
        yield node


class Stranger:
    """Sends requests whose replies the broker rejects: the server may not write to their key."""

    def __init__(self, url: str, service: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(f"{url}?heartbeat=0"))
        self._channel = self._connection.channel()
        self._key = f"{service}.request.mallory.q1"

    def ask(self, number: int) -> None:
        body = b'{"jsonrpc": "2.0", "method": "count", "params": [%d], "id": 1}' % number
        self._channel.basic_publish("jsonrpc", self._key, body)

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

    def count(self, number: int) -> None:
        self.begun_counts.add(number)
        time.sleep(0.05)
        assert self.may_return.wait(10)
        with self._lock:
            self.runs[number] += 1

    def large(self, size: int, number: int) -> str:
        self.count(number)
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
    served.server(url, service).start().stop()
    with census(strict, durable={f"{service}_req"}):
        _reject(case, strict, service, served, why, url)


def _reject(case: Case, strict: Broker, service: str, served: Counting, why: str, url: str) -> None:
    stranger = Stranger(strict.url, service)
    server = served.server(url, service)
    with server, make_client(strict.url, service) as client:
        with Traffic([client]) as traffic:
            for number in case.rounds():
                traffic.wait_for_flow()
                others = [client.submit("nap", [0.2, n]) for n in range(3)]
                if why == "too large":
                    with pytest.raises(InternalError, match="too many for the broker"):
                        client.call("large", [BROKER_MAX, number])
                else:
                    stranger.ask(number)
                    wait_for(lambda number=number: served.runs[number] == 1)  # type: ignore[misc]
                assert [each.result(5) for each in others] == [0, 1, 2]
                case.bit("replies rejected", 1)
        case.account(traffic)
        assert traffic.errors.total() == 0
        if why != "too large":
            wait_for(lambda: server.stats()["dropped_replies"] == case.repeats)
        _check_once(server, client, served, case.repeats)
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
    served.server(broker.url, service, exchange=service).start().stop()
    with census(broker, durable={f"{service}_req"}):
        _delete_exchange(case, broker.url, service, served)
    # If the exchange was declared again before the reply was sent, the reply was not rejected.
    case.bit("replies rejected", caplog.text.count("closed a channel for replies"), least=case.repeats // 2)


def _delete_exchange(case: Case, url: str, service: str, served: Counting) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(f"{url}?heartbeat=0"))
    channel = connection.channel()
    server = served.server(url, service, exchange=service)
    with (
        server,
        make_client(url, service, exchange=service, timeout=1.5) as client,
        make_client(url, service, exchange=service, reply="direct") as direct,
    ):
        for number in case.rounds():
            others = [direct.submit("nap", [0.3, n]) for n in range(3)]
            served.may_return.clear()
            lost = client.submit("count", [number], retry="safe")
            wait_for(lambda number=number: number in served.begun_counts)  # type: ignore[misc]
            channel.exchange_delete(service)
            deleted = time.monotonic()
            served.may_return.set()
            # Some of their replies are held back until the exchange is declared again.
            assert [each.result(5) for each in others] == [0, 1, 2]
            assert direct.call("double", [2], retry="safe") == 4
            case.within("service again", time.monotonic() - deleted, bound=2, slack=1)
            error = lost.exception(4)
            if error is None:
                case.record.results += 1
            else:
                kind = type(error).__name__
                case.record.errors[kind] = case.record.errors.get(kind, 0) + 1
        assert served.runs == Counter(range(case.repeats))
        assert server.stats()["redelivered"] == 0
        assert server.stats()["connections"] == 1
        assert client.stats()["pending"] == direct.stats()["pending"] == 0
    connection.close()


def _check_once(server: Server, client: Client, served: Counting, count: int) -> None:
    assert served.runs == Counter(range(count))
    assert server.stats()["redelivered"] == 0
    assert server.stats()["connections"] == client.stats()["connections"] == 1
    assert client.stats()["pending"] == 0
