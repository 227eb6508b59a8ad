"""
Where this process has no thread or descriptor left, the use that needs one fails with an error that says so.

It leaves nothing behind, and the next use works.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from jsonrpc_amqp import Client, NotConnected, Server

from ..exhausted import NoThread, no_descriptor
from ..tools import wait_for

Exhaust = Callable[[pytest.MonkeyPatch], object]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def has_threads(service: str) -> bool:
    return any(service in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize("exhaust", [NoThread, no_descriptor])
@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.call("add", [1, 2]),
        lambda client: client.submit("add", [1, 2]),
        lambda client: client.notify("add", [1, 2]),
        lambda client: client.start(),
    ],
    ids=["call", "submit", "notify", "start"],
)
def test_a_client_says_so_and_works_at_the_next_use(
    service: str, monkeypatch: pytest.MonkeyPatch, exhaust: Exhaust, use: Callable[[Client], object]
) -> None:
    url = f"memory://{service}"
    with Server(url, service, methods={"add": lambda a, b: a + b}):
        client = Client(url, service, timeout=10)
        before = descriptors()
        with monkeypatch.context() as patch:
            exhaust(patch)
            for _ in range(2):
                with pytest.raises(NotConnected, match="ulimit") as caught:
                    use(client)
                assert not caught.value.may_have_run
        assert descriptors() <= before  # fewer, where a test before this one has just ended
        assert client.stats()["pending"] == 0
        assert client.call("add", [20, 22]) == 42
        client.close()


@pytest.mark.parametrize("after", range(4))  # three handler threads, and the one that drives
def test_a_server_says_so_and_works_at_the_next_start(
    service: str, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    url = f"memory://{service}"
    server = Server(url, service, methods={"add": lambda a, b: a + b}, concurrency=3)
    before = descriptors()
    with monkeypatch.context() as patch:
        no_thread = NoThread(patch, after)
        for start in (server.start, server.serve_forever):
            no_thread.left = after
            with pytest.raises(NotConnected, match="ulimit"):
                start()
            wait_for(lambda: not has_threads(service))
        assert no_thread.failures == 2
    assert descriptors() <= before
    with server, Client(url, service, timeout=10) as client:
        assert client.call("add", [20, 22]) == 42


def test_a_server_without_a_descriptor_says_so_and_works_at_the_next_start(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory://{service}"
    server = Server(url, service, methods={"add": lambda a, b: a + b})
    with monkeypatch.context() as patch:
        no_descriptor(patch)
        with pytest.raises(NotConnected, match="Too many open files"):
            server.start()
    wait_for(lambda: not has_threads(service))
    with server, Client(url, service, timeout=10) as client:
        assert client.call("add", [20, 22]) == 42


def test_a_server_that_could_not_start_can_be_stopped(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(f"memory://{service}", service, methods={"add": lambda a, b: a + b})
    with monkeypatch.context() as patch:
        NoThread(patch)
        with pytest.raises(NotConnected), server:
            pass
    assert server.stop()
