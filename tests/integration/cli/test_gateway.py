"""``jsonrpc-amqp gateway`` without a broker: wrong usage, its socket, its defaults."""

from __future__ import annotations

import inspect
import socket
import time
from http.client import HTTPConnection

import pytest

from jsonrpc_amqp import NOT_DELIVERED
from jsonrpc_amqp.cli.gateway import command, listening_socket, named
from jsonrpc_amqp.http.gateway import Gateway

from ...broker import HOST
from ...gateway_tools import ECHO, check_error, post
from ...http_tools import free_port, gateway, request
from .conftest import Invoke


def test_before_there_is_a_broker() -> None:
    with gateway("--allow", "gated", url=f"amqp://guest:sentinel-7f3a@{HOST}:{free_port()}") as (program, port):
        assert request(port, "GET", "/healthz").status == 503
        check_error(post(port, ECHO, prefer="wait=1"), 503, NOT_DELIVERED, "a.b", may_have_run=False)
        assert program.terminate() == 0
        assert "sentinel-7f3a" not in program.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--listen", "8080"], "HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "HOST:PORT"),
        (["--listen", "192.0.2.1:80"], "cannot listen"),
        (["--allow", "a..b"], "a..b"),
        (["--allow-host", "example.com:80"], "without a port"),
        (["--allow-origin", "example.com"], "https://example.com"),
        (["--timeout", "-1"], "seconds"),
        (["--url", "http://host"], "amqp"),
        (["--server-user", ""], "users are one name or several"),
    ],
)
def test_wrong_usage(invoke: Invoke, words: list[str], message: str) -> None:
    done = invoke("gateway", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_taken(invoke: Invoke) -> None:
    with socket.create_server((HOST, 0)) as taken:
        done = invoke("gateway", "--listen", f"{HOST}:{taken.getsockname()[1]}")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "Address already in use" in done.stderr


def test_answers_are_not_held_back() -> None:
    with listening_socket(HOST, 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_caller_whose_host_is_gone_is_noticed() -> None:
    with listening_socket(HOST, 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
            idle, interval, count = (accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names)
            assert idle + interval * count <= 60


def test_the_host_that_it_listens_at_is_allowed() -> None:
    assert named("gateway.example") == ["gateway.example"]
    assert named("127.0.0.1") == named("::1") == []


def test_unused_connections_are_kept_longer_than_proxies_keep_them() -> None:
    (default,) = (each.default for each in command.params if each.name == "keep_alive")
    assert isinstance(default, float)
    assert default > 120
    nowhere = f"amqp://{HOST}:{free_port()}"
    with gateway("--allow", "s", "--keep-alive", "6", url=nowhere) as (_program, port):
        connection = HTTPConnection(HOST, port, timeout=30)
        for pause in (0.0, 5.5, 7.0):  # uvicorn's own time is 5 s
            time.sleep(pause)
            if pause > 6:
                assert connection.sock.recv(1) == b""
            else:
                connection.request("GET", "/s")
                assert connection.getresponse().read()
        connection.close()


def test_defaults_are_those_of_the_application() -> None:
    options = {parameter.name: parameter.default for parameter in command.params}
    for name, parameter in inspect.signature(Gateway).parameters.items():
        if name in ("timeout", "max_wait", "max_size", "max_in_flight"):
            assert options[name] == parameter.default, name
