"""Who drives the connection: a lone caller reads its own answer, and takes nothing away from anybody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jsonrpc_amqp import CallTimeout, Client, ClientClosed, Server

from .command import ROOT
from .tools import wait_for

METHODS: dict[str, Callable[..., Any]] = {"add": lambda a, b: a + b, "sleep": time.sleep}


@pytest.fixture
def client(url: str, service: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    # What is not taken back in time is then seen.
    monkeypatch.setattr("jsonrpc_amqp.transport.driver._LOAN", 20.0)
    with Server(url, service, methods=METHODS), Client(url, service, timeout=10) as client:
        client.call("add", [1, 2])
        yield client


def driver(client: Client) -> Any:
    return client._caller._transport._driver  # type: ignore[attr-defined]


def test_a_lone_caller_drives(client: Client) -> None:
    before, owners = driver(client)._loans, []
    listener: Any = client._caller
    told = listener.on_deliveries

    def on_deliveries(*args: Any) -> None:
        owners.append(threading.get_ident())
        told(*args)

    listener.on_deliveries = on_deliveries
    for number in range(20):
        assert client.call("add", [number, 1]) == number + 1
    # The first may come while the thread still has it.
    assert driver(client)._loans - before >= 15
    assert owners.count(threading.get_ident()) >= 15
    assert driver(client).owner != threading.get_ident()


def test_a_future_does_not_wait_for_the_loan_to_end(client: Client) -> None:
    for number in range(20):
        client.call("add", [number, 1])
        began = time.monotonic()
        assert client.submit("add", [number, 2]).result(10) == number + 2
        assert client.submit_notify("add", [number, 2]).result(10) is None
        assert time.monotonic() - began < 5


def test_many_callers_share_one_connection(client: Client) -> None:
    wrong: list[Any] = []

    def call() -> None:
        for number in range(200):
            answer = client.call("add", [number, 1])
            if answer != number + 1:
                wrong.append(answer)
            if number % 50 == 0:
                client.submit("add", [number, 1]).result(10)

    threads = [threading.Thread(target=call) for _ in range(8)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert time.monotonic() - began < 15
    assert wrong == []
    assert client.stats()["pending"] == client.stats()["timeouts"] == 0


def test_a_second_caller_is_not_left_behind(client: Client) -> None:
    """One drives through a long call; the other's answer comes meanwhile. Then the other way round."""
    for first, second in ((0.6, 0.1), (0.1, 0.6)):
        client.call("add", [1, 2])
        long = threading.Thread(target=client.call, args=("sleep", [first]))
        long.start()
        time.sleep(0.05)
        began = time.monotonic()
        client.call("sleep", [second])
        assert time.monotonic() - began < second + 2
        long.join(5)
        assert not long.is_alive()


def test_deadlines_are_kept_by_whoever_drives(client: Client) -> None:
    began = time.monotonic()
    with pytest.raises(CallTimeout, match="has 1 consumer"):
        client.call("sleep", [3], timeout=0.5)
    assert 0.4 < time.monotonic() - began < 2
    assert client.call("add", [1, 2]) == 3


def test_a_client_that_is_closed_frees_who_drives(client: Client) -> None:
    errors: list[Any] = []

    def call() -> None:
        try:
            client.call("sleep", [2])
        except ClientClosed as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    wait_for(lambda: driver(client)._guest is not None)
    client.close()
    thread.join(3)
    assert len(errors) == 1


def test_the_connection_is_seen_to_between_two_calls(url: str, service: str) -> None:
    """Nobody drives while a lone caller does something else: the thread takes it back soon."""
    with Server(url, service, methods=METHODS), Client(url, service, timeout=10) as client:
        client.call("add", [1, 2])
        client.call("add", [1, 2])
        client._caller._transport._session.link.sock.shutdown(2)  # type: ignore[attr-defined]
        wait_for(lambda: client.stats()["connections"] == 2)
        assert client.call("add", [1, 2]) == 3


INTERRUPTED = """
import sys
from jsonrpc_amqp import Client

url, service = sys.argv[1:]
with Client(url, service, timeout=30) as client:
    client.call("add", [1, 2])
    client.call("add", [1, 2])
    print("calling", flush=True)
    try:
        client.call("sleep", [20])
    except KeyboardInterrupt:
        print("interrupted", client.call("add", [1, 2]), flush=True)
    else:
        print("not interrupted", flush=True)
"""


def test_a_caller_that_drives_can_be_interrupted(url: str, service: str) -> None:
    with Server(url, service, methods={**METHODS, "sleep": lambda _: time.sleep(2.5)}):
        command = [sys.executable, "-c", INTERRUPTED, url, service]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "calling\n"
            time.sleep(0.3)
            os.kill(process.pid, signal.SIGINT)
            assert process.stdout.readline() == "interrupted 3\n"
            assert process.wait(10) == 0
