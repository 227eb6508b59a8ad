"""``jsonrpc-amqp serve --health-port``: what an orchestrator sees of one process, and of several workers."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jsonrpc_amqp.cli import USAGE_ERROR

from ...broker import Broker, free_ports
from ...cli_tools import one_line
from ...command import PATIENCE, Program, run, running
from ...http_tools import request
from ...tools import wait_for

HEARTBEAT = 2


@pytest.fixture
def port() -> int:
    [port] = free_ports(1)
    return port


def probe(port: int, path: str) -> tuple[int, Any]:
    with suppress(ConnectionRefusedError):
        reply = request(port, "GET", path)
        return reply.status, reply.json["problems"]
    return 0, []


def becomes(program: Program, port: int, path: str, status: int, text: str = "") -> None:
    def is_so() -> bool:
        told, problems = probe(port, path)
        return told == status and text in " ".join(problems)

    wait_for(is_so, PATIENCE, told=lambda: f"{probe(port, path)}\n{program.output}")


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one", "workers"])
def test_a_broker_that_goes_freezes_and_comes_back(
    fragile: Broker, service: str, port: int, workers: list[str]
) -> None:
    url = f"{fragile.url}?heartbeat={HEARTBEAT}"
    words = ["serve", "tests.served:methods", "--service", service, "--health-port", str(port), *workers]
    with running(*words, url=url) as program:
        becomes(program, port, "/readyz", 200)
        fragile.freeze()
        try:
            becomes(program, port, "/readyz", 503, "the broker has been silent for longer than a heartbeat")
            assert probe(port, "/livez")[0] == 200
        finally:
            fragile.thaw()
        becomes(program, port, "/readyz", 200)
        fragile.kill()
        becomes(program, port, "/readyz", 503, "there is no connection to the broker")
        assert probe(port, "/livez")[0] == 200
        fragile.restart()
        becomes(program, port, "/readyz", 200)
        assert program.terminate() == 0
    assert probe(port, "/livez")[0] == 0


def test_a_broker_that_is_not_there_at_the_start(nowhere: str, port: int) -> None:
    with running("serve", "tests.served:methods", "--service", "s", "--health-port", str(port), url=nowhere) as program:
        becomes(program, port, "/readyz", 503, "there is no connection to the broker: ")
        assert probe(port, "/livez")[0] == 200
        assert program.terminate() == 0


def test_workers_that_stand_still(url: str, service: str, port: int) -> None:
    words = ["--service", service, "--health-port", str(port), "--workers", "1"]
    with running("serve", "tests.served:methods", *words, url=url) as program:
        becomes(program, port, "/readyz", 200)
        program.wait_until_said("worker 1 is process ")
        pid = int(program.output.partition("worker 1 is process ")[2].split()[0])
        os.kill(pid, signal.SIGSTOP)
        try:
            becomes(program, port, "/livez", 503, "worker 1 has told nothing for ")
        finally:
            os.kill(pid, signal.SIGCONT)
        becomes(program, port, "/readyz", 200)
        assert program.terminate() == 0


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one", "workers"])
def test_systemd_is_told(url: str, service: str, tmp_path: Path, workers: list[str]) -> None:
    address = str(tmp_path / "notify")
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(PATIENCE)
        words = ["serve", "tests.served:methods", "--service", service, *workers]
        with running(*words, url=url, env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"}) as program:
            while "READY=1" not in told:
                told += systemd.recv(10_000).decode().split("\n")
            assert "WATCHDOG=1" in told
            assert program.terminate() == 0
            while "STOPPING=1" not in told:
                told += systemd.recv(10_000).decode().split("\n")
    assert told.count("READY=1") == told.count("STOPPING=1") == 1


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one", "workers"])
def test_a_port_that_is_taken(url: str, workers: list[str]) -> None:
    with socket.create_server(("", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("serve", "tests.served:methods", "--service", "s", "--health-port", port, *workers, url=url)
    assert done.returncode == USAGE_ERROR
    assert f"--health-port {port}: " in one_line(done.stderr)
