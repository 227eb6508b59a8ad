"""A server in a cluster replies to clients of each node by direct reply-to, and to no node that does not exist."""

from __future__ import annotations

from typing import Any

import pika
import pytest

from jsonrpc_amqp import Client, Server

from ..cluster import Cluster
from ..tools import wait_for
from .disturbances import MADE_UP, request


@pytest.mark.timeout(400)
def test_clients_of_other_nodes_get_their_replies() -> None:
    with Cluster(2) as cluster:
        here, there = (node.url for node in cluster.nodes)
        options: dict[str, Any] = {"reply": "direct", "timeout": 60}
        with (
            Server(here, "calc", methods={"echo": lambda text: text}) as server,
            Client(here, "calc", **options) as own,
            Client(there, "calc", **options) as other,
            pika.BlockingConnection(pika.URLParameters(there)) as eve,
        ):
            for client in (other, own, other):
                assert client.call("echo", ["x"]) == "x"
            assert {future.result() for future in [other.submit("echo", [1]) for _ in range(200)]} == {1}
            channel = eve.channel()
            for name in MADE_UP:
                properties = pika.BasicProperties(reply_to=name, correlation_id="1")
                channel.basic_publish("", "calc_req", request("echo", "x"), properties)
            wait_for(lambda: server.stats()["received"] == 203 + len(MADE_UP), 60)
            if cluster.nodes[0].series < (4, 2):  # later ones take them and drop them
                wait_for(lambda: server.stats()["dropped_replies"] >= len(MADE_UP), 60)
            assert (own.call("echo", ["x"]), other.call("echo", ["x"])) == ("x", "x")
            assert server.stats()["connections"] == 1
            assert server.stats()["redelivered"] == 0
