"""Who waits, and who tries, while a server cannot be reached."""

from __future__ import annotations

import math
import threading
import time

import pytest

from jsonrpc_amqp.http import outage
from jsonrpc_amqp.http.outage import Outage


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Outage:
    monkeypatch.setattr(outage, "_SHORTEST", 0.001)
    return Outage("here", uniform=lambda least, most: most)


def always() -> bool:
    return True


def never() -> bool:
    return False


def test_nothing_waits_while_it_can_be_reached(here: Outage) -> None:
    assert here.admit(0.0, never) == 0
    here.reached()
    assert here.count == 0


def test_pauses_double(here: Outage, caplog: pytest.LogCaptureFixture) -> None:
    for attempt in range(4):
        assert here.admit(math.inf, always) == attempt
        here.failed(attempt, "refused")
    pauses = [record.args[2] for record in caplog.records if isinstance(record.args, tuple)]
    assert pauses == [0.001, 0.002, 0.004, 0.008]
    assert caplog.messages[0] == "here: refused; requests wait, next attempt in 0.0 s"
    assert here.count == 1


def test_attempts_that_began_before_it_count_once(here: Outage) -> None:
    attempts = [here.admit(math.inf, always) for _ in range(5)]
    assert attempts == [0] * 5
    for _ in attempts:
        here.failed(0, "refused")
    assert here.admit(math.inf, always) == 1
    assert here.count == 1


def test_one_at_a_time_tries(here: Outage) -> None:
    here.failed(0, "refused")
    assert here.admit(math.inf, always) == 1
    assert here.admit(time.monotonic() + 0.005, always) is None
    assert here.admit(math.inf, never) is None


def test_all_go_on_when_it_is_reached(here: Outage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    here.failed(0, "refused")
    assert here.admit(math.inf, always) == 1
    admitted: list[int | None] = []
    threads = [threading.Thread(target=lambda: admitted.append(here.admit(math.inf, always))) for _ in range(3)]
    for thread in threads:
        thread.start()
    here.reached()
    here.reached()
    for thread in threads:
        thread.join(10)
    assert admitted == [0, 0, 0]
    [message] = [message for message in caplog.messages if "reached again" in message]
    assert message.endswith(" s and 1 attempts")


def test_another_outage_is_another_one(here: Outage) -> None:
    for _ in range(2):
        here.failed(0, "refused")
        assert here.admit(math.inf, always) == 1
        here.reached()
    assert here.count == 2
