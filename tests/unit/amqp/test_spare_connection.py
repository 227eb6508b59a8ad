"""The second connection for replies: one at a time, in turns, and whose fault its end is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
from amqp.exceptions import InternalError

from jsonrpc_amqp.amqp import spare_connection as module
from jsonrpc_amqp.amqp.base import Publish
from jsonrpc_amqp.amqp.deadline import Deadline
from jsonrpc_amqp.amqp.encoder import Encoder
from jsonrpc_amqp.amqp.spare_connection import SpareConnection
from jsonrpc_amqp.amqp.url import parse_urls
from jsonrpc_amqp.errors import ConnectionLost, MaybeRejected, NotConnected, TransportError

from ...tools import wait_for
from .tools import FRAME_MAX

PATIENCE = 10.0
[URL] = parse_urls("amqp://there")


class FakeConnection:
    """
    A connection of py-amqp: each message that is written is taken at the next read.

    Attributes:
        ends: The error of the next read.
    """

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.transport = self
        self.written: list[bytes] = []
        self.events: dict[str, set[Any]] = {"basic_ack": set(), "basic_nack": set()}
        self.ends: BaseException | None = None
        self.is_collected = False

    def encoder(self) -> Encoder:
        return Encoder(frame_max=FRAME_MAX)

    def open_channel(self, number: int) -> FakeConnection:
        assert number == 1
        return self

    def confirm_select(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def blocking_read(self) -> None:
        if self.ends is not None:
            raise self.ends
        for taken in self.events["basic_ack"]:
            taken(1, False)

    def collect(self) -> None:
        self.is_collected = True


class Target:
    """A spare connection; the first attempt to connect sets ``connects``, and waits for ``go``."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.connects = threading.Event()
        self.made: list[FakeConnection] = []
        self.refuses: TransportError | None = None
        self.ends: list[BaseException | None] = []
        self.threads: list[threading.Thread] = []
        self.cannot_run: TransportError | None = None
        self.spare = SpareConnection(URL, lambda deadline: cast(Any, self._connect(deadline)), self._run)
        self.done: list[tuple[str, TransportError | None]] = []
        self.changed = threading.Condition()

    def _run(self, function: Callable[[], None]) -> None:
        if self.cannot_run is not None:
            raise self.cannot_run
        self.threads.append(threading.Thread(target=function, daemon=True))
        self.threads[-1].start()

    def _connect(self, deadline: Deadline) -> FakeConnection:
        self.connects.set()
        assert self.go.wait(PATIENCE)
        if self.refuses is not None:
            raise self.refuses
        connection = FakeConnection(deadline)
        connection.ends = self.ends.pop(0) if self.ends else None
        self.made.append(connection)
        return connection

    def send(self, sender: str | None, *names: str) -> None:
        for name in names:
            self.spare.send(sender, Publish("", name, b"{}", correlation_id="1"), partial(self._end, name))

    def _end(self, name: str, error: TransportError | None) -> None:
        with self.changed:
            self.done.append((name, error))
            self.changed.notify()

    def wait(self, count: int) -> list[tuple[str, TransportError | None]]:
        self.go.set()
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.done) >= count, PATIENCE)
        return self.done


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    target = Target()
    yield target
    target.go.set()
    target.spare.close()


def test_it_connects_once_and_sends_one_after_the_other(target: Target) -> None:
    assert target.made == []
    target.send("alice", "1", "2")
    assert target.wait(2) == [("1", None), ("2", None)]
    [connection] = target.made
    assert len(connection.written) == 2


def test_senders_take_turns(target: Target) -> None:
    target.send("eve", "first")
    assert target.connects.wait(PATIENCE)  # it has taken that one
    target.send("eve", "e1", "e2", "e3")
    target.send("alice", "a1")
    target.send(None, "n1")
    assert [name for name, _ in target.wait(6)] == ["first", "e1", "a1", "n1", "e2", "e3"]


def test_an_end_by_the_broker_is_the_fault_of_the_reply_and_others_go_on(target: Target) -> None:
    target.ends = [InternalError("INTERNAL_ERROR", (0, 0), "541")]
    target.send("eve", "false", "true")
    [(_, error), (_, none)] = target.wait(2)
    assert isinstance(error, MaybeRejected)
    assert "second connection" in str(error)
    assert none is None
    assert [connection.is_collected for connection in target.made] == [True, False]


def test_an_end_of_the_network_is_nobodys_fault(target: Target) -> None:
    target.ends = [ConnectionResetError("reset")]
    target.send("alice", "1")
    [(_, error)] = target.wait(1)
    assert isinstance(error, TransportError)
    assert not isinstance(error, MaybeRejected)


def test_a_refused_connection_is_reported(target: Target) -> None:
    target.refuses = NotConnected("a limit is reached")
    target.send("alice", "1")
    assert target.wait(1) == [("1", target.refuses)]


def test_what_waits_is_bounded(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    target.send("eve", *map(str, range(4)))
    errors = [error for _, error in target.wait(4) if error is not None]
    assert 1 <= len(errors) <= 2
    assert "wait for a second connection" in str(errors[0])


def test_a_process_without_a_free_thread_is_told(target: Target) -> None:
    target.cannot_run = NotConnected("this process cannot have another thread")
    target.send("alice", "1")
    assert target.done == [("1", target.cannot_run)]
    target.cannot_run = None
    target.send("alice", "2")
    assert target.wait(2)[1] == ("2", None)


def test_a_closed_one_sends_nothing(target: Target) -> None:
    target.send("alice", "1")
    target.wait(1)
    target.spare.close()
    target.send("alice", "2")
    assert isinstance(target.wait(2)[1][1], NotConnected)
    assert target.made[0].deadline._is_cancelled


def test_what_waits_when_it_is_closed_is_reported(target: Target) -> None:
    target.send("alice", "1", "2")
    target.send("bob", "3")
    wait_for(lambda: target.spare._count == 2)
    target.spare.close()
    assert {name: type(error) for name, error in target.done} == {"2": ConnectionLost, "3": ConnectionLost}


def test_a_connection_that_is_not_used_is_closed(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE", 0.001)
    target.send("alice", "1")
    target.wait(1)
    target.threads[0].join(PATIENCE)
    assert target.made[0].is_collected
    target.send("alice", "2")
    target.wait(2)
    assert len(target.made) == 2
