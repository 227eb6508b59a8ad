"""One deadline for all steps, and its early end by another thread."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from jsonrpc_amqp.amqp import deadline as module
from jsonrpc_amqp.amqp.deadline import Deadline

from .fakes import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_what_is_left_ends_with_an_error_that_names_the_step(clock: Clock) -> None:
    deadline = Deadline(5)
    deadline.step = "the login"
    clock.now += 2
    assert deadline.left() == 3
    clock.now += 3
    with pytest.raises(TimeoutError, match=r"not made within 5 s \(connect_timeout\); .* during the login$"):
        deadline.left()


def test_progress_gives_it_its_time_anew_up_to_four_times(clock: Clock) -> None:
    deadline = Deadline(5)
    deadline.step = "the set-up"
    begin = clock.now
    while deadline.by > clock.now:
        clock.now += 4
        deadline.extend()
    assert deadline.by == begin + 20
    with pytest.raises(TimeoutError, match=r"within 20 s \(connect_timeout is 5 s, and was extended while the broker"):
        deadline.left()


def test_another_operation_has_a_time_of_its_own(clock: Clock) -> None:
    deadline = Deadline(5)
    clock.now += 10
    deadline.allow(1)
    assert deadline.left() == 1
    clock.now += 1
    with pytest.raises(TimeoutError, match="the broker did not answer in time"):
        deadline.left()


@pytest.mark.parametrize("seconds", [float("inf"), 1e300])
def test_no_deadline_is_too_long_for_a_socket(seconds: float, pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].settimeout(Deadline(seconds).left())


def test_a_cancel_ends_a_read(pair: tuple[socket.socket, socket.socket]) -> None:
    deadline = Deadline(5)
    deadline.watch(pair[0])
    deadline.cancel()
    assert pair[0].recv(1) == b""
    with pytest.raises(ConnectionAbortedError):
        deadline.left()


def test_a_socket_that_comes_after_the_cancel_is_not_used(pair: tuple[socket.socket, socket.socket]) -> None:
    deadline = Deadline(5)
    deadline.cancel()
    with pytest.raises(ConnectionAbortedError):
        deadline.watch(pair[0])


def test_a_socket_that_was_closed_is_left_alone(pair: tuple[socket.socket, socket.socket]) -> None:
    deadline = Deadline(5)
    deadline.watch(pair[0])
    deadline.watch(None)
    deadline.cancel()
    pair[1].send(b"x")
    assert pair[0].recv(1) == b"x"
