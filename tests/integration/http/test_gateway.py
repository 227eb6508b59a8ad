"""``Gateway`` as an ASGI application."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from http.client import HTTPConnection

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from jsonrpc_amqp import NOT_DELIVERED, AsyncClient, Client, InvalidName, Server
from jsonrpc_amqp.http.gateway import Gateway
from jsonrpc_amqp.http.http_server import LimitedProtocol
from jsonrpc_amqp.http.limits import MAX_HEAD, MAX_HEADERS

from ...broker import HOST
from ...gateway_tools import ECHO, WAIT, Methods, check_error, post, request_to, served
from ...http_tools import request, unread
from ...tools import wait_for


class Impatient(LimitedProtocol):
    patience = 0.3


def test_mounted(service: str) -> None:
    url, methods = f"memory://{service}", Methods()
    with Server(url, service, methods=methods.all), Client(url, timeout=10) as client:
        app = Gateway(client, allow=[service])
        with served(Starlette(routes=[Mount("/rpc", app)])) as port:
            assert post(port, ECHO, f"/rpc/{service}").json["result"] == "ü 中 😀"
            assert request(port, "GET", "/rpc/healthz").status == 200
            check_error(post(port, ECHO, "/rpc/other"), 404, NOT_DELIVERED, may_have_run=False)
            check_error(request(port, "GET", f"/rpc/{service}"), 405, -32600)
            check_error(post(port, ECHO, f"/rpc/{service}/"), 404, -32600)
            assert post(port, ECHO, f"/{service}").status == 404
        assert app.stats() == {"200": 1, "404": 2, "405": 1, "in_flight": 0}
        client.close()
        with served(app) as port:
            check_error(post(port, ECHO, f"/{service}"), 503, NOT_DELIVERED, "a.b", may_have_run=False)
            assert request(port, "GET", "/healthz").status == 503


def test_the_event_loop_drives_its_client(service: str) -> None:
    url, methods = f"memory://{service}", Methods()
    client = AsyncClient(url, timeout=10, max_pending=1)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await client.aclose()

    methods.may_end.clear()
    app = Gateway(client, allow=[service, "never.set-up"])
    with (
        Server(url, service, methods=methods.all),
        served(Starlette(routes=[Mount("/", app)], lifespan=lifespan)) as port,
    ):
        assert post(port, ECHO, f"/{service}").json["result"] == "ü 中 😀"
        assert post(port, {"jsonrpc": "2.0", "method": "tell", "params": [1]}, f"/{service}").status == 204
        check_error(post(port, ECHO, "/never.set-up"), 404, NOT_DELIVERED, "a.b", may_have_run=False)
        assert request(port, "GET", "/healthz").status == 200
        with socket.create_connection((HOST, port), 10) as sock:
            sock.sendall(request_to(service, WAIT))
            assert methods.begun.acquire(timeout=10)
            check_error(post(port, ECHO, f"/{service}"), 503, NOT_DELIVERED, "a.b", may_have_run=False)
        wait_for(lambda: client.stats()["cancelled"] == 1)
        assert post(port, ECHO, f"/{service}").status == 200
        methods.may_end.set()
    assert app.stats() == {"200": 2, "204": 1, "404": 1, "499": 1, "503": 1, "in_flight": 0}


def test_503_where_the_client_may_wait_for_no_more(service: str) -> None:
    url, methods = f"memory://{service}", Methods()
    methods.may_end.clear()
    with (
        Server(url, service, methods=methods.all | {"wait": methods.wait}),
        Client(url, service, timeout=10, max_pending=1) as client,
        served(Gateway(client, allow=[service])) as port,
    ):
        waiting = client.submit("wait")
        assert methods.begun.acquire(timeout=10)
        check_error(post(port, ECHO, f"/{service}"), 503, NOT_DELIVERED, "a.b", may_have_run=False)
        methods.may_end.set()
        assert waiting.result(10) == "done"
        assert post(port, ECHO, f"/{service}").status == 200


def test_503_where_the_service_has_no_server(service: str) -> None:
    url = f"memory://{service}"
    with Server(url, service):
        pass
    with (
        Client(url, timeout=10, no_consumers="fail") as client,
        served(Gateway(client, allow=[service])) as port,
    ):
        check_error(post(port, ECHO, f"/{service}"), 503, NOT_DELIVERED, "a.b", may_have_run=False)
        with Server(url, service, methods=Methods().all):
            assert post(port, ECHO, f"/{service}").status == 200


def test_http_client_that_disconnects_is_not_waited_for(service: str) -> None:
    url, methods = f"memory://{service}", Methods()
    methods.may_end.clear()
    with Server(url, service, methods=methods.all), Client(url, service, timeout=10, max_pending=1) as client:
        app = Gateway(client, allow=[service], max_in_flight=1)
        with served(app) as port:
            body = b'{"jsonrpc": "2.0", "method": "wait", "id": 1}'
            with socket.create_connection((HOST, port), 10) as sock:
                sock.sendall(
                    b"POST /%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" % service.encode()
                )
                sock.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
                assert methods.begun.acquire(timeout=10)
                assert app.stats()["in_flight"] == client.stats()["pending"] == 1
            wait_for(lambda: app.stats() == {"499": 1, "in_flight": 0})
            wait_for(lambda: client.stats()["pending"] == 0)
            assert client.stats()["cancelled"] == 1
            assert post(port, ECHO, f"/{service}").status == 200
            methods.may_end.set()
            wait_for(lambda: client.stats()["dropped_replies"] == 1)
            assert post(port, ECHO, f"/{service}").status == 200


@pytest.mark.parametrize("later", [WAIT, WAIT * 10_000])
def test_http_client_that_disconnects_behind_another_request_is_not_waited_for(service: str, later: bytes) -> None:
    """uvicorn stops reading there, and so would not notice."""
    url, methods = f"memory://{service}", Methods()
    methods.may_end.clear()
    with Server(url, service, methods=methods.all), Client(url, service, timeout=10) as client:
        app = Gateway(client, allow=[service])
        with served(app) as port:
            with socket.create_connection((HOST, port), 10) as sock:
                sock.sendall(request_to(service, WAIT, "Prefer: wait=300"))
                assert methods.begun.acquire(timeout=10)
                sock.sendall(request_to(service, later))
                wait_for(lambda: unread(sock) == 0)
            wait_for(lambda: app.stats() == {"499": 1, "in_flight": 0})
            methods.may_end.set()


def test_requests_behind_one_without_a_response_end_the_connection(service: str) -> None:
    url, methods = f"memory://{service}", Methods()
    with Server(url, service, methods=methods.all), Client(url, service, timeout=10) as client:
        app = Gateway(client, allow=[service])
        with served(app) as port, socket.create_connection((HOST, port), 10) as sock:
            methods.may_end.set()
            sock.sendall(request_to(service, WAIT) * 3)
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
            assert answer.count(b"HTTP/1.1 ") == 1
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in answer
            assert app.stats() == {"200": 1, "in_flight": 0}


HEADS = {
    "one header": [b"X: " + b"x" * 50_000] * 20,
    "many headers": [b"X: " + b"x" * 100] * 10_000,
    "short headers": [b"X:\r\n"] * (MAX_HEADERS + 2),
    "a long target": [b"POST /" + b"x" * 50_000] * 20,
    "trailers": [request_to("service", b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"),
                 b"1\r\n{\r\n0\r\n", *[b"X: " + b"x" * 50_000] * 20],
    "a long extension of a chunk": [
        request_to("service", b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"),
        b"1;x=", *[b"x" * 50_000] * 20],
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_is_limited(service: str, kind: str) -> None:
    with Client(f"memory://{service}", service, timeout=10) as client:
        app = Gateway(client, allow=["service"])
        with served(app) as port, socket.create_connection((HOST, port), 10) as sock:
            assert sum(map(len, HEADS[kind])) > MAX_HEAD or kind == "short headers"
            with suppress(OSError):
                if not HEADS[kind][0].startswith(b"POST"):
                    sock.sendall(b"POST /service HTTP/1.1\r\n")
                for piece in HEADS[kind]:
                    sock.sendall(piece)
            # It may end so abruptly that the response is lost.
            answer = b""
            with suppress(OSError):
                answer = sock.recv(65536)
            assert answer[:13] in (b"", b"HTTP/1.1 400 ")
            assert not reaches_the_end_of(sock)
            assert request(port, "GET", "/healthz").status == 200
            wait_for(lambda: app.stats()["in_flight"] == 0)


def reaches_the_end_of(sock: socket.socket) -> bool:
    """Whether a connection still takes anything."""
    try:
        sock.settimeout(10)
        while sock.recv(65536):
            pass
    except TimeoutError:
        return True
    except OSError:
        pass
    return False


def test_a_body_in_the_smallest_chunks(service: str) -> None:
    url, methods = f"memory://{service}", Methods()
    with Server(url, service, methods=methods.all), Client(url, service, timeout=10) as client:
        body = b'{"jsonrpc": "2.0", "method": "echo", "params": [7], "id": 1}' + b" " * MAX_HEAD
        with served(Gateway(client, allow=[service])) as port, socket.create_connection((HOST, port), 10) as sock:
            sock.sendall(request_to(service, b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
            sock.sendall(b"".join(b"1\r\n%c\r\n" % each for each in body) + b"0\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("begin", [b"", b"\r\n", b"POST / HT", b"POST / HTTP/1.1\r\nX: y\r\n"])
def test_a_head_that_does_not_come(service: str, begin: bytes) -> None:
    with (
        Client(f"memory://{service}", service) as client,
        served(Gateway(client, allow=[service]), Impatient) as port,
        socket.create_connection((HOST, port), 10) as sock,
    ):
        sock.sendall(begin)
        assert not reaches_the_end_of(sock)


def test_a_connection_that_is_not_used_after_a_response(service: str) -> None:
    with (
        Client(f"memory://{service}", service) as client,
        served(Gateway(client, allow=[service]), Impatient) as port,
        closing(HTTPConnection(HOST, port, timeout=10)) as connection,
    ):
        connection.connect()
        sock = connection.sock
        for _ in range(2):
            connection.request("GET", "/")
            assert connection.getresponse().read()
            time.sleep(3 * Impatient.patience)
            assert connection.sock is sock
        sock.sendall(b"POST / HT")
        assert not reaches_the_end_of(sock)


@pytest.mark.parametrize("requests", [1, 2])
def test_a_response_that_is_not_read(service: str, requests: int) -> None:
    url, ended = f"memory://{service}", threading.Event()

    class Noting(Impatient):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            ended.set()

    with Server(url, service, methods={"echo": lambda size: "x" * size}), Client(url, service, timeout=10) as client:
        app = Gateway(client, allow=[service])
        with served(app, Noting) as port, socket.create_connection((HOST, port), 10) as sock:
            body = b'{"jsonrpc": "2.0", "method": "echo", "params": [15000000], "id": 1}'
            sock.sendall(request_to(service, body))
            for _ in range(1, requests):
                wait_for(lambda: app.stats().get("200"))
                sock.sendall(request_to(service, json.dumps(ECHO).encode()))
            # It cannot be written as a whole: the kernel takes less. When it ends, the rest is dropped.
            assert ended.wait(10)
            with suppress(OSError):
                assert sum(map(len, iter(lambda: sock.recv(1 << 20), b""))) < 15_000_000


def test_one_service_that_does_not_answer_leaves_places_to_others(service: str) -> None:
    url, methods = f"memory://{service}", Methods()
    methods.may_end.clear()
    with (
        Server(url, service, methods=methods.all),
        Server(url, "slow", methods={"wait": methods.wait}),
        Client(url, service, timeout=10) as client,
    ):
        app = Gateway(client, allow=[service, "slow"], max_in_flight=8)
        with served(app) as port, ExitStack() as stack:
            for number in range(8):
                sock = stack.enter_context(socket.create_connection((HOST, port), 10))
                sock.sendall(request_to("slow", WAIT, "Prefer: wait=300"))
                if number < 4:
                    assert methods.begun.acquire(timeout=10)
                else:
                    assert sock.recv(100).startswith(b"HTTP/1.1 503 ")
            assert app.stats() == {"503": 4, "in_flight": 4}
            assert post(port, ECHO, f"/{service}").status == 200
        wait_for(lambda: app.stats()["in_flight"] == 0)
        methods.may_end.set()


def test_hosts_and_origins(service: str, caplog: pytest.LogCaptureFixture) -> None:
    url, methods = f"memory://{service}", Methods()
    with Server(url, service, methods=methods.all), Client(url, service, timeout=10) as client:
        limited = Gateway(client, allow=[service], allow_hosts=["api.example"], allow_origins=["https://page.example"])
        with served(limited) as port:
            path = f"/{service}"
            for headers in (
                {},
                {"host": "localhost"},
                {"host": f"{HOST}:{port}"},
                {"host": "api.example:443"},
                {"host": f"localhost:{port}", "origin": f"http://localhost:{port}"},
                {"origin": "https://page.example", "sec_fetch_site": "cross-site"},
            ):
                assert post(port, ECHO, path, **headers).status == 200, headers
            check_error(post(port, ECHO, path, host="evil.example"), 421, NOT_DELIVERED, may_have_run=False)
            evil = {"origin": "http://evil.example"}
            check_error(post(port, ECHO, path, **evil), 403, NOT_DELIVERED, may_have_run=False)
            # The same, once the name of the page leads here.
            check_error(post(port, ECHO, path, host="evil.example", **evil), 421, NOT_DELIVERED, may_have_run=False)
            assert request(port, "GET", "/healthz", headers={"Host": "probe"}).status == 200
        assert "refused a request for host 'evil.example'; --allow-host (allow_hosts=) allows it" in caplog.text
        assert "from origin 'http://evil.example'; --allow-origin (allow_origins=) allows it" in caplog.text
        with served(Gateway(client, allow=[service], allow_hosts=["*"], allow_origins=["*"])) as port:
            assert post(port, ECHO, path, host="evil.example", **evil).status == 200


def test_a_name_in_percent_encoding_is_not_served(service: str) -> None:
    url, methods = f"memory://{service}", Methods()
    with Server(url, service, methods=methods.all), Client(url, service, timeout=10) as client:
        app = Gateway(client, allow=[service])
        with served(Starlette(routes=[Mount("/rpc", app), Mount("/", app)])) as port:
            encoded = f"%{ord(service[0]):02x}{service[1:]}"
            for prefix in ("", "/rpc"):
                assert post(port, ECHO, f"{prefix}/{service}?a=%20").status == 200
                reply = post(port, ECHO, f"{prefix}/{encoded}")
                check_error(reply, 404, NOT_DELIVERED, may_have_run=False)
        assert app.stats()["200"] == 2


def test_arguments() -> None:
    with Client("memory://arguments") as client:
        with pytest.raises(InvalidName):
            Gateway(client, allow=["a..b"])
        with pytest.raises(TypeError, match="list"):
            Gateway(client, allow="calc")
        with pytest.raises(ValueError, match="timeout"):
            Gateway(client, allow=[], timeout=0)
        with pytest.raises(TypeError, match="lists"):
            Gateway(client, allow=[], allow_hosts="localhost")
        with pytest.raises(ValueError, match="origin"):
            Gateway(client, allow=[], allow_origins=["example.com"])
