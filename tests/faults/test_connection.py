"""The network fails: one proxy to the broker for the server, and one for the clients."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from jsonrpc_amqp import Client, ConnectionLost, Server

from ..broker import Broker
from ..proxy import Proxy
from .census import census
from .tally import Case
from .traffic import DEADLINE, HEARTBEAT, SLACK, Service, Traffic, make_client


@dataclass
class Link:
    """A server, two clients (topic replies, direct reply-to), and their proxies to the broker."""

    served: Service
    server: Server
    clients: list[Client]
    server_proxy: Proxy
    client_proxy: Proxy
    both: tuple[Proxy, Proxy]

    def lost(self) -> int:
        """Return how often server and clients have reconnected."""
        ends = [self.server.stats(), *(client.stats() for client in self.clients)]
        return sum(stats["connections"] - 1 for stats in ends)


@contextmanager
def linked(broker: Broker, service: str) -> Iterator[Link]:
    served = Service()
    served.server(broker.url, service).start().stop()
    with (
        census(broker, durable={f"{service}_req"}),
        Proxy(broker.port) as server_proxy,
        Proxy(broker.port) as client_proxy,
        served.server(server_proxy.url, service) as server,
        make_client(client_proxy.url, service) as topic,
        make_client(client_proxy.url, service, reply="direct") as direct,
    ):
        both = (client_proxy, server_proxy)
        yield Link(served, server, [topic, direct], server_proxy, client_proxy, both)
        assert topic.stats()["pending"] == direct.stats()["pending"] == 0


@pytest.mark.fault(
    "cut",
    fault="connections cut (RST): of the clients, then of the server",
    bound="calls in flight end at once; no false confirm, no wrong reply; reconnected within 6 s. Calls with "
    'retry="idempotent" end in results only',
    mechanism="all calls that were sent fail together; reconnect at once, then with a back-off of at most 2 s",
    full=10,
    short=1,
    seconds=30,
)
def test_connections_are_cut(case: Case, broker: Broker, service: str) -> None:
    with linked(broker, service) as link:
        patient = Traffic(link.clients, threads=2, retry="idempotent")
        with patient, Traffic(link.clients, notify=True) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                in_flight = [client.submit("nap", [1]) for client in link.clients]
                assert all(link.served.begun.acquire(timeout=30) for _ in in_flight)
                link.client_proxy.cut()
                cut = time.monotonic()
                assert all(isinstance(each.exception(DEADLINE), ConnectionLost) for each in in_flight)
                case.within("calls in flight ended", time.monotonic() - cut, bound=0.5, slack=0.5)
                case.within("calls again", traffic.first_result_after(cut), bound=6, slack=1)
                case.within("notifications again", traffic.first_confirm_after(cut), bound=6, slack=1)
                case.bit("calls in flight lost", len(in_flight))
                _cut_server(case, link, traffic)
        case.account(traffic)
        case.account_for_lost(traffic, link.served.handled)
        case.account(patient)
        assert patient.errors.total() == 0
        assert link.lost() >= 3 * case.repeats


def _cut_server(case: Case, link: Link, traffic: Traffic) -> None:
    # The request that it runs is redelivered, runs again, and gets one reply.
    while link.served.begun.acquire(blocking=False):
        pass  # a nap of an earlier cut began once more: not the request that follows
    in_flight = link.clients[0].submit("nap", [0.5, "answer"])
    assert link.served.begun.acquire(timeout=30)
    before = link.server.stats()["redelivered"]
    link.server_proxy.cut()
    cut = time.monotonic()
    assert in_flight.result(DEADLINE) == "answer"
    assert link.served.begun.acquire(timeout=30)
    case.within("calls again", traffic.first_result_after(cut), bound=6, slack=1)
    case.bit("redeliveries", link.server.stats()["redelivered"] - before)


@pytest.mark.fault(
    "delay",
    fault="every packet of clients and server delayed by 600 ms each way",
    bound="no connection is lost; calls succeed, later",
    mechanism="only the callers' deadlines and heartbeats measure time",
    full=10,
    short=1,
    seconds=30,
)
def test_connections_are_slow(case: Case, broker: Broker, service: str) -> None:
    with linked(broker, service) as link:
        with Traffic(link.clients, threads=8, notify=True) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                for proxy in link.both:
                    proxy.delay(0.6)
                began = time.monotonic()
                assert link.clients[0].call("double", [2]) == 4
                case.bit("calls that took over 2.4 s", int(time.monotonic() - began >= 2.4))
                time.sleep(2)
                for proxy in link.both:
                    proxy.heal()
        case.account(traffic)
        case.account_for_lost(traffic, link.served.handled)
        assert traffic.errors.total() == 0
        assert link.lost() == 0


@pytest.mark.fault(
    "drip",
    fault="every byte of clients and server sent in a packet of its own, including the handshake",
    bound="no connection is lost except those that were cut; calls succeed; reconnected within 6 s",
    mechanism="frames are assembled from reads of any size",
    full=10,
    short=1,
    seconds=30,
)
def test_connections_drip(case: Case, broker: Broker, service: str) -> None:
    with linked(broker, service) as link:
        with Traffic(link.clients, threads=2, pause=0.05, notify=True) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                for proxy in link.both:
                    proxy.drip()
                results, bytes_before = len(traffic.results), link.client_proxy.bytes_down
                time.sleep(2)
                case.bit("results received byte by byte", len(traffic.results) - results)
                assert link.client_proxy.bytes_down > bytes_before
                assert link.lost() == 3 * case.record.rounds
                for proxy in link.both:
                    proxy.cut()
                cut = time.monotonic()
                case.within("calls again", traffic.first_result_after(cut), bound=6, slack=1)
                for proxy in link.both:
                    proxy.heal()
        case.account(traffic)
        case.account_for_lost(traffic, link.served.handled)
        assert link.lost() == 3 * case.repeats


@pytest.mark.fault(
    "half-open",
    fault="connections half-open (nothing arrives, nothing is closed): of the clients, then of the server",
    bound="noticed within two heartbeats; no false confirm, no wrong reply; reconnected within 6 s",
    mechanism="heartbeats both ways, by the leader, independent of handlers",
    full=10,
    short=1,
    seconds=40,
)
def test_connections_are_half_open(case: Case, broker: Broker, service: str) -> None:
    with linked(broker, service) as link:
        with Traffic(link.clients, notify=True) as traffic:
            for _ in case.rounds():
                for name, proxy in (("client", link.client_proxy), ("server", link.server_proxy)):
                    traffic.wait_for_flow()
                    before = link.lost()
                    in_flight = link.clients[0].submit("nap", [1])
                    assert link.served.begun.acquire(timeout=30)
                    proxy.half_open()
                    opened = time.monotonic()
                    if name == "client":
                        assert isinstance(in_flight.exception(DEADLINE), ConnectionLost)
                        case.within("noticed", time.monotonic() - opened, bound=2 * HEARTBEAT, slack=SLACK)
                    case.within(f"calls of the {name} again", _service_after(traffic, opened), bound=6, slack=1)
                    case.bit("connections abandoned", link.lost() - before)
                    in_flight.exception(2 * DEADLINE)
                    link.served.begun.acquire(timeout=0)  # it may have run again
                    proxy.heal()
        case.account(traffic)
        case.account_for_lost(traffic, link.served.handled)


def _service_after(traffic: Traffic, moment: float) -> float:
    """Return when the first call after the fault succeeded, not counting replies that were already on their way."""
    silent = moment + 0.5
    return traffic.first_result_after(silent) + 0.5
