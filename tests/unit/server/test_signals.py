"""SIGTERM and SIGINT drain at first."""

from __future__ import annotations

import signal
import threading

import pytest

from jsonrpc_amqp.server.signals import DrainOnSignal

from ...exhausted import NoThread


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains_on_another_thread_and_the_second_has_its_default_effect(number: int) -> None:
    drained: list[threading.Thread] = []
    done = threading.Event()

    def drain() -> None:
        drained.append(threading.current_thread())
        done.set()

    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with DrainOnSignal(drain):
        signal.raise_signal(number)
        assert done.wait(10)
        assert {signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)} == {signal.SIG_DFL}
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
    assert len(drained) == 1
    assert drained[0] is not threading.main_thread()


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
