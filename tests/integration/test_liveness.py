"""What becomes of a connection whose process stood still: it is kept where the broker kept it, and the log says why."""

from __future__ import annotations

import ctypes
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jsonrpc_amqp import Client, ConnectionLost, Server

from ..broker import Broker, thread_states
from ..tools import wait_for

ROOT = Path(__file__).parents[2]
# A function of a PyDLL keeps the interpreter lock while it runs.
HOLD = ctypes.PyDLL(None).sleep
STOOD_STILL = "this process or its I/O thread stood still for "

SERVER = """
import ctypes, json, logging, sys
from jsonrpc_amqp import Server, current_request
from jsonrpc_amqp.amqp import session

url, service, heartbeat, believed = sys.argv[1:]
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
Heartbeat = session.Heartbeat
session.Heartbeat = lambda agreed, now: Heartbeat(float(believed), now)
server = Server(url, service, heartbeat=float(heartbeat))

@server.method
def hold(seconds):
    "Keeps the interpreter lock, the first time."
    if not current_request().redelivered:
        ctypes.PyDLL(None).sleep(seconds)
    return current_request().redelivered

@server.method
def echo(value):
    return value

server.serve_forever()
print("stats", json.dumps(server.stats()), flush=True)
"""


class Process:
    """
    A process that serves.

    Args:
        heartbeat: Seconds, as agreed with the broker.
        believed: Seconds, as its session believes.
    """

    def __init__(self, broker: Broker, service: str, output: Path, *, heartbeat: int, believed: int) -> None:
        self._output = output
        command = [sys.executable, "-W", "error", "-c", SERVER, broker.url, service, str(heartbeat), str(believed)]
        with output.open("wb") as file:
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file)
        wait_for(lambda: "serving" in self.log, 20)

    @property
    def log(self) -> str:
        return self._output.read_text()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        if number == signal.SIGSTOP:
            # It takes effect when each thread would run next.
            wait_for(lambda: set(thread_states(self._process.pid)) == {"T"}, 20)

    def stop(self) -> dict[str, int]:
        """Have it drain and end; return its counters."""
        self.send(signal.SIGTERM)
        self._process.wait(30)
        stats: dict[str, int] = json.loads(self.log.rpartition("stats ")[2])
        return stats

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


Start = Callable[..., Process]


@pytest.fixture
def start(broker: Broker, service: str, tmp_path: Path) -> Iterator[Start]:
    started: list[Process] = []

    def start(heartbeat: int, believed: int) -> Process:
        started.append(Process(broker, service, tmp_path / "output", heartbeat=heartbeat, believed=believed))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def blames_the_broker(log: str) -> list[str]:
    return [line for line in log.splitlines() if re.match("the (broker at|connection to)", line)]


@pytest.mark.parametrize("how", ["interpreter lock", "SIGSTOP"])
def test_a_server_that_missed_its_heartbeats_says_so(start: Start, broker: Broker, service: str, how: str) -> None:
    process = start(heartbeat=1, believed=1)
    with Client(broker.url, service, timeout=40) as client:
        if how == "SIGSTOP":
            process.send(signal.SIGSTOP)
            time.sleep(6)
            process.send(signal.SIGCONT)
        else:
            assert client.call("hold", [6]) is True  # redelivered
        assert client.call("echo", [1]) == 1
        wait_for(lambda: STOOD_STILL in process.log)
    stats = process.stop()
    assert stats["connections"] >= 2
    assert blames_the_broker(process.log) == []
    # The time is counted from when its next heartbeat was due.
    assert max(map(float, re.findall(f"{STOOD_STILL}([0-9.]+) s", process.log))) > 5


def test_a_connection_is_kept_that_the_broker_has_kept(start: Start, broker: Broker, service: str) -> None:
    # The broker is more patient than the server believes, as it is for some time after two heartbeats.
    process = start(heartbeat=60, believed=3)
    with Client(broker.url, service, timeout=40) as client:
        assert client.call("echo", [1]) == 1
        process.send(signal.SIGSTOP)
        echoes = [client.submit("echo", [number]) for number in range(10)]
        time.sleep(8)
        process.send(signal.SIGCONT)
        assert [echo.result(30) for echo in echoes] == list(range(10))
        wait_for(lambda: STOOD_STILL in process.log)
        assert client.call("echo", [2]) == 2
    stats = process.stop()
    assert (stats["connections"], stats["redelivered"], stats["dropped_replies"]) == (1, 0, 0), process.log


def test_a_client_whose_process_stood_still(url: str, service: str, caplog: pytest.LogCaptureFixture) -> None:
    methods = {"nap": time.sleep}
    with Server(url, service, methods=methods, heartbeat=60), Client(url, service, heartbeat=1, timeout=30) as client:
        client.call("nap", [0])
        lost = client.submit("nap", [7])
        HOLD(6)
        # It may be sent while the end of the connection is behind what is being read; then it is lost as well.
        assert client.call("nap", [0], retry="idempotent") is None
        error = lost.exception(20)
        assert isinstance(error, ConnectionLost)
        assert STOOD_STILL in str(error)
        assert error.may_have_run
    assert STOOD_STILL in caplog.text
    assert blames_the_broker(caplog.text) == []
