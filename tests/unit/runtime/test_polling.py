"""Sleeping until a descriptor is ready, with ``poll`` and without."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from jsonrpc_amqp.runtime.polling import POLLIN, POLLOUT, SelectPoll, Waker, new_poll

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair()
    yield near, far
    near.close()
    far.close()


def test_the_constants_are_those_of_the_system() -> None:
    assert (POLLIN, POLLOUT) == (select.POLLIN, select.POLLOUT)


def test_without_poll_there_is_select(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not isinstance(new_poll(), SelectPoll)
    monkeypatch.delattr(select, "poll")
    assert isinstance(new_poll(), SelectPoll)


def test_waker_works_without_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "poll")
    waker = Waker()
    assert not waker.wait(0)
    waker.wake()
    assert waker.wait(10)
    waker.clear()
    assert not waker.wait(0)
    waker.close()


def test_select_reports_what_poll_would(pair: Pair) -> None:
    near, far = pair
    poll = SelectPoll()
    poll.register(near.fileno(), POLLIN)
    assert poll.poll(0) == []
    far.send(b"x")
    assert poll.poll(10_000) == [(near.fileno(), POLLIN)]
    poll.register(near.fileno(), POLLIN | POLLOUT)
    assert poll.poll(10_000) == [(near.fileno(), POLLIN | POLLOUT)]
    poll.register(near.fileno(), POLLOUT)
    assert poll.poll(10_000) == [(near.fileno(), POLLOUT)]
    poll.unregister(near.fileno())
    assert poll.poll(0) == []
    with pytest.raises(KeyError):
        poll.unregister(near.fileno())


def test_a_descriptor_that_was_closed_is_an_event(pair: Pair) -> None:
    near, _far = pair
    poll = SelectPoll()
    poll.register(near.fileno(), POLLIN)
    number = near.fileno()
    near.close()
    assert poll.poll(10_000) == [(number, POLLIN)]


def test_a_descriptor_that_is_too_high_for_select_is_refused_with_what_to_do() -> None:
    with pytest.raises(OSError, match=r"select\.poll\(\).*eventlet"):
        SelectPoll().register(1024, POLLIN)


def test_waker_that_cannot_be_watched_holds_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def register(self, fd: int, events: int, /) -> None:
            raise OSError("too many")

    made: list[socket.socket] = []
    socketpair = socket.socketpair

    def note() -> Pair:
        made.extend(socketpair())
        return made[0], made[1]

    monkeypatch.setattr(socket, "socketpair", note)
    monkeypatch.setattr("jsonrpc_amqp.runtime.polling.new_poll", Full)
    with pytest.raises(OSError, match="too many"):
        Waker()
    assert [end.fileno() for end in made] == [-1, -1]
