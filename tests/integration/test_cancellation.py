"""Futures that are cancelled: their calls give their places back at once, and who waits for them wakes up."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from typing import Any

import pytest

from jsonrpc_amqp import Client, ClientClosed, Server, TooManyPending

from ..broker import HOST
from ..tools import wait_for


class Gate:
    """A method that waits until it may end."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Event()

    def wait(self, number: int = 0) -> int:
        self.begun.release()
        assert self.may_end.wait(60)
        return number


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def server(url: str, service: str, gate: Gate) -> Iterator[Server]:
    with Server(url, service, methods={"wait": gate.wait, "echo": lambda value: value}, concurrency=2) as server:
        yield server
        gate.may_end.set()


@pytest.fixture
def client(url: str, service: str, server: Server) -> Iterator[Client]:
    with Client(url, service, timeout=60) as client:
        yield client


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The URL of a broker that is not there."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))  # and does not listen
        yield f"amqp://{HOST}:{sock.getsockname()[1]}"


def cancel_all(futures: list[Future[Any]]) -> None:
    assert [future.cancel() for future in futures] == [True] * len(futures)


@contextmanager
def alarm(action: Callable[[], object]) -> Iterator[None]:
    """Run something in a signal handler, soon."""
    before = signal.signal(signal.SIGALRM, lambda *_: action())
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# -- the places of pending calls --------------------------------------------------------------------------------------


def test_places_of_cancelled_calls_without_a_broker(nowhere: str) -> None:
    with_ten = Client(nowhere, "S", timeout=60, max_pending=10)
    for _ in range(100):
        futures = [with_ten.submit("wait") for _ in range(10)]
        with pytest.raises(TooManyPending):
            with_ten.submit("wait")
        cancel_all(futures)
        assert not wait(futures, timeout=30).not_done
    assert (with_ten.stats()["cancelled"], with_ten.stats()["pending"]) == (1000, 0)
    last = with_ten.submit("wait")
    with_ten.close()
    assert isinstance(last.exception(30), ClientClosed)
    assert futures[0].cancelled()


def test_places_of_cancelled_calls_that_were_sent(client: Client, gate: Gate) -> None:
    many = 3000
    futures = [client.submit("wait", [number]) for number in range(many)]
    assert gate.begun.acquire(timeout=30)
    with ThreadPoolExecutor(4) as threads:
        ends = [threads.submit(cancel_all, futures[begin::4]) for begin in range(4)]
        completed = set(as_completed(futures, timeout=60))
        for end in ends:
            end.result(60)
    assert completed == set(futures)
    assert (client.stats()["cancelled"], client.stats()["pending"]) == (many, 0)
    gate.may_end.set()
    assert client.call("echo", [1]) == 1
    # What was sent ran all the same.
    wait_for(lambda: client.stats()["dropped_replies"] == many, 60)
    assert client.stats()["pending"] == 0


def test_cancelled_calls_are_not_sent_later(client: Client, server: Server, url: str, service: str) -> None:
    ran: list[int] = []
    with Server(url, f"{service}-2", methods={"note": ran.append}), Client(url, f"{service}-2", timeout=60) as other:
        # Parked until the replies of a service that was not called before are bound.
        futures = [client.submit("note", [number], service=f"{service}-2") for number in range(20)]
        cancelled = [future.cancel() for future in futures[::2]]
        assert not wait(futures, timeout=60).not_done
        other.call("note", [100])
    # One that was under way may have run.
    assert cancelled.count(True) == client.stats()["cancelled"]
    assert set(ran) >= {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 100}
    assert client.stats()["pending"] == 0


def test_callback_cancels_the_others_and_goes_on(client: Client, gate: Gate) -> None:
    others = [client.submit("wait") for _ in range(10)]
    again: list[Future[Any]] = []

    def proceed(_done: Future[Any]) -> None:
        cancel_all(others)
        again.append(client.submit("wait"))
        gate.may_end.set()

    assert gate.begun.acquire(timeout=30)
    first = client.submit("absent", service="never-set-up")
    first.add_done_callback(proceed)
    assert first.exception(30) is not None
    assert not wait(others, timeout=30).not_done
    wait_for(lambda: len(again) == 1)
    assert again[0].result(30) == 0


# -- who waits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["wait", "as_completed", "result"])
def test_signal_handler_cancels_what_its_thread_waits_for(client: Client, how: str) -> None:
    futures = [client.submit("wait") for _ in range(50)]
    with alarm(lambda: cancel_all(futures)):
        if how == "wait":
            assert not wait(futures, timeout=60).not_done
        elif how == "as_completed":
            assert len(list(as_completed(futures, timeout=60))) == 50
        else:
            with pytest.raises(CancelledError):
                futures[0].result(60)
    assert all(future.cancelled() for future in futures)
    assert client.stats()["pending"] == 0


@pytest.mark.parametrize("form", ["call", "batch", "notify"])
def test_interrupt_gives_the_place_back(nowhere: str, form: str) -> None:
    class Interrupted(Exception):
        pass

    def interrupt() -> None:
        raise Interrupted

    def send_batch(method: str) -> None:
        with lone.batch() as batch:
            batch.call(method)

    lone = Client(nowhere, "S", timeout=None)
    send = send_batch if form == "batch" else getattr(lone, form)
    with pytest.raises(Interrupted), alarm(interrupt):
        send("wait")
    assert lone.stats()["pending"] == 0
    assert lone._requests._sender._parked == {}
    lone.close()


def test_tasks_that_are_cancelled_drop_their_calls(client: Client) -> None:
    async def use() -> None:
        tasks = [asyncio.ensure_future(asyncio.wrap_future(client.submit("wait"))) for _ in range(10)]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(client.submit("wait")), 0.05)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} == {asyncio.CancelledError}

    asyncio.run(use())
    wait_for(lambda: client.stats()["pending"] == 0)
    assert client.stats()["cancelled"] == 11


def test_batch_under_way_is_given_up_once_its_calls_are_cancelled(client: Client, gate: Gate) -> None:
    futures: list[Future[Any]] = []

    def send() -> float:
        with client.batch() as batch:
            futures.extend([batch.call("wait"), batch.call("wait")])
        return time.monotonic()

    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(send)
        assert gate.begun.acquire(timeout=30)
        assert futures[0].cancel()
        assert client.stats()["pending"] == 1
        assert futures[1].cancel()
        assert sending.result(30)
    assert not wait(futures, timeout=30).not_done
    assert (client.stats()["cancelled"], client.stats()["pending"]) == (1, 0)
    gate.may_end.set()
    wait_for(lambda: client.stats()["dropped_replies"] == 1, 30)


def test_closing_leaves_cancelled_futures_cancelled(client: Client) -> None:
    futures = [client.submit("wait") for _ in range(10)]
    cancel_all(futures[:5])
    client.close()
    assert [future.cancelled() for future in futures] == [True] * 5 + [False] * 5
    assert all(isinstance(future.exception(30), ClientClosed) for future in futures[5:])
