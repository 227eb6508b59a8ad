"""A worker's side of the pipes that it shares with the supervisor."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from jsonrpc_amqp.server.worker import DRAINED, SERVING, Parent

from ...tools import wait_for


class Pipes:
    def __init__(self) -> None:
        self.lifeline, self.parent_end = os.pipe()
        self.status, self.worker_status = os.pipe()
        self.open = {self.lifeline, self.parent_end, self.status, self.worker_status}

    def close(self, *descriptors: int) -> None:
        for descriptor in descriptors:
            self.open.remove(descriptor)
            os.close(descriptor)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    pipes.close(*pipes.open - {pipes.lifeline})
    wait_for(lambda: not any(thread.name == "lifeline" for thread in threading.enumerate()))
    os.close(pipes.lifeline)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exit codes with which the process would have ended."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def test_it_tells_the_parent_one_line_each(pipes: Pipes, ended: list[int]) -> None:
    parent = Parent(7, pipes.lifeline, pipes.worker_status)
    parent.tell(SERVING)
    parent.tell(DRAINED)
    assert os.read(pipes.status, 100) == b"serving 7\ndrained 7\n"


def test_a_parent_that_is_gone_is_told_nothing(pipes: Pipes, ended: list[int]) -> None:
    parent = Parent(7, pipes.lifeline, pipes.worker_status)
    pipes.close(pipes.status)
    parent.tell(SERVING)


def test_programs_that_it_starts_do_not_inherit_the_pipes(pipes: Pipes, ended: list[int]) -> None:
    for descriptor in (pipes.lifeline, pipes.worker_status):
        os.set_inheritable(descriptor, True)
    Parent(7, pipes.lifeline, pipes.worker_status)
    assert not os.get_inheritable(pipes.lifeline)
    assert not os.get_inheritable(pipes.worker_status)


def test_it_ends_with_the_parent_before_it_serves(pipes: Pipes, ended: list[int]) -> None:
    Parent(7, pipes.lifeline, pipes.worker_status)
    pipes.close(pipes.parent_end)
    wait_for(lambda: ended == [0])


def test_it_drains_when_the_parent_is_gone(pipes: Pipes, ended: list[int]) -> None:
    drained: list[threading.Thread] = []
    Parent(7, pipes.lifeline, pipes.worker_status).drain_with(lambda: drained.append(threading.current_thread()))
    pipes.close(pipes.parent_end)
    wait_for(lambda: drained)
    assert drained[0] is not threading.main_thread()
    assert ended == []
