"""The network fails: one proxy to the broker for the server, and one for the clients."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from jsonrpc_amqp import ConnectionLost

from ..broker import Broker
from ..proxy import Proxy
from ..tools import wait_for
from .census import census
from .ends import (
    DEADLINE,
    HEARTBEAT,
    AnyClient,
    Servers,
    Service,
    Target,
    nap,
    new_clients,
    queues,
    stats_of,
    targets,
)
from .tally import Case
from .traffic import SLACK, Traffic


@dataclass
class Link:
    """Servers, clients of each kind with topic replies and with direct reply-to, and their proxies to the broker."""

    served: Service
    servers: Servers
    called: list[Target]
    clients: list[AnyClient]
    server_proxy: Proxy
    client_proxy: Proxy
    both: tuple[Proxy, Proxy]

    @property
    def ends(self) -> int:
        """How many connections there are."""
        return len(self.servers.of) + len(self.clients)

    def lost(self) -> int:
        """Return how often servers and clients have reconnected."""
        return self.servers.stats()["connections"] + stats_of(self.clients, "connections") - self.ends


@contextmanager
def linked(broker: Broker, service: str, *, one_of_each: bool = False) -> Iterator[Link]:
    """Connect all; ``one_of_each``: only a ``Client`` with topic replies, and an ``AsyncClient`` with direct ones."""
    served = Service()
    served.servers(broker.url, service).start().stop()
    with (
        census(broker, durable=queues(service)),
        Proxy(broker.port) as server_proxy,
        Proxy(broker.port) as client_proxy,
        served.servers(server_proxy.url, service) as servers,
        ExitStack() as ends,
    ):
        topic, direct = (new_clients(client_proxy.url, service, reply=reply) for reply in ("topic", "direct"))
        clients = [topic[0], direct[1]] if one_of_each else [*topic, *direct]
        for client in clients:
            ends.enter_context(client)
        both = (client_proxy, server_proxy)
        yield Link(served, servers, targets(service), clients, server_proxy, client_proxy, both)
        assert stats_of(clients, "pending") == 0


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
        # On a busy machine one attempt behind the other may not fit into the deadline of the others.
        patient = Traffic(link.clients, link.called, threads=2, retry="idempotent", timeout=15.0, deadline=15.0)
        with patient, Traffic(link.clients, link.called, notify=True) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                in_flight = nap(link.clients, link.called, 1)
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
        assert link.lost() >= link.ends * case.repeats


def _cut_server(case: Case, link: Link, traffic: Traffic) -> None:
    # The request that it runs is redelivered, runs again, and gets one reply.
    while link.served.begun.acquire(blocking=False):
        pass  # a nap of an earlier cut began once more: not the request that follows
    in_flight = nap(link.clients[:2], link.called, 1.5, "answer")
    assert all(link.served.begun.acquire(timeout=30) for _ in in_flight)
    before = link.servers.stats()["redelivered"]
    link.server_proxy.cut()
    cut = time.monotonic()
    assert {each.result(DEADLINE) for each in in_flight} == {"answer"}
    assert all(link.served.begun.acquire(timeout=30) for _ in in_flight)
    case.within("calls again", traffic.first_result_after(cut), bound=6, slack=1)
    case.bit("redeliveries", link.servers.stats()["redelivered"] - before, least=len(in_flight))


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
        with Traffic(link.clients, link.called, threads=8, notify=True) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                for proxy in link.both:
                    proxy.delay(0.6)
                began = time.monotonic()
                slow = nap(link.clients, link.called, 0, "answer")
                assert {each.result(DEADLINE) for each in slow} == {"answer"}
                case.bit("calls that took over 2.4 s", len(slow) * (time.monotonic() - began >= 2.4))
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
    with linked(broker, service, one_of_each=True) as link:
        # Few, since a connection carries some hundred bytes in a second.
        few: Any = {"threads": 1, "tasks": 1, "pause": 0.05, "cancel": False}
        with Traffic(link.clients, link.called, notify=True, **few) as traffic:
            for _ in case.rounds():
                traffic.wait_for_flow()
                for proxy in link.both:
                    proxy.drip()
                results, bytes_before = traffic.count("results"), link.client_proxy.bytes_down
                time.sleep(2)
                case.bit("results received byte by byte", traffic.count("results") - results)
                assert link.client_proxy.bytes_down > bytes_before
                assert link.lost() == link.ends * case.record.rounds
                for proxy in link.both:
                    proxy.cut()
                cut = time.monotonic()
                # The slack is larger than elsewhere: each byte of the handshakes takes this process some system calls.
                case.within("calls again", traffic.first_result_after(cut), bound=6, slack=4)
                for proxy in link.both:
                    proxy.heal()
        case.account(traffic)
        case.account_for_lost(traffic, link.served.handled)
        assert link.lost() == link.ends * case.repeats


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
        with Traffic(link.clients, link.called, notify=True) as traffic:
            for _ in case.rounds():
                for name, proxy in (("client", link.client_proxy), ("server", link.server_proxy)):
                    traffic.wait_for_flow()
                    before = link.lost()
                    in_flight = nap(link.clients, link.called, 1)
                    assert all(link.served.begun.acquire(timeout=30) for _ in in_flight)
                    proxy.half_open()
                    opened = time.monotonic()
                    if name == "client":
                        assert all(isinstance(each.exception(DEADLINE), ConnectionLost) for each in in_flight)
                        case.within("noticed", time.monotonic() - opened, bound=2 * HEARTBEAT, slack=SLACK)
                    case.within(f"calls of the {name} again", _service_after(traffic, opened), bound=6, slack=1)
                    ends = len(link.clients if name == "client" else link.servers.of)
                    wait_for(lambda before=before, ends=ends: link.lost() - before >= ends)  # type: ignore[misc]
                    case.bit("connections abandoned", link.lost() - before)
                    for each in in_flight:
                        each.exception(2 * DEADLINE)
                        link.served.begun.acquire(timeout=0)  # it may have run again
                    proxy.heal()
        case.account(traffic)
        case.account_for_lost(traffic, link.served.handled)


def _service_after(traffic: Traffic, moment: float) -> float:
    """Return when the first call after the fault succeeded, not counting replies that were already on their way."""
    silent = moment + 0.5
    return traffic.first_result_after(silent) + 0.5
