"""What the error of an expired call says where the broker is slow to answer."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from jsonrpc_amqp import CallTimeout, Client, Server

from ..broker import HOST, Broker
from ..proxy import Proxy


@pytest.fixture
def network(broker: Broker) -> Iterator[Proxy]:
    with Proxy(broker.port) as network:
        yield network


@pytest.fixture
def client(broker: Broker, network: Proxy, service: str) -> Iterator[Client]:
    methods = {"nap": time.sleep}
    url = f"amqp://guest:guest@{HOST}:{network.port}"
    with Server(broker.url, service, methods=methods), Client(url, service, timeout=10) as client:
        client.call("nap", [0])
        yield client


# The delay is each way.
@pytest.mark.parametrize(
    ("delay", "said"),
    [
        (
            0.15,
            "'{service}_req' has 1 consumer and 0 messages ready (servers may hold more, received and not begun): ",
        ),
        (0.4, "the broker did not say in time how many consumers queue '{service}_req' has; the method may have run"),
    ],
)
def test_a_broker_that_is_slow(client: Client, network: Proxy, service: str, delay: float, said: str) -> None:
    network.delay(delay)
    with pytest.raises(CallTimeout, match=re.escape(said.format(service=service))) as caught:
        client.call("nap", [1.5], timeout=1)
    assert caught.value.may_have_run


def test_many_short_timeouts_ask_about_their_queue_together(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    session = client._requests.life.session
    assert session is not None
    inspect = session.inspect

    def count(queue: str, found: Any) -> None:
        asked.append(queue)
        inspect(queue, found)

    monkeypatch.setattr(session, "inspect", count)
    quick = [client.submit("nap", [0], timeout=60) for _ in range(100)]
    for future in quick:
        future.result(30)
    assert asked == []
    late = [client.submit("nap", [2], timeout=0.3) for _ in range(500)]
    assert {type(future.exception(30)) for future in late} == {CallTimeout}
    assert 1 <= len(asked) <= 50  # a few a second, however long it takes to submit them
