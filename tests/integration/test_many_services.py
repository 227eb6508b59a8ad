"""One client of many services, over a network with a round trip that shows: set up, called, and cut."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pika
import pytest

from jsonrpc_amqp import Client, ConnectionLost, Server, Unroutable
from jsonrpc_amqp.client.reply_bindings import MOST_REDECLARED, REDECLARE_SECONDS

from ..broker import Broker
from ..proxy import Proxy
from ..tools import wait_for

# Seconds: half of a round trip.
ONE_WAY = 0.01
# Seconds: on a busy machine, too.
PATIENCE = 60.0


@pytest.fixture
def network(broker: Broker) -> Iterator[Proxy]:
    with Proxy(broker.port) as network:
        yield network


class Counting:
    """
    A server that counts how often each method ran, for each argument.

    Attributes:
        goes_on: Until it is set, ``wait`` runs.
    """

    def __init__(self, url: str, service: str, **options: Any) -> None:
        self.runs: Counter[str] = Counter()
        self.goes_on = threading.Event()
        methods = {"count": self.count, "wait": self.wait}
        self.server = Server(url, service, methods=methods, concurrency=4, **options)

    def count(self, what: str) -> str:
        self.runs[what] += 1
        return what

    def wait(self, what: str) -> str:
        self.goes_on.wait(PATIENCE)
        return self.count(what)


@contextmanager
def counting(url: str, service: str, **options: Any) -> Iterator[Counting]:
    made = Counting(url, service, **options)
    with made.server:
        yield made
        made.goes_on.set()


def others(service: str, count: int) -> list[str]:
    return [f"{service}-{number}" for number in range(count)]


def use(client: Client, services: list[str]) -> None:
    """Call services that no server serves: the reply queue is bound for each, and the broker returns the call."""
    calls: list[Future[Any]] = [client.submit("x", service=each, timeout=PATIENCE) for each in services]
    for each in calls:
        with pytest.raises(Unroutable):
            each.result(PATIENCE)


def bound(broker: Broker, client: Client) -> list[str]:
    """Return the services that the reply queue of a client is bound for."""
    session = client._requests.life.session
    queue = "" if session is None else session.reply_queue
    rows = broker.list("bindings", "source_name", "destination_name", "routing_key")
    keys = [row["routing_key"] for row in rows if row["source_name"] and row["destination_name"] == queue]
    return [key.partition(".")[0] for key in keys]


def cut(network: Proxy, client: Client) -> None:
    lost = client.stats()["connections_lost"]
    network.cut()
    wait_for(lambda: client.stats()["connections_lost"] > lost, PATIENCE)


def test_a_client_of_300_services_is_back_after_a_cut_and_calls_that_wait_run_once(
    broker: Broker, network: Proxy, service: str
) -> None:
    with (
        counting(broker.url, service) as counting_,
        Client(network.url, service, timeout=30.0, max_pending=1000) as client,
    ):
        use(client, others(service, 300))
        network.delay(ONE_WAY)
        assert client.call("count", ["before"]) == "before"
        cut(network, client)
        calls = [client.submit("count", [f"after {number}"]) for number in range(5)]
        for number, call in enumerate(calls):
            assert call.result(PATIENCE) == f"after {number}"
        assert set(counting_.runs.values()) == {1}
        assert service in bound(broker, client)
        assert len(bound(broker, client)) <= 17
        use(client, others(service, 20))  # they are bound as they are called


def test_a_call_in_flight_at_the_cut_is_answered_if_it_may_run_again(
    broker: Broker, network: Proxy, service: str
) -> None:
    with counting(broker.url, service) as counting_, Client(network.url, service, timeout=PATIENCE) as client:
        use(client, others(service, 300))
        network.delay(ONE_WAY)
        again = client.submit("wait", ["again"], retry="idempotent")
        once = client.submit("wait", ["once"])
        wait_for(lambda: counting_.server.stats()["received"] == 2, PATIENCE)
        cut(network, client)
        with pytest.raises(ConnectionLost):
            once.result(PATIENCE)
        wait_for(lambda: counting_.server.stats()["received"] == 3, PATIENCE)
        counting_.goes_on.set()
        assert again.result(PATIENCE) == "again"
        # The reply to the one that was sent before the cut may be the first.
        wait_for(lambda: counting_.runs == {"again": 2, "once": 1}, PATIENCE)


def test_all_of_many_services_may_be_called_at_once_after_a_cut(network: Proxy, service: str) -> None:
    services = others(service, 300)
    with Client(network.url, service, max_pending=1000) as client:
        use(client, services)
        network.delay(ONE_WAY)
        cut(network, client)
        use(client, services)


def test_a_server_connects_over_a_slow_network(broker: Broker, network: Proxy, service: str) -> None:
    network.delay(0.15)
    # Its set-up is some fifteen methods: they take two round trips, and not one each.
    server = Server(network.url, service, methods={"ok": lambda: 1}, connect_timeout=4, dead_letters=True)
    with server, Client(network.url, service, timeout=PATIENCE, connect_timeout=4) as client:
        assert client.call("ok") == 1


def test_an_attempt_that_makes_progress_gets_more_time(network: Proxy, service: str) -> None:
    network.delay(0.5)
    # The first answers to declarations come after 4 s, the last one after 5.
    with Client(network.url, service, connect_timeout=4.7) as client:
        client.start(timeout=PATIENCE)


def test_what_is_redeclared_is_bounded_and_a_call_that_waits_comes_first(
    broker: Broker, network: Proxy, service: str
) -> None:
    rounds, services = 3, 2000
    with (
        counting(broker.url, service, exchange=service) as counting_,
        Client(network.url, service, timeout=PATIENCE, max_pending=5000, exchange=service) as client,
    ):
        use(client, others(service, services))
        # While the exchange is being deleted, it may be found missing, which ends the connection.
        waiting = client.submit("wait", ["waiting"], retry="idempotent")
        wait_for(lambda: counting_.server.stats()["received"] == 1, PATIENCE)
        before = network.bytes_up
        time.sleep(rounds * REDECLARE_SECONDS)
        sent = network.bytes_up - before
        # A queue.bind is about 110 bytes here.
        assert 0 < sent < (rounds + 2) * (MOST_REDECLARED + 1) * 150 < rounds * services * 50
        delete_exchange(broker.url, service)
        wait_for(lambda: service in bound(broker, client), PATIENCE)
        counting_.goes_on.set()
        assert waiting.result(PATIENCE) == "waiting"


def delete_exchange(url: str, exchange: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().exchange_delete(exchange)
