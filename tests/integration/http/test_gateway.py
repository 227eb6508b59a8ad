"""``Gateway`` as an ASGI application."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from jsonrpc_amqp import NOT_DELIVERED, Client, InvalidName, Server
from jsonrpc_amqp.http.gateway import Gateway

from ...broker import HOST
from ...gateway_tools import ECHO, Methods, check_error, post
from ...http_tools import request
from ...tools import wait_for


@contextmanager
def served(app: Any) -> Iterator[int]:
    """Serve an ASGI application on a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    with socket.create_server((HOST, 0)) as sock:
        thread = threading.Thread(target=server.run, args=([sock],))
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)


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


def test_http_client_that_disconnects_is_not_waited_for(service: str) -> None:
    url, methods = f"memory://{service}", Methods()
    methods.may_end.clear()
    with Server(url, service, methods=methods.all), Client(url, service, timeout=10, max_pending=1) as client:
        app = Gateway(client, allow=[service], max_in_flight=1)
        with served(app) as port:
            body = b'{"jsonrpc": "2.0", "method": "wait", "id": 1}'
            with socket.create_connection((HOST, port), 10) as sock:
                sock.sendall(b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" % service.encode())
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


def test_arguments() -> None:
    with Client("memory://arguments") as client:
        with pytest.raises(InvalidName):
            Gateway(client, allow=["a..b"])
        with pytest.raises(TypeError, match="list"):
            Gateway(client, allow="calc")
        with pytest.raises(ValueError, match="timeout"):
            Gateway(client, allow=[], timeout=0)
