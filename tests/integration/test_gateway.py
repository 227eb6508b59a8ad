"""``jsonrpc-amqp gateway``: HTTP in front of services; real processes, a real broker, real HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from jsonrpc_amqp import NO_ANSWER, NOT_DELIVERED, Server
from jsonrpc_amqp.cli import NOT_DRAINED

from ..broker import HOST, Broker
from ..command import running
from ..gateway_tools import ECHO, IN_FLIGHT, Methods, check_error, post
from ..http_tools import bridge, free_port, gateway, pelix, request
from ..proxy import Proxy
from ..tools import wait_for


@pytest.fixture(scope="module")
def methods(broker: Broker) -> Iterator[Methods]:
    methods = Methods()
    with Server(broker.url, "gated", methods=methods.all, concurrency=IN_FLIGHT):
        # Leaves a queue without servers.
        with Server(broker.url, "deserted", methods={}):
            pass
        yield methods


@pytest.fixture(scope="module")
def program(broker: Broker, methods: Methods) -> Iterator[tuple[Any, int]]:
    allowed = [word for name in ("gated", "deserted", "never.set-up", "healthz") for word in ("--allow", name)]
    with gateway(*allowed, "--timeout", "5", "--max-size", "100000", url=broker.url) as started:
        yield started


@pytest.fixture
def port(program: tuple[Any, int]) -> int:
    return program[1]


# -- answers ----------------------------------------------------------------------------------------------


def test_a_call(port: int) -> None:
    reply = post(port, ECHO)
    assert (reply.status, reply.json) == (200, {"jsonrpc": "2.0", "result": "ü 中 😀", "id": "a.b"})
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-store"
    assert "server" not in reply.headers


@pytest.mark.parametrize(
    "kind",
    [
        "application/json; charset=UTF-8",
        "Application/JSON",
        "application/json-rpc",
        "application/json; indent=4",
        'application/json; profile="https://a.example/b;c"; charset=utf-8',
        "application/json;",
    ],
)
def test_content_types(port: int, kind: str) -> None:
    assert post(port, ECHO, content_type=kind).status == 200


def test_errors_of_the_method_are_answers(port: int) -> None:
    for method, code in (("absent", -32601), ("echo", -32602), ("fail", -32603)):
        reply = post(port, {"jsonrpc": "2.0", "method": method, "id": 7})
        assert (reply.status, reply.json["error"]["code"], reply.json["id"]) == (200, code, 7)
        assert b"stays here" not in reply.body
    assert post(port, {"method": "echo", "id": 7}).json["error"]["code"] == -32600


def test_a_notification(port: int, methods: Methods) -> None:
    reply = post(port, {"jsonrpc": "2.0", "method": "tell", "params": ["alone"]})
    assert (reply.status, reply.body) == (204, b"")
    wait_for(lambda: "alone" in methods.received)


def test_a_batch(port: int, methods: Methods) -> None:
    batch = [
        {**ECHO, "id": 1},
        {"jsonrpc": "2.0", "method": "tell", "params": ["in a batch"]},
        {"jsonrpc": "2.0", "method": "absent", "id": 2},
        5,
    ]
    reply = post(port, batch)
    assert reply.status == 200
    assert [(each["id"], each.get("error", {}).get("code")) for each in reply.json] == [
        (1, None),
        (2, -32601),
        (None, -32600),
    ]
    assert "in a batch" in methods.received
    assert post(port, [batch[1], batch[1]]).status == 204


def test_as_many_in_flight_as_there_are(port: int, program: tuple[Any, int], methods: Methods) -> None:
    """Each of them waits until all of them run."""

    async def all_at_once() -> list[Any]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def call(number: int) -> Any:
                body = {"jsonrpc": "2.0", "method": "meet", "params": [number], "id": number}
                async with session.post(f"http://{HOST}:{port}/gated", json=body, headers={"Prefer": "wait=20"}) as got:
                    return await got.json()

            return await asyncio.gather(*map(call, range(IN_FLIGHT)))

    answers = asyncio.run(all_at_once())
    assert answers == [{"jsonrpc": "2.0", "result": number, "id": number} for number in range(IN_FLIGHT)]
    (threads,) = re.findall(r"Threads:\s+(\d+)", Path(f"/proc/{program[0].pid}/status").read_text())
    assert int(threads) < 10


# -- every status of failure ------------------------------------------------------------------------------


def test_404(port: int) -> None:
    # Not allowed, though it is there or not; allowed, but never set up; and no service at all.
    for path in ("/jsonrpc", "/gate", "/gated.more", "/GATED", "/*", "/%67ated", "/amq.gen-x"):
        check_error(post(port, ECHO, path), 404, NOT_DELIVERED, may_have_run=False)
    check_error(post(port, ECHO, "/never.set-up"), 404, NOT_DELIVERED, "a.b", may_have_run=False)
    notification = {"jsonrpc": "2.0", "method": "tell", "params": [1]}
    check_error(post(port, notification, "/never.set-up"), 404, NOT_DELIVERED, may_have_run=False)
    batch = post(port, [{**ECHO, "id": 1}, notification, {**ECHO, "id": "b"}], "/never.set-up")
    assert (batch.status, [each["id"] for each in batch.json]) == (404, [1, "b"])
    for path in ("/", "/gated/", "/gated/batch", "//gated"):
        check_error(post(port, ECHO, path), 404, -32600)


def test_405(port: int) -> None:
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        reply = request(port, method, "/gated")
        check_error(reply, 405, -32600)
        assert reply.headers["allow"] == "POST"
        assert "access-control-allow-origin" not in reply.headers


def test_400(port: int) -> None:
    for body in (b"", b"{", b"\xff\xfe", b"NaN", b"[" * 200 + b"]" * 200):
        check_error(post(port, body), 400, -32700)


def test_413(port: int) -> None:
    check_error(post(port, b" " * 100_001), 413, -32600)
    check_error(post(port, [ECHO] * 1001), 413, -32600)
    # Without a length, and without an end: the error comes as soon as the body is too large.
    with socket.create_connection((HOST, port), 10) as sock:
        sock.sendall(b"POST /gated HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        sock.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
        with suppress(OSError):
            for _ in range(20):
                sock.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        assert b" 413 " in sock.recv(1000)
    # A body that is declared as too large is not read.
    with socket.create_connection((HOST, port), 10) as sock:
        sock.sendall(b"POST /gated HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        sock.sendall(b"Content-Length: 99999999999\r\n\r\n")
        assert b" 413 " in sock.recv(1000)


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/plain"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": "application/json, text/plain"},
        {"content_type": "application/json; charset=utf-16"},
        {"content_type": "application/json; indent=4; charset=utf-16"},
        {"content_type": "application/json; indent=4, text/plain"},
        {"content_type": ""},
    ],
)
def test_415(port: int, headers: dict[str, str]) -> None:
    reply = post(port, ECHO, **headers)
    check_error(reply, 415, -32600)
    assert "content type" in reply.json["error"]["message"]
    assert "accept-encoding" not in reply.headers


def test_415_for_a_compressed_body(port: int) -> None:
    reply = post(port, gzip.compress(json.dumps(ECHO).encode()), content_encoding="gzip")
    check_error(reply, 415, -32600)
    assert "content encoding 'gzip'; identity is accepted only" in reply.json["error"]["message"]
    assert reply.headers["accept-encoding"] == "identity"


def test_a_body_that_says_it_is_not_compressed(port: int) -> None:
    assert post(port, ECHO, content_encoding="Identity").status == 200


def test_415_for_two_that_disagree(port: int) -> None:
    with socket.create_connection((HOST, port), 10) as sock:
        sock.sendall(
            b"POST /gated HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Type: text/plain\r\n"
        )
        sock.sendall(b"Content-Length: 2\r\n\r\n{}")
        assert b" 415 " in sock.recv(1000)


def test_504(port: int) -> None:
    began = time.monotonic()
    reply = post(port, ECHO, "/deserted", prefer="respond-async, wait=1")
    assert 1 <= time.monotonic() - began < 4
    check_error(reply, 504, NO_ANSWER, "a.b", may_have_run=True)
    assert reply.headers["preference-applied"] == "wait=1"
    # How many servers there are, and the like, stays private.
    assert b"deserted" not in reply.body
    check_error(post(port, ECHO, "/deserted", prefer="wait=0"), 504, NOT_DELIVERED, "a.b", may_have_run=False)


def test_the_deadline_goes_along(port: int) -> None:
    def remaining(**headers: str) -> float:
        return float(post(port, {"jsonrpc": "2.0", "method": "remaining", "id": 1}, **headers).json["result"])

    assert 4 < remaining() <= 5
    assert 18 < remaining(prefer="wait=20") <= 20
    assert 200 < remaining(prefer="handling=lenient,wait=999999999") <= 300
    for nonsense in ("wait=-1", "wait=soon", "await=9", "wait=1e9", "wait=9999999999999"):
        assert 4 < remaining(prefer=nonsense) <= 5


def test_408(methods: Methods, url: str) -> None:
    with (
        gateway("--allow", "gated", "--timeout", "0.3", url=url) as (_, port),
        socket.create_connection((HOST, port), 10) as sock,
    ):
        sock.sendall(b"POST /gated HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        sock.sendall(b"Content-Length: 1000\r\n\r\n{")
        assert b" 408 " in sock.recv(1000)


def test_503_with_the_broker_gone_and_502_for_what_was_in_flight(broker: Broker, methods: Methods) -> None:
    methods.may_end.clear()
    with (
        Proxy(broker.port) as network,
        gateway("--allow", "gated", url=network.url) as (_, port),
        ThreadPoolExecutor() as threads,
    ):
        wait_for(lambda: request(port, "GET", "/healthz").status == 200)
        in_flight = threads.submit(post, port, {"jsonrpc": "2.0", "method": "wait", "id": 1})
        assert methods.begun.acquire(timeout=10)
        network.black_hole()
        network.cut()
        check_error(in_flight.result(10), 502, NO_ANSWER, 1, may_have_run=True)
        methods.may_end.set()
        reply = post(port, ECHO, prefer="wait=1")
        check_error(reply, 503, NOT_DELIVERED, "a.b", may_have_run=False)
        assert reply.headers["retry-after"] == "1"
        assert b"127.0.0.1" not in reply.body
        assert request(port, "GET", "/healthz").status == 503
        network.heal()
        assert post(port, ECHO, prefer="wait=20").status == 200
        assert request(port, "GET", "/healthz").status == 200


def test_503_over_the_cap(methods: Methods, url: str, service: str) -> None:
    with (
        Server(url, service, methods=Methods().all | {"wait": methods.wait}),
        gateway("--allow", service, "--max-in-flight", "2", url=url) as (_, port),
        ThreadPoolExecutor() as threads,
    ):
        methods.may_end.clear()
        waiting = [
            threads.submit(post, port, {"jsonrpc": "2.0", "method": "wait", "id": number}, f"/{service}")
            for number in range(2)
        ]
        for _ in waiting:
            assert methods.begun.acquire(timeout=10)
        reply = post(port, ECHO, f"/{service}")
        check_error(reply, 503, NOT_DELIVERED, may_have_run=False)
        assert reply.headers["retry-after"] == "1"
        methods.may_end.set()
        assert [each.result(10).json["result"] for each in waiting] == ["done", "done"]
        assert post(port, ECHO, f"/{service}").status == 200


# -- as a program -----------------------------------------------------------------------------------------


def test_requests_that_are_cut_off_are_reported(methods: Methods, url: str) -> None:
    methods.may_end.clear()
    with gateway("--allow", "gated", url=url) as (program, port), ThreadPoolExecutor() as threads:
        in_flight = threads.submit(post, port, {"jsonrpc": "2.0", "method": "wait", "id": 1})
        assert methods.begun.acquire(timeout=10)
        program.process.send_signal(signal.SIGINT)
        program.wait_until_said("Waiting for connections to close")
        program.process.send_signal(signal.SIGINT)
        assert program.wait() == NOT_DRAINED
        assert "1 requests were cut off" in program.output
        assert in_flight.result(10).status == 500
    methods.may_end.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_clean_shutdown(methods: Methods, url: str, number: int) -> None:
    methods.may_end.clear()
    with gateway("--allow", "gated", url=url) as (program, port), ThreadPoolExecutor() as threads:
        in_flight = threads.submit(post, port, {"jsonrpc": "2.0", "method": "wait", "id": 1})
        assert methods.begun.acquire(timeout=10)
        program.process.send_signal(number)
        program.wait_until_said("Shutting down")
        wait_for(lambda: not is_listening(port))
        methods.may_end.set()
        assert in_flight.result(10).json["result"] == "done"
        assert program.wait() == 0
        assert "Traceback" not in program.output


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def test_nothing_is_served_that_is_not_allowed(methods: Methods, url: str) -> None:
    with gateway(url=url) as (program, port):
        assert "serving nothing" in program.output
        check_error(post(port, ECHO), 404, NOT_DELIVERED, may_have_run=False)


def test_health_and_a_service_of_that_name(port: int) -> None:
    wait_for(lambda: request(port, "GET", "/healthz").status == 200)
    assert request(port, "GET", "/healthz").json == {"status": "ok"}
    check_error(post(port, ECHO, "/healthz"), 404, NOT_DELIVERED, "a.b", may_have_run=False)


def test_nothing_of_a_request_gets_anywhere(program: tuple[Any, int]) -> None:
    """Not into headers, not into logs that a terminal shows."""
    started, port = program
    evil = ["/%0d%0aX-Evil:%20yes", "/%1b%5b2Jevil", "/gated/%0aevil", "/gated/?evil", "/<script>evil"]
    for path in evil:
        with socket.create_connection((HOST, port), 10) as sock:
            sock.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Evil: evil\r\n".encode())
            sock.sendall(b"Content-Type: application/json\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"evil" not in answer.lower()
    reply = post(port, {**ECHO, "id": "evil\r\n\x1b[2J"}, "/never.set-up", prefer="wait=4\tevil", x_evil="evil")
    assert reply.json["id"] == "evil\r\n\x1b[2J"
    assert "evil" not in str(reply.headers).lower()
    assert "evil" not in started.output
    assert "\x1b" not in started.output


def test_requests_that_break_off(port: int, program: tuple[Any, int]) -> None:
    for text in (
        b"POST /gated HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
        b"\0\xff\r\n\r\n",
    ):
        with socket.create_connection((HOST, port), 10) as sock:
            sock.sendall(text)
    assert post(port, ECHO).status == 200
    assert "Traceback" not in program[0].output


def test_a_second_signal_of_a_terminal_that_is_closed_does_not_cut_off(methods: Methods, url: str) -> None:
    methods.may_end.clear()
    with gateway("--allow", "gated", url=url) as (program, port), ThreadPoolExecutor() as threads:
        in_flight = threads.submit(post, port, {"jsonrpc": "2.0", "method": "wait", "id": 1})
        assert methods.begun.acquire(timeout=10)
        for _ in range(2):
            program.process.send_signal(signal.SIGHUP)
        program.wait_until_said("Waiting for connections to close")
        program.process.send_signal(signal.SIGHUP)
        methods.may_end.set()
        assert in_flight.result(10).json["result"] == "done"
        assert program.wait() == 0


def test_ipv6(url: str) -> None:
    with running("gateway", "--listen", "[::1]:0", "--allow", "gated", url=url) as program:
        program.wait_until_said("serving gated at http://[::1]:")


# -- all the way: HTTP -> gateway -> RabbitMQ -> bridge -> HTTP, and back ----------------------------------


def test_there_and_back(url: str, service: str) -> None:
    http_port = free_port()
    with (
        pelix(http_port, "pooled") as server,
        bridge(service, f"http://{HOST}:{http_port}/", url=url),
        gateway("--allow", service, url=url) as (_, port),
    ):
        path = f"/{service}"
        assert post(port, ECHO, path).json["result"] == "ü 中 😀"
        batch = [
            {**ECHO, "id": 1},
            {"jsonrpc": "2.0", "method": "tell", "params": ["over the bus"]},
            {"jsonrpc": "2.0", "method": "absent", "id": 2},
        ]
        reply = post(port, batch, path)
        assert [(each["id"], "error" in each) for each in reply.json] == [(1, False), (2, True)]
        assert post(port, {"jsonrpc": "2.0", "method": "tell", "params": ["alone"]}, path).status == 204
        was_told = {"jsonrpc": "2.0", "method": "was_told", "id": 1}
        wait_for(lambda: sorted(post(port, was_told, path).json["result"]) == ["alone", "over the bus"])

        def echo(number: int) -> Any:
            return post(port, {"jsonrpc": "2.0", "method": "echo", "params": [number], "id": number}, path).json

        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            answers = list(threads.map(echo, range(IN_FLIGHT)))
        assert [(each["id"], each["result"]) for each in answers] == [(number, number) for number in range(IN_FLIGHT)]
        server.process.kill()
        server.process.wait()
        reply = post(port, ECHO, path, prefer="wait=3")
        # An error of the method as far as the gateway knows: the bridge answered.
        assert (reply.status, reply.json["id"], reply.json["error"]["code"]) == (200, "a.b", NOT_DELIVERED)
