"""Queues, exchange and bindings of a service are deleted while it is used."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pika
import pytest

from jsonrpc_amqp import TransportError

from ..broker import Broker
from ..tools import wait_for
from .census import census
from .ends import AnyClient, Service, Target, make_clients, nap, queues, stats_of, targets
from .tally import Case
from .traffic import Traffic

Delete = Callable[[Any], None]


def administer(url: str, action: Callable[[Any], object]) -> None:
    """Run an action on a channel of another library."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    action(connection.channel())
    connection.close()


def reply_queues(node: Broker, service: str) -> set[str]:
    rows = node.list("bindings", "destination_name", "routing_key")
    return {row["destination_name"] for row in rows if row["routing_key"].startswith(f"{service}.response")}


@pytest.mark.fault(
    "deleted",
    fault="deleted under live servers and clients",
    bound="consumed again within 2 s; calls end in typed errors, then succeed again",
    mechanism="basic.cancel: a server declares its queue and consumes it again on the same connection, a client "
    "connects again; exchange and bindings are declared again each second, since AMQP does not report their deletion",
    full=5,
    short=1,
    seconds=30,
    breath=6,  # a connection that is lost soon after it was made is not re-established at once
)
@pytest.mark.parametrize("what", ["request queue", "exchange", "binding", "reply queue"])
def test_something_is_deleted(case: Case, broker: Broker, service: str, what: str) -> None:
    node, served, called = broker, Service(), targets(service)
    served.servers(node.url, service, exchange=service).start().stop()

    def delete() -> None:
        if what == "request queue":
            administer(node.url, lambda channel: [channel.queue_delete(each.queue) for each in called])
        elif what == "exchange":
            administer(node.url, lambda channel: channel.exchange_delete(service))
        elif what == "binding":
            keys = {each.queue: f"{each.service}.request.#" for each in called}
            administer(
                node.url, lambda channel: [channel.queue_unbind(queue, service, key) for queue, key in keys.items()]
            )
        else:
            for queue in reply_queues(node, called[0].service):
                node.ctl("delete_queue", queue)

    with (
        census(node, durable=queues(service)),
        served.servers(node.url, service, exchange=service) as servers,
        make_clients(node.url, service, exchange=service) as clients,
        make_clients(node.url, service, exchange=service, reply="direct") as direct,
    ):
        with Traffic([*clients, *direct], called, notify=True) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                time.sleep(1)
                served.wake.clear()
                before, cancelled = traffic.errors.total(), servers.stats()["consumers_cancelled"]
                # The calls of a lost reply queue end with that. Deleting it, by rabbitmqctl, may take long.
                in_flight = nap(clients, called, 90, timeout=90 if what == "reply queue" else 8)
                assert all(served.begun.acquire(timeout=30) for _ in in_flight)
                delete()
                deleted = time.monotonic()
                if what != "reply queue":
                    served.wake.set()
                # With the direct clients, which have no queue or binding that could be deleted.
                case.within("service again", direct_again(direct, called, deleted), bound=2, slack=1)
                lost = sum(isinstance(each.exception(90), TransportError) for each in in_flight)
                served.wake.set()
                if what == "request queue":
                    assert not lost
                    now_cancelled = servers.stats()["consumers_cancelled"]
                    case.bit("consumers cancelled", now_cancelled - cancelled, least=len(called))
                else:
                    case.bit("typed errors", traffic.errors.total() - before + lost)
                assert call_all(clients, called) == {6}
                traffic.wait_for_flow()
        case.account(traffic)
        if what != "request queue":  # deleting the queue deletes its messages
            case.account_for_lost(traffic, served.handled)
        assert stats_of([*clients, *direct], "pending") == 0
        assert what != "request queue" or servers.stats()["connections"] == len(called)


def direct_again(clients: list[AnyClient], called: list[Target], deleted: float) -> float:
    """Return how many seconds after the deletion calls succeed."""
    assert call_all(clients, called, retry="idempotent") == {6}
    return time.monotonic() - deleted


def call_all(clients: list[AnyClient], called: list[Target], retry: Any = "safe") -> set[int]:
    """Call each target with each client, one after the other; return the results."""
    return {client.call("double", [3], service=target.service, retry=retry) for client in clients for target in called}


@pytest.mark.fault(
    "cancelled-consumer",
    fault="consumer of a server cancelled by the broker (basic.cancel) while its queue and channel live",
    bound="consumed again within 1 s on the same connection; nothing is redelivered, no call fails",
    mechanism="the server cancels the consumer too, and consumes again after at most 0.1 s (more if that was soon "
    "after the last time); what was delivered before is acknowledged on the same channel",
    full=20,
    short=2,
    seconds=10,
    breath=6,  # a consumer that is cancelled soon after it was made is not made again at once
)
def test_consumer_is_cancelled(case: Case, broker: Broker, service: str) -> None:
    served, called = Service(), targets(service)
    with (
        census(broker, durable=queues(service)),
        served.servers(broker.url, service) as servers,
        make_clients(broker.url, service) as clients,
    ):
        with Traffic(clients, called, notify=True) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                cancelled = servers.stats()["consumers_cancelled"] + len(called)
                in_flight = nap(clients, called, 3, "done")
                assert all(served.begun.acquire(timeout=30) for _ in in_flight)
                for target in called:
                    broker.cancel_consumers(target.queue)
                wait_for(lambda cancelled=cancelled: servers.stats()["consumers_cancelled"] >= cancelled)  # type: ignore[misc]
                noticed = time.monotonic()
                case.bit("consumers cancelled", len(called))
                case.within("calls again", traffic.first_result_after(noticed + 0.1) + 0.1, bound=1, slack=1)
                assert [each.result(5) for each in in_flight] == ["done"] * len(in_flight)
        case.account(traffic)
        case.account_for_lost(traffic, served.handled)
        assert traffic.errors.total() == 0
        stats = servers.stats()
        assert (stats["connections"], stats["redelivered"], stats["dropped_replies"]) == (len(called), 0, 0)
