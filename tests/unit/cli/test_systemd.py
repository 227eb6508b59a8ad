"""What systemd is told, over a socket as it makes it."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from jsonrpc_amqp import Health
from jsonrpc_amqp.cli.systemd import is_notified, notified

READY, AWAY = Health(), Health(("there is no\nconnection",))
DEAD, DRAINS = Health(("stuck",), is_alive=False), Health(("the server drains",), is_ending=True)


class Systemd:
    """Its side of the socket."""

    def __init__(self, address: str) -> None:
        self.environment = {"NOTIFY_SOCKET": address}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(10)

    def next(self) -> list[str]:
        return self._socket.recv(10_000).decode().split("\n")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    monkeypatch.setattr("jsonrpc_amqp.cli.systemd._LOOK_SECONDS", 0.002)
    made = Systemd(str(tmp_path / "notify") if request.param == "path" else f"@test-{secrets.token_hex(8)}")
    yield made
    made.close()


def test_it_is_told_when_it_is_ready_and_when_it_ends(systemd: Systemd) -> None:
    health = [AWAY]
    with notified(lambda: health[0], systemd.environment):
        assert systemd.next() == ["STATUS=there is no connection"]
        health[0] = READY
        assert systemd.next() == ["READY=1", "STATUS=serving"]
        health[0] = DRAINS
        assert systemd.next() == ["STOPPING=1", "STATUS=the server drains"]


def test_the_end_of_the_block_is_the_end(systemd: Systemd) -> None:
    with notified(lambda: READY, systemd.environment):
        assert systemd.next() == ["READY=1", "STATUS=serving"]
    assert systemd.next() == ["STOPPING=1"]


def test_the_watchdog_is_fed_while_the_program_is_alive(systemd: Systemd) -> None:
    systemd.environment |= {"WATCHDOG_USEC": "3000", "WATCHDOG_PID": str(os.getpid())}
    health = [READY]
    with notified(lambda: health[0], systemd.environment):
        assert systemd.next() == ["READY=1", "WATCHDOG=1", "STATUS=serving"]
        assert systemd.next() == ["WATCHDOG=1"]
        health[0] = DEAD
        while (told := systemd.next()) == ["WATCHDOG=1"]:
            pass
        assert told == ["STATUS=stuck"]
    assert systemd.next() == ["STOPPING=1"]  # and no WATCHDOG=1 before it


@pytest.mark.parametrize(
    "odd", [{"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}]
)
def test_a_watchdog_that_is_not_for_this_process(systemd: Systemd, odd: dict[str, str]) -> None:
    with notified(lambda: READY, systemd.environment | odd):
        assert systemd.next() == ["READY=1", "STATUS=serving"]


def test_where_it_does_not_ask_nothing_is_told() -> None:
    assert not is_notified({})
    with notified(lambda: pytest.fail("it is not asked"), {}):
        pass


def test_a_socket_that_is_gone_is_told_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with notified(lambda: READY, {"NOTIFY_SOCKET": str(tmp_path / "gone")}):
        pass
    assert "systemd cannot be told 'READY=1'" in caplog.text
