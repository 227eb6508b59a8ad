"""What connections that were lost keep in memory, until the garbage collector finds them."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from jsonrpc_amqp import Client, Server, TransportError

from ..broker import Broker
from ..loop_client import LoopClient
from ..proxy import Proxy
from ..tools import wait_for

ROUNDS = 10
BODY = "x" * 500_000


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Have nothing collected, as in a program of which little becomes garbage, or which has switched it off."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()


def lose(client: Client | LoopClient, server: Server, network: Proxy) -> None:
    """Cut all connections while large messages are under way, and wait until calls succeed again."""
    in_flight = [client.submit("delayed", [BODY, seconds], timeout=20) for seconds in (0.0, 0.05, 0.1)]
    ends = {"client": client.stats()["connections"], "server": server.stats()["connections"]}
    in_flight[0].exception(20)
    network.cut()
    for each in in_flight:
        each.exception(30)
    wait_for(lambda: client.stats()["connections"] > ends["client"], 30)
    wait_for(lambda: server.stats()["connections"] > ends["server"], 30)

    def is_answered() -> bool:
        try:
            return bool(client.call("delayed", ["", 0], timeout=5) == "")
        except TransportError:
            return False

    wait_for(is_answered, 30)


@pytest.mark.parametrize("kind", [Client, LoopClient])
def test_lost_connections_keep_no_messages(
    broker: Broker, service: str, kind: type[Client] | type[LoopClient], no_collector: None
) -> None:
    def delayed(text: str, seconds: float) -> str:
        time.sleep(seconds)
        return text

    with (
        Proxy(broker.port) as network,
        Server(network.url, service, methods={"delayed": delayed}) as server,
        kind(network.url, service) as client,
    ):
        lose(client, server, network)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(ROUNDS):
            lose(client, server, network)

        def kept() -> float:
            return (tracemalloc.get_traced_memory()[0] - before) / ROUNDS

        # Some hundred small objects of each attempt to connect; half a body for each round is more. Requests that were
        # delivered again may run still, with their bodies.
        wait_for(lambda: kept() < len(BODY) / 2, 30, told=lambda: f"{kept():,.0f} bytes for each round")
