"""SIGTERM and SIGINT drain at first."""

from __future__ import annotations

import signal
import threading

import pytest

from jsonrpc_amqp.server.signals import DrainOnSignal


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
