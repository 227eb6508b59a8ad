"""The node of a cluster that leads the queue is killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest

from ..cluster import Cluster
from .census import census
from .ends import AnyClient, Service, make_clients, queues, stats_of, targets
from .tally import Case
from .traffic import Traffic


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
    served.servers(cluster.url, service, **options).start().stop()
    cluster.wait_until_whole()
    patient: Any = {"notify": True, "retry": "idempotent"}
    with census(*cluster.nodes, durable=queues(service)), ExitStack() as ends:
        for url in urls(cluster):
            ends.enter_context(served.servers(url, service, **options))
        # A queue without a leader loses unconfirmed messages: such a call would time out.
        clients = [
            client for url in urls(cluster) for client in ends.enter_context(make_clients(url, service, confirm=True))
        ]
        with Traffic(clients, targets(service), threads=3, **patient) as traffic:
            _kill_leaders(case, cluster, service, clients, traffic)
        case.account(traffic)
        case.account_for_lost(traffic, served.handled)
        assert set(traffic.errors) <= {"Overloaded", "CallTimeout"}
        assert stats_of(clients, "pending") == 0


def _kill_leaders(case: Case, cluster: Cluster, service: str, clients: list[AnyClient], traffic: Traffic) -> None:
    called = targets(service)
    for number in case.rounds():
        traffic.wait_for_flow()
        lost_before = stats_of(clients, "connections_lost")
        queue = called[number % len(called)].queue
        leader = cluster.leader_of(queue)
        killed = time.monotonic()
        leader.kill()
        time.sleep(4)
        assert cluster.leader_of(queue) is not leader
        for confirmed_at, results in zip(traffic.confirmed_at.values(), traffic.results.values(), strict=True):
            case.within("longest stall of confirms", longest_gap(confirmed_at, killed), bound=2, slack=1)
            case.within("longest stall of calls", longest_gap(results, killed), bound=2, slack=3)
        case.bit("connections of clients lost", stats_of(clients, "connections_lost") - lost_before)
        leader.restart()
        cluster.wait_until_whole()


def longest_gap(times: list[float], since: float) -> float:
    """Return the longest interval between times, from a moment on."""
    after = sorted(each for each in times if each >= since - 0.5)
    return max(later - earlier for earlier, later in pairwise(after))
