"""SIGTERM, SIGINT and SIGHUP drain at first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from jsonrpc_amqp.server import signals
from jsonrpc_amqp.server.signals import DrainOnSignal

from ...exhausted import NoThread
from ...tools import wait_for

ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
INSISTENT = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ALL}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", INSISTENT)
def test_the_first_signal_drains_on_another_thread_and_the_second_has_its_default_effect(number: int) -> None:
    drained: list[threading.Thread] = []
    before = [signal.getsignal(each) for each in ALL]
    with DrainOnSignal(lambda: drained.append(threading.current_thread())):
        signal.raise_signal(number)
        wait_for(lambda: drained)
        assert {signal.getsignal(each) for each in INSISTENT} == {signal.SIG_DFL}
        signal.raise_signal(signal.SIGHUP)
    assert [signal.getsignal(each) for each in ALL] == before
    assert len(drained) == 1
    assert drained[0] is not threading.main_thread()


def test_a_hangup_drains_and_does_not_count_as_a_first_signal() -> None:
    drained: list[threading.Thread] = []
    with DrainOnSignal(lambda: drained.append(threading.current_thread())):
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(number)
        wait_for(lambda: drained)
        assert {signal.getsignal(each) for each in INSISTENT} == {signal.SIG_DFL}
    assert len(drained) == 1


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with DrainOnSignal(lambda: None):
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_the_second_signal_ends_process_1_which_has_no_default_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    end_by: Callable[..., object] = signals.end_by
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with DrainOnSignal(lambda: None):
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is end_by
        monkeypatch.setattr(signal, "raise_signal", lambda _number: None)  # as the kernel does there
        monkeypatch.setattr(os, "_exit", ended.append)
        end_by(signal.SIGTERM, None)
    assert ended == [128 + signal.SIGTERM]


def test_another_thread_sets_no_handlers() -> None:
    seen: list[bool] = []
    before = signal.getsignal(signal.SIGTERM)

    def enter() -> None:
        with DrainOnSignal(lambda: None):
            seen.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(10)
    assert seen == [True]


def test_a_signal_without_a_thread_to_drain_on_ends_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    ran: list[str] = []
    with monkeypatch.context() as patch:
        NoThread(patch)
        with DrainOnSignal(lambda: ran.append("drain")):
            try:
                signal.raise_signal(signal.SIGTERM)
                ran.append("went on")
            finally:
                ran.append("stop")
    assert ran == ["stop"]
    assert signal.getsignal(signal.SIGTERM) is before
