"""Quick methods run on the leader of the connection; when one blocks, another thread becomes the leader."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from jsonrpc_amqp import Client, RemoteError, Server

from ..tools import wait_for


class Desk:
    """A service whose one method says which thread runs it, and blocks when asked to."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def work(self, block: bool) -> str:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            if block:
                assert self.gate.wait(30)
            return threading.current_thread().name
        finally:
            with self._lock:
                self.running -= 1


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.gate.set()


def is_leader(thread: str) -> bool:
    return "-handler-" not in thread


def warm_up(client: Client) -> None:
    """Call until the leader runs the method itself."""
    for _ in range(5000):
        if is_leader(client.call("work", [False])):
            return
    raise AssertionError("each call had a thread of its own")


def block_the_leader(client: Client, desk: Desk) -> None:
    """Have the method block on the leader."""
    for _ in range(20):
        warm_up(client)
        stuck = client.submit("work", [True])
        wait_for(lambda: desk.running == 1)
        if any(is_leader(thread.name) for thread in threading.enumerate() if runs_work(thread)):
            return
        desk.gate.set()
        stuck.result(10)
        desk.gate.clear()
    raise AssertionError("what blocked had a thread of its own each time")


def runs_work(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code is Desk.work.__code__:
            return True
        frame = frame.f_back
    return False


def test_a_quick_method_is_run_by_the_leader(url: str, service: str, desk: Desk) -> None:
    with Server(url, service, methods={"work": desk.work}), Client(url, service, timeout=10) as client:
        warm_up(client)


def test_a_slow_method_is_not(url: str, service: str) -> None:
    def nap() -> str:
        time.sleep(0.001)
        return threading.current_thread().name

    with Server(url, service, methods={"nap": nap}), Client(url, service, timeout=10) as client:
        assert not any(is_leader(client.call("nap")) for _ in range(300))


def test_with_one_handler_there_is_one_thread_for_all(url: str, service: str, desk: Desk) -> None:
    server = Server(url, service, methods={"work": desk.work}, concurrency=1)
    with server, Client(url, service, timeout=10) as client:
        assert len({client.call("work", [False]) for _ in range(500)}) == 1


def test_a_method_that_suddenly_blocks_holds_up_no_other(url: str, service: str, desk: Desk) -> None:
    with Server(url, service, methods={"work": desk.work}), Client(url, service, timeout=10) as client:
        block_the_leader(client, desk)
        for _ in range(500):
            client.call("work", [False])
        assert desk.running == 1
        desk.gate.set()


def test_the_thread_that_was_held_up_becomes_the_follower(url: str, service: str, desk: Desk) -> None:
    with Server(url, service, methods={"work": desk.work}), Client(url, service, timeout=10) as client:
        for _ in range(3):
            block_the_leader(client, desk)
            client.call("work", [False])
            desk.gate.set()
            wait_for(lambda: desk.running == 0)
            desk.gate.clear()


def test_no_more_run_at_a_time_than_are_to(url: str, service: str, desk: Desk) -> None:
    with Server(url, service, methods={"work": desk.work}, concurrency=2), Client(url, service, timeout=20) as client:
        block_the_leader(client, desk)
        client.submit("work", [True])
        wait_for(lambda: desk.running == 2)
        others = [client.submit("work", [False]) for _ in range(50)]
        time.sleep(0.3)  # what must not happen has no end to wait for
        assert not any(each.done() for each in others)
        desk.gate.set()
        for each in others:
            each.result(10)
        assert desk.most == 2


def test_a_server_stops_all_the_same(url: str, service: str, desk: Desk) -> None:
    server = Server(url, service, methods={"work": desk.work})
    server.start()
    with Client(url, service, timeout=10) as client:
        block_the_leader(client, desk)
        began = time.monotonic()
        assert not server.stop(grace=0.3)
        assert time.monotonic() - began < 1.5


def test_what_the_leader_runs_may_not_stop_the_server(url: str, service: str) -> None:
    def stop(really: bool) -> str:
        if really:
            server.stop()
        return threading.current_thread().name

    server = Server(url, service, methods={"stop": stop}, expose_errors=True)
    with server, Client(url, service, timeout=10) as client:
        while not is_leader(client.call("stop", [False])):
            pass
        with pytest.raises(RemoteError) as caught:
            client.call("stop", [True])
        assert "would wait for that handler" in str(caught.value.data)
        assert client.call("stop", [False])
