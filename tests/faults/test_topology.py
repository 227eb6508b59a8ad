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
from .tally import Case
from .traffic import Service, Traffic, make_client

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
    node, served = broker, Service()
    served.server(node.url, service, exchange=service).start().stop()

    def delete() -> None:
        if what == "request queue":
            administer(node.url, lambda channel: channel.queue_delete(f"{service}_req"))
        elif what == "exchange":
            administer(node.url, lambda channel: channel.exchange_delete(service))
        elif what == "binding":
            key = f"{service}.request.#"
            administer(node.url, lambda channel: channel.queue_unbind(f"{service}_req", service, key))
        else:
            for queue in reply_queues(node, service):
                node.ctl("delete_queue", queue)

    with (
        census(node, durable={f"{service}_req"}),
        served.server(node.url, service, exchange=service) as server,
        make_client(node.url, service, exchange=service) as client,
        make_client(node.url, service, exchange=service, reply="direct") as direct,
    ):
        with Traffic([client, direct], notify=True) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                time.sleep(1)
                served.wake.clear()
                before, cancelled = traffic.errors.total(), server.stats()["consumers_cancelled"]
                # The call of a lost reply queue ends with that. Deleting it, by rabbitmqctl, may take long.
                in_flight = client.submit("nap", [90], timeout=90 if what == "reply queue" else 8)
                assert served.begun.acquire(timeout=30)
                delete()
                deleted = time.monotonic()
                if what != "reply queue":
                    served.wake.set()
                # With the direct client, which has no queue or binding that could be deleted.
                case.within("service again", direct_again(direct, deleted), bound=2, slack=1)
                lost = isinstance(in_flight.exception(90), TransportError)
                served.wake.set()
                if what == "request queue":
                    assert not lost
                    case.bit("consumers cancelled", server.stats()["consumers_cancelled"] - cancelled)
                else:
                    case.bit("typed errors", traffic.errors.total() - before + lost)
                assert client.call("double", [3], retry="safe") == 6
                traffic.wait_for_flow()
        case.account(traffic)
        if what != "request queue":  # deleting the queue deletes its messages
            case.account_for_lost(traffic, served.handled)
        assert client.stats()["pending"] == direct.stats()["pending"] == 0
        assert what != "request queue" or server.stats()["connections"] == 1


def direct_again(client: Any, deleted: float) -> float:
    """Return how many seconds after the deletion a call succeeds."""
    assert client.call("double", [2], retry="idempotent") == 4
    return time.monotonic() - deleted


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
    served = Service()
    with (
        census(broker, durable={f"{service}_req"}),
        served.server(broker.url, service) as server,
        make_client(broker.url, service) as client,
    ):
        with Traffic([client], notify=True) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                cancelled = server.stats()["consumers_cancelled"]
                in_flight = client.submit("nap", [2, "done"])
                assert served.begun.acquire(timeout=30)
                broker.cancel_consumers(f"{service}_req")
                wait_for(lambda cancelled=cancelled: server.stats()["consumers_cancelled"] > cancelled)  # type: ignore[misc]
                noticed = time.monotonic()
                case.bit("consumers cancelled", 1)
                case.within("calls again", traffic.first_result_after(noticed + 0.1) + 0.1, bound=1, slack=1)
                assert in_flight.result(5) == "done"
        case.account(traffic)
        case.account_for_lost(traffic, served.handled)
        assert traffic.errors.total() == 0
        stats = server.stats()
        assert (stats["connections"], stats["redelivered"], stats["dropped_replies"]) == (1, 0, 0)
