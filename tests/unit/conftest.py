"""Unit tests run without a broker, without a network and without waiting: what needs these fails here."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from hypothesis import settings

LONGEST_SLEEP = 0.01

# The limit of 200 ms for one example measures how busy the machine is.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")

_sleep = time.sleep
_connects: dict[str, Callable[..., Any]] = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}


def _sleep_shortly(seconds: float) -> None:
    if seconds > LONGEST_SLEEP:
        pytest.fail(f"a unit test slept {seconds:g} s: wait for an event, or move the test to tests/integration")
    _sleep(seconds)


def _local_only(name: str) -> Callable[..., Any]:
    def connect(sock: socket.socket, address: Any) -> Any:
        # asyncio's self-pipe and socket.socketpair() are local sockets.
        if sock.family != socket.AF_UNIX:
            pytest.fail(f"a unit test connected to {address}: move the test to tests/integration")
        return _connects[name](sock, address)

    return connect


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail tests that sleep longer than 10 ms, and those that open a network connection."""
    monkeypatch.setattr(time, "sleep", _sleep_shortly)
    for name in _connects:
        monkeypatch.setattr(socket.socket, name, _local_only(name))


@pytest.fixture(scope="session")
def broker() -> NoReturn:
    """Fail, in place of the fixture of all other tests; ``url`` depends on it."""
    pytest.fail("unit tests run without a broker: move the test to tests/integration")


@pytest.fixture
def second_broker(broker: NoReturn) -> None:
    """As ``broker``."""


@pytest.fixture
def fragile(broker: NoReturn) -> None:
    """As ``broker``."""
