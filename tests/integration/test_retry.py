"""``retry=``: another attempt, where that cannot run the method twice, or may; inside the deadline."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pika
import pytest

from jsonrpc_amqp import (
    CallTimeout,
    Client,
    ClientClosed,
    ConnectionLost,
    MessageTooLarge,
    Overloaded,
    Server,
    Unroutable,
)
from jsonrpc_amqp.amqp.memory import disconnect, reset

from ..tools import wait_for


@pytest.fixture(params=["memory", "rabbitmq"])
def place(request: pytest.FixtureRequest, service: str) -> str:
    """Give a URL."""
    return f"memory://{service}" if request.param == "memory" else str(request.getfixturevalue("url"))


def test_a_call_waits_for_a_service_that_is_set_up_later(place: str, service: str) -> None:
    server = Server(place, service, methods={"add": lambda a, b: a + b})
    with Client(place, service, timeout=10) as client:
        future = client.submit("add", [1, 2], retry="safe")
        with pytest.raises(Unroutable):
            client.call("add", [1, 2])
        starter = threading.Timer(0.3, server.start)
        starter.start()
        assert client.call("add", [1, 2], retry="safe") == 3
        client.notify("add", [1, 2], retry="safe")
        assert future.result(10) == 3
        assert client.with_options(retry="safe").call("add", [3, 4]) == 7
        assert client.stats()["retries"] >= 2
        assert client.stats()["pending"] == 0
    starter.join()
    server.stop()


def unroutable(call: Callable[[], object]) -> Unroutable:
    """
    Make a call that ends with ``Unroutable``; return the error.

    On a busy machine the broker may return the message of the last attempt too late, so that the call ends with
    ``CallTimeout``. That does not happen each time. Or the client is late itself, so that it is too late for another
    attempt: then the error is that of the last one, and tells of no attempt before it.
    """
    for _ in range(5):
        with pytest.raises((Unroutable, CallTimeout), match="no queue is bound") as caught:
            call()
        assert re.search(r"\(attempt [2-9][;)]", str(caught.value))
        if isinstance(caught.value, Unroutable):
            return caught.value
    raise AssertionError("each call timed out")


@pytest.mark.parametrize("retry", ["safe", "idempotent"])
def test_attempts_end_inside_the_deadline_with_what_the_last_one_met(place: str, service: str, retry: Any) -> None:
    with Client(place, service) as client:
        began = time.monotonic()
        error = unroutable(lambda: client.call("add", retry=retry, timeout=1))
        assert 0.75 < time.monotonic() - began < 1.9 * (1 + client.stats()["timeouts"])
        assert not error.may_have_run
        unroutable(lambda: client.submit("add", retry=retry, timeout=1).result(2))
        unroutable(lambda: client.notify("add", retry=retry, timeout=0.5))


def test_no_attempt_begins_too_late_to_tell_its_end(place: str, service: str) -> None:
    # Of so many, some would have their last attempt a moment before the deadline.
    with Client(place, service) as client:
        for _ in range(5):  # as for ``unroutable``
            calls = [client.submit("add", retry="safe", timeout=0.3 + at / 1000) for at in range(200)]
            errors = [call.exception(5) for call in calls]
            if not any(isinstance(error, CallTimeout) for error in errors):
                break

    assert {(type(error), getattr(error, "may_have_run", None)) for error in errors} == {(Unroutable, False)}


def test_waits_between_attempts_grow_and_differ(service: str) -> None:
    with Client(f"memory://{service}", service) as client, pytest.raises(Unroutable):
        client.call("add", retry="safe", timeout=3)
    # 0.05 to 0.1, 0.1 to 0.2, 0.2 to 0.4 ... seconds, four to five waits; then half of what is left, down to 0.1 s.
    assert 3 <= client.stats()["retries"] <= 9


def test_a_full_queue_is_tried_again_until_it_has_room(url: str, service: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.exchange_declare("jsonrpc", "topic", durable=True)
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    channel.queue_declare(f"{service}_req", durable=True, arguments=limits)
    channel.queue_bind(f"{service}_req", "jsonrpc", f"{service}.request.#")
    with Client(url, service, timeout=10) as client:
        client.notify("fills.the.queue")
        with pytest.raises(Overloaded):
            client.notify("x")
        with pytest.raises(Overloaded):
            client.call("x", persistent=True)
        waiting = [client.submit_notify("x", retry="safe")]
        time.sleep(0.3)
        assert not waiting[0].done()
        channel.queue_purge(f"{service}_req")
        waiting[0].result(10)
    connection.close()


def test_a_lost_connection_is_only_tried_again_for_idempotent_methods(service: str) -> None:
    url, begun, runs = f"memory://{service}", threading.Semaphore(0), []

    def slow(value: int) -> int:
        runs.append(value)
        begun.release()
        time.sleep(0.2)
        return value

    with Server(url, service, methods={"slow": slow}), Client(url, service, timeout=10) as client:
        safe = client.submit("slow", [1], retry="safe")
        idempotent = client.submit("slow", [2], retry="idempotent")
        assert begun.acquire(timeout=5)
        assert begun.acquire(timeout=5)
        disconnect(service)
        with pytest.raises(ConnectionLost) as caught:
            safe.result(5)
        assert caught.value.may_have_run
        assert idempotent.result(5) == 2
        assert client.stats()["retries"] == 1
        assert runs.count(2) >= 2


def test_that_an_earlier_attempt_may_have_run_is_not_forgotten(service: str) -> None:
    url, begun = f"memory://{service}", threading.Event()

    def slow() -> None:
        begun.set()
        time.sleep(0.2)

    server = Server(url, service, methods={"slow": slow}).start()
    with Client(url, service, timeout=2) as client:
        future = client.submit("slow", retry="idempotent")
        assert begun.wait(5)
        server.drain()  # so that it does not declare the queue again
        threading.Thread(target=server.stop).start()
        reset(service)  # the queue is gone as well
        with pytest.raises(Unroutable) as caught:
            future.result(5)
        assert caught.value.may_have_run


def test_a_cancelled_future_is_not_tried_again(service: str) -> None:
    url, runs = f"memory://{service}", []  # type: tuple[str, list[int]]
    with Client(url, service, timeout=10) as client:
        future = client.submit("pay", [1], retry="safe")
        wait_for(lambda: client.stats()["retries"] > 0)
        assert future.cancel()
        with Server(url, service, methods={"pay": runs.append}):
            wait_for(lambda: client.stats()["pending"] == 0)
    assert runs == []


def test_what_the_next_attempt_would_meet_again_is_not_tried_again(service: str) -> None:
    client = Client(f"memory://{service}", service, max_size=2000)
    with pytest.raises(MessageTooLarge):
        client.call("add", ["x" * 3000], retry="idempotent")
    future = client.submit("add", retry="safe", timeout=60)
    client.close()
    with pytest.raises(ClientClosed):
        future.result(5)
    with pytest.raises(ValueError, match="retry"):
        client.call("add", retry="always")  # type: ignore[arg-type]


def test_persistent_calls_are_confirmed_and_answered(place: str, service: str) -> None:
    with Server(place, service, methods={"add": lambda a, b: a + b}):
        with Client(place, service) as client:
            assert client.call("add", [1, 2], persistent=True) == 3
        with Client(place, service, reply="direct", confirm=True) as client:
            assert client.submit("add", [1, 2], persistent=True).result(10) == 3
        with Client(place, service, reply="direct") as client, pytest.raises(ValueError, match="confirm=True"):
            client.call("add", [1, 2], persistent=True)
