"""Code of the program that runs on threads of ours, or holds what they need: log handlers and callbacks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jsonrpc_amqp import Client, Server, WouldDeadlock

from ..tools import wait_for

Attach = Callable[[Callable[[logging.LogRecord], Any]], None]


@pytest.fixture
def attach() -> Iterator[Attach]:
    """Have each line of any logger, at DEBUG, passed to a function that may raise."""
    root = logging.getLogger()
    level, handlers = root.level, list[logging.Handler]()

    def attach(emit: Callable[[logging.LogRecord], Any]) -> None:
        handler: Any = logging.Handler()
        handler.emit = emit
        handlers.append(handler)
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)

    yield attach
    for handler in handlers:
        root.removeHandler(handler)
    root.setLevel(level)


def echo(value: Any) -> Any:
    return value


@pytest.mark.threads_server
@pytest.mark.parametrize("first", ["start", "line"])
def test_a_log_handler_may_call_through_the_client_that_connects(
    url: str, service: str, attach: Attach, first: str
) -> None:
    """py-amqp logs on the thread that connects; and a thread that logs has the handler's lock while it calls."""
    answers: list[str] = []
    with Server(url, service, methods={"echo": echo}), Client(url, service) as warm:
        warm.call("echo", [1])
        client = Client(url, service, timeout=60)
        attach(lambda record: answers.append(client.call("echo", [record.getMessage()])))
        if first == "start":
            client.start(60)
        else:
            logging.getLogger("program").info("a line")
            assert "a line" in answers
        wait_for(lambda: any("Start from server" in answer for answer in answers), 60)
        assert client.stats()["failed_attempts"] == 0
        logging.getLogger("program").info("another line")
        assert answers[-1] == "another line"
        client.close()


def test_a_log_handler_that_fails_on_a_thread_of_ours_costs_nothing(
    url: str, service: str, attach: Attach, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(record: logging.LogRecord) -> None:
        if record.name.startswith(("amqp", "jsonrpc_amqp")):
            raise ValueError("a bug of this handler")

    with Server(url, service, methods={"echo": echo}), Client(url, service, timeout=60) as client:
        client.call("echo", [1])
        attach(fail)
        connection: Any = client._requests._transport
        connection._session.link.sock.shutdown(2)  # the loss is logged, and the new attempt
        wait_for(lambda: client.stats()["connections"] == 2, 60)
        assert client.call("echo", [2]) == 2
    assert "a bug of this handler" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["memory", "broker"])
def test_a_callback_that_waits_for_a_future_learns_that_it_must_not(url: str, service: str, where: str) -> None:
    if where == "memory":
        url = f"memory://{service}"
    ends: list[BaseException | None] = []
    has_callback, ended = threading.Event(), threading.Event()
    methods: dict[str, Callable[..., Any]] = {"echo": echo, "late": lambda: has_callback.wait(60)}
    with Server(url, service, methods=methods), Client(url, service, timeout=60) as client:
        waits: list[Callable[[], Any]] = [
            lambda: client.submit("echo", [2]).result(),
            lambda: client.submit("echo", [3]).exception(60),
            lambda: client.call("echo", [4]),
            lambda: client.notify("echo", [5]),
        ]

        def callback(_future: Any) -> None:
            for wait in waits:
                try:
                    wait()
                except WouldDeadlock as exc:
                    ends.append(exc)
            ended.set()

        client.start()
        client.submit("late").add_done_callback(callback)
        has_callback.set()  # else the reply may be there before, and the callback run on this thread
        assert ended.wait(60)
        assert client.call("echo", [6]) == 6
    assert len(ends) == len(waits)
