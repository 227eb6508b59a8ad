"""The private cluster does what the tests of failover take for granted."""

from __future__ import annotations

from contextlib import closing

import pika
import pytest

from ..broker import Broker
from ..cluster import Cluster

PERSISTENT = pika.BasicProperties(delivery_mode=2)
QUORUM = {"x-queue-type": "quorum"}


def connect(node: Broker) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(node.url))


def take(node: Broker, queue: str, count: int) -> list[bytes]:
    with closing(connect(node)) as connection:
        channel = connection.channel()
        return [channel.basic_get(queue, auto_ack=True)[2] for _ in range(count)]


@pytest.mark.timeout(400)
def test_survives_its_leader_which_comes_back(service: str) -> None:
    with Cluster() as cluster:
        assert cluster.url == ";".join(node.url for node in cluster.nodes)
        names = {node.name for node in cluster.nodes}
        assert len(names) == 3
        bodies = [b"%d" % i for i in range(100)]
        with closing(connect(cluster.nodes[1])) as connection:
            channel = connection.channel()
            channel.queue_declare(service, durable=True, arguments=QUORUM)
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish("", service, body, PERSISTENT)
            leader = cluster.leader_of(service)
            [row] = leader.list("queues", "name", "leader", "members")
            assert (row["leader"], set(row["members"])) == (leader.name, names)

        killed = leader
        killed.kill()
        leader = cluster.leader_of(service)
        assert leader is not killed
        assert take(leader, service, 50) == bodies[:50]

        killed.restart()
        cluster.wait_until_whole()
        assert take(killed, service, 50) == bodies[50:]
        folders = [node.folder for node in cluster.nodes]
    assert not any(folder.exists() for folder in folders if folder)
