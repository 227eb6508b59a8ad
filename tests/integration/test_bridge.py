"""``jsonrpc-amqp bridge`` and what it stands on: a service that a JSON-RPC server over HTTP answers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jsonrpc_amqp import (
    NO_ANSWER,
    NOT_DELIVERED,
    Client,
    DeadLetters,
    InternalError,
    InvalidParams,
    MethodNotFound,
    ServerError,
)

from ..bridged import CALL, NOTIFICATION, ZERO, Bridged, always
from ..broker import Broker
from ..http_tools import RawServer, bridge, free_port, ok, pelix
from ..tools import wait_for

# -- the recipe's own test: AMQP -> JSON-RPC -> AMQP ------------------------------------------------------


@pytest.fixture(scope="module")
def http_port() -> Iterator[int]:
    port = free_port()
    with pelix(port):
        yield port


@pytest.fixture(scope="module")
def bridged(broker: Broker, http_port: int) -> Iterator[str]:
    """Name a service that jsonrpclib-pelix serves behind a bridge."""
    with bridge("bridged", f"http://127.0.0.1:{http_port}/", url=broker.url):
        yield "bridged"


@pytest.mark.parametrize("reply", ["topic", "direct"])
def test_every_form_of_a_call(url: str, bridged: str, reply: Any) -> None:
    with Client(url, bridged, reply=reply, timeout=10) as client:
        assert client.call("subtract", [42, 23]) == 19
        assert client.call("subtract", {"subtrahend": 23, "minuend": 42}) == 19
        assert client.call("echo", ["ü 中 😀"]) == "ü 中 😀"
        with pytest.raises(MethodNotFound):
            client.call("absent")
        with pytest.raises(InvalidParams):
            client.call("subtract", [1])
        with pytest.raises(InternalError) as failed:
            client.call("fail")
        assert "stays here" not in str(failed.value)
        client.notify("tell", [f"{reply} alone"])
        wait_for(lambda: f"{reply} alone" in client.call("was_told"))
        with client.batch() as batch:
            nineteen, missing = batch.call("subtract", [42, 23]), batch.call("absent")
            batch.notify("tell", [f"{reply} in a batch"])
        assert nineteen.result() == 19
        assert isinstance(missing.exception(), MethodNotFound)
        assert f"{reply} in a batch" in client.call("was_told")
        assert b"-32700" in (client.send_raw(b'{"jsonrpc": "2.0", "method"') or b"")


def test_the_http_server_is_killed_and_restarted(url: str, service: str) -> None:
    port = free_port()
    # So many connections at a time fit into its backlog.
    few = ["--concurrency", "4"]
    with bridge(service, f"http://127.0.0.1:{port}/", *few, url=url), Client(url, service, timeout=10) as client:
        with pytest.raises(ServerError) as unreached:
            client.call("whoami", timeout=2)
        assert (unreached.value.code, unreached.value.data) == (NOT_DELIVERED, {"may_have_run": False})
        with pelix(port) as first:
            assert client.call("whoami") == first.pid
            lost = client.submit("sleep", [60])
            first.wait_until_said("asleep")
            os.kill(first.pid, signal.SIGKILL)
            error = lost.exception(10)
            assert isinstance(error, ServerError)
            assert (error.code, error.data) == (NO_ANSWER, {"may_have_run": True})
        with pytest.raises(ServerError, match="cannot be reached: Connection refused"):
            client.call("whoami", timeout=2)
        waiting = client.submit("whoami")
        with pelix(port) as second:
            assert waiting.result(20) == client.call("whoami") == second.pid != first.pid
            assert [each.result(10) for each in [client.submit("echo", [n]) for n in range(100)]] == list(range(100))


def test_sigterm_answers_what_runs(url: str, service: str) -> None:
    port = free_port()
    with (
        pelix(port) as server,
        bridge(service, f"http://127.0.0.1:{port}/", url=url) as program,
        Client(url, service, timeout=10) as client,
    ):
        answer = client.submit("sleep", [0.5])
        server.wait_until_said("asleep")
        assert program.terminate() == 0
        assert answer.result(10) == 0.5
        assert "Traceback" not in program.output


# -- dead letters -----------------------------------------------------------------------------------------


def test_a_notification_that_is_lost_becomes_a_dead_letter(url: str, service: str) -> None:
    with Bridged(url, service, dead_letters=True) as bridged, DeadLetters(url, service) as dead:
        bridged.answer = always(ok(b"ignored"))
        assert bridged.ask(NOTIFICATION) is None
        wait_for(lambda: bridged.bridge.stats()["answered"] == 1)
        bridged.answer = always(ok(b"", "503 Busy"))
        assert bridged.ask(NOTIFICATION) is None
        wait_for(lambda: len(dead.list()) == 1)
        assert dead.list()[0].body == NOTIFICATION
        assert bridged.bridge.stats() == ZERO | {"answered": 1, "failed": 1, "lost_notifications": 1}


# -- headers ----------------------------------------------------------------------------------------------

SECRET = "sentinel-7f3a"


def test_headers_from_a_file(url: str, service: str, tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text(f"Authorization: Bearer {SECRET}\n\nX-Tenant: 7\n")
    with (
        RawServer(always(ok(b'{"jsonrpc": "2.0", "result": 1, "id": "a.b"}'))) as http,
        bridge(service, http.url, "--header", f"@{file}", url=url) as program,
        Client(url, service, timeout=10) as client,
    ):
        assert client.send_raw(CALL) is not None
        lines = http.asked[0].head.splitlines()
        assert f"Authorization: Bearer {SECRET}".encode() in lines
        assert b"X-Tenant: 7" in lines
        assert program.terminate() == 0
        assert SECRET not in program.output
