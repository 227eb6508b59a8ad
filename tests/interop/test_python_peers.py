"""Other Python libraries, over RabbitMQ: their clients call our server, and our client calls their servers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from jsonrpc_amqp import CallTimeout, Client, RemoteError, ServerError

from ..command import running
from .asking import check_batch, check_many, check_odd, check_plain, check_server, check_server_at_once
from .peers import PROGRAMS

REPLIES = ["queue", "direct"]


def program(name: str, *words: str) -> list[str]:
    return [sys.executable, str(PROGRAMS / "python" / f"{name}.py"), *words]


# -- their clients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("pika_client", marks=pytest.mark.peer("pika", works="a reply queue, and direct reply-to")),
        pytest.param("aio_pika_client", marks=pytest.mark.peer("aio-pika", works="a reply queue, and direct reply-to")),
    ],
)
def test_raw_clients(url: str, conformance: str, name: str, reply: str) -> None:
    command = program(name, url, conformance, reply)
    check_plain(command)
    check_batch(command)
    check_odd(command)
    check_many([*command, "--concurrent"], 1000)


@pytest.mark.peer("pika", works="results, errors, batches, ids of every type, invalid JSON, 1,000 at once")
@pytest.mark.peer("aio-pika", works="results, errors, batches, ids of every type, invalid JSON, 1,000 at once")
@pytest.mark.parametrize("name", ["pika_client", "aio_pika_client"])
def test_raw_clients_one_by_one(url: str, conformance: str, name: str) -> None:
    check_many(program(name, url, conformance, "direct"), 100)


@pytest.mark.peer("pjrpc in", works="results, errors, a reply queue for all requests and one for each")
@pytest.mark.parametrize("reply", ["queue", "fresh"])
def test_pjrpc_client(url: str, conformance: str, reply: str) -> None:
    command = program("pjrpc_client", url, conformance, reply)
    check_plain(command)
    check_batch(command)


@pytest.mark.peer("pjrpc in", works="batches, 1,000 at once")
def test_pjrpc_client_many_at_once(url: str, conformance: str) -> None:
    check_many(program("pjrpc_client", url, conformance, "queue", "--concurrent"), 1000)


@pytest.mark.peer("tinyrpc in", works="results, errors, batches; one request after the other")
def test_tinyrpc_client(url: str, conformance: str) -> None:
    command = program("tinyrpc_client", url, conformance, "queue")
    check_plain(command, own_ids=True)
    check_batch(command)
    check_many(command, 100, own_ids=True)


# -- their servers ----------------------------------------------------------------------------------------


@contextmanager
def serving(name: str, url: str, queue: str) -> Iterator[Any]:
    with running(*program(name)[1:], url, queue, program=[sys.executable]) as server:
        server.wait_until_said("serving")
        yield server


@pytest.fixture(scope="module")
def pjrpc(broker: Any) -> Iterator[str]:
    with serving("pjrpc_server", broker.url, "interop-pjrpc"):
        yield "interop-pjrpc"


@pytest.mark.peer("pjrpc out", works="results, errors, batches, notifications, 1,000 at once")
@pytest.mark.peer("pjrpc out", works='`reply="queue"` and `"direct"`')
@pytest.mark.parametrize("reply", REPLIES)
def test_pjrpc_server(url: str, pjrpc: str, reply: Any) -> None:
    with Client(url, queue=pjrpc, reply=reply, timeout=60) as client:
        check_server(client)
        with pytest.raises(RemoteError, match="not today") as refused:
            client.call("refuse")
        assert (refused.value.code, refused.value.data) == (1, {"when": "tomorrow"})
        client.notify("notify_hello", [reply])
        assert reply in client.call("was_told")
        check_server_at_once(client)


@pytest.mark.peer("tinyrpc out", works='results, errors, batches; `reply="queue"` and `"direct"`')
@pytest.mark.parametrize("reply", REPLIES)
def test_tinyrpc_server(url: str, service: str, reply: Any) -> None:
    queue = f"interop-tinyrpc-{service}"
    with serving("tinyrpc_server", url, queue), Client(url, queue=queue, reply=reply, timeout=60) as client:
        check_server(client)
        with pytest.raises(ServerError, match="for a reason"):
            client.call("fail")


@pytest.mark.peer("tinyrpc out", works="its own fault ends in a `CallTimeout`, without further damage")
def test_tinyrpc_server_and_a_notification(url: str, service: str) -> None:
    queue = f"interop-tinyrpc-{service}"
    with serving("tinyrpc_server", url, queue) as server, Client(url, queue=queue, timeout=1) as client:
        client.notify("notify_hello", [1])
        server.wait_until_said("told", 10)  # the same notification, repeatedly
        with pytest.raises(CallTimeout, match="has 1 consumer"):
            client.call("subtract", [42, 23])
