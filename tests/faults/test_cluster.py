"""The node of a cluster that leads the queue is killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest

from jsonrpc_amqp import Client

from ..cluster import Cluster
from .census import census
from .tally import Case
from .traffic import Service, Traffic, make_client


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as nodes:
        yield nodes


def urls(cluster: Cluster) -> list[str]:
    """Return failover URLs, each of which begins with another node."""
    each = [node.url for node in cluster.nodes]
    return [";".join(each[start:] + each[:start]) for start in range(len(each))]


@pytest.mark.fault(
    "cluster",
    fault="in a cluster of three, the node that leads the quorum queue killed; failover URLs",
    bound="publishing stalls for at most 2 s; no confirmed notification lost; "
    "calls end in results, or in Overloaded or "
    "CallTimeout if the queue accepts nothing for a whole deadline while the node restarts",
    mechanism="the next URL at once; calls are retried after a nack during the election or a lost connection "
    '(retry="idempotent"); confirms by delivery tag',
    full=10,
    short=1,
    seconds=60,
)
def test_leader_is_killed(case: Case, cluster: Cluster, service: str) -> None:
    served, options = Service(), {"queue_type": "quorum"}
    served.server(cluster.url, service, **options).start().stop()
    cluster.wait_until_whole()
    patient: Any = {"notify": True, "retry": "idempotent"}
    with census(*cluster.nodes, durable={f"{service}_req"}), ExitStack() as ends:
        for url in urls(cluster):
            ends.enter_context(served.server(url, service, **options))
        # A queue without a leader loses unconfirmed messages: such a call would time out.
        clients = [ends.enter_context(make_client(url, service, confirm=True)) for url in urls(cluster)]
        with Traffic(clients, threads=3, **patient) as traffic:
            _kill_leaders(case, cluster, service, clients, traffic)
        case.account(traffic)
        case.account_for_lost(traffic, served.handled)
        assert set(traffic.errors) <= {"Overloaded", "CallTimeout"}
        assert [client.stats()["pending"] for client in clients] == [0, 0, 0]


def _kill_leaders(case: Case, cluster: Cluster, service: str, clients: list[Client], traffic: Traffic) -> None:
    for _ in case.rounds():
        traffic.wait_for_flow()
        lost_before = sum(client.stats()["connections_lost"] for client in clients)
        leader = cluster.leader_of(f"{service}_req")
        killed = time.monotonic()
        leader.kill()
        time.sleep(4)
        assert cluster.leader_of(f"{service}_req") is not leader
        case.within("longest stall of confirms", longest_gap(traffic.confirmed_at, killed), bound=2, slack=1)
        case.within("longest stall of calls", longest_gap(traffic.results, killed), bound=2, slack=3)
        lost = sum(client.stats()["connections_lost"] for client in clients) - lost_before
        case.bit("connections of clients lost", lost)
        leader.restart()
        cluster.wait_until_whole()


def longest_gap(times: list[float], since: float) -> float:
    """Return the longest interval between times, from a moment on."""
    after = sorted(each for each in times if each >= since - 0.5)
    return max(later - earlier for earlier, later in pairwise(after))
