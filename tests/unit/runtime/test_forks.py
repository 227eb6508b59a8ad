"""What a forked process does with the descriptors of its parent."""

from __future__ import annotations

import os
import socket
import warnings

import pytest

from jsonrpc_amqp.runtime.forks import close_when_forked
from jsonrpc_amqp.runtime.polling import Waker


class Owner:
    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        close_when_forked(self)

    def close_in_child(self) -> None:
        self.near.close()


def child_exits_with(status: int) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(status)
    return pid


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # about a fork with threads
def test_child_closes_its_copy_and_the_parent_keeps_its_own() -> None:
    owner = Owner()
    child = os.fork()
    if child == 0:
        with warnings.catch_warnings():
            os._exit(0 if owner.near.fileno() == -1 and owner.far.fileno() != -1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    owner.near.send(b"x")
    assert owner.far.recv(1) == b"x"
    owner.near.close()
    owner.far.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wakers_of_the_parent_are_closed_in_the_child_and_woken_by_it_no_more() -> None:
    waker = Waker()
    child = os.fork()
    if child == 0:
        closed = waker.fileno() == -1
        waker.wake()
        os._exit(0 if closed else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not waker.wait(0)
    waker.wake()
    assert waker.wait(0)
    waker.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_owner_that_is_gone_is_forgotten() -> None:
    owner = Owner()
    owner.near.close()
    owner.far.close()
    del owner
    pid = child_exits_with(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
