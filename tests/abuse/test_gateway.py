"""A live gateway, and HTTP requests that would take its memory, while another caller calls it all the time."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from jsonrpc_amqp import Server

from ..broker import HOST, Broker
from ..gateway_tools import ECHO, post, request_to
from ..http_tools import gateway
from .health import FREED, Patient
from .neighbour import Neighbour, Visits

SERVICE = "abused.gateway"
MEGABYTES = 90
BEGIN = f"POST /{SERVICE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
CHUNKED = BEGIN + b"Transfer-Encoding: chunked\r\n\r\n"
LONG = b"X: " + b"x" * 99_995 + b"\r\n"
CALL = request_to(SERVICE, json.dumps(ECHO).encode())

# The begin of what is sent over a connection; what follows it, again and again; over how many connections.
CASES: dict[str, tuple[bytes, bytes, int]] = {
    "headers": (BEGIN, LONG, 1),
    "a header": (BEGIN + b"X: ", b"x" * 100_000, 1),
    "short headers": (BEGIN, b"X:\r\n" * 25_000, 1),
    "a request line": (b"POST /", b"x" * 100_000, 1),
    "a query": (f"POST /{SERVICE}?".encode(), b"x" * 100_000, 1),
    "trailers": (CHUNKED + b"1\r\n{\r\n0\r\n", LONG, 1),
    "an extension of a chunk": (CHUNKED + b"1;", b"x" * 100_000, 1),
    "a body of chunks": (CHUNKED, b"186a0\r\n" + b" " * 100_000 + b"\r\n", 1),
    "requests for services that are not served": (b"", b"POST /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n" * 2000, 1),
    "calls, one behind the other": (b"", CALL * 500, 1),
    "empty lines": (b"", b"\r\n" * 50_000, 1),
    "a header, over many connections": (BEGIN + b"X: ", b"x" * 100_000, 100),
}


@pytest.fixture(scope="module")
def patient(broker: Broker) -> Iterator[tuple[Patient, int]]:
    methods: dict[str, Any] = {"echo": lambda value: value, "visit": Visits()}
    with (
        Server(broker.url, SERVICE, methods=methods),
        gateway("--allow", SERVICE, url=broker.url, env=FREED) as (program, port),
    ):

        def call(method: str, *params: Any) -> Any:
            body = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
            return post(port, body, f"/{SERVICE}").json["result"]

        with Neighbour(lambda name, number: call("visit", name, number)) as neighbour:
            patient = Patient(program.pid, lambda: call("echo", 1), neighbour.report)
            for _ in range(50):
                patient.call()
            yield patient, port
            neighbour.check()
        assert program.terminate() == 0
        assert "Traceback" not in program.output


@pytest.mark.parametrize("name", CASES)
def test_gateway(patient: tuple[Patient, int], name: str) -> None:
    examined, port = patient
    begin, more, connections = CASES[name]

    def abuse() -> None:
        with ExitStack() as stack:
            for _ in range(connections):
                sock = stack.enter_context(socket.create_connection((HOST, port), 60))
                with suppress(OSError):
                    sock.sendall(begin)
                    for _ in range(MEGABYTES * 1_000_000 // max(len(more), 100_000) // connections):
                        sock.sendall(more)
            # While the connections are still there.
            examined.call()

    examined.examine(name, abuse)
