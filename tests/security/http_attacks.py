"""
The attacks over HTTP: on a gateway by its callers and by web pages, on a bridge by what its HTTP server sends late.

Each is run without what prevents it, and with it.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple
from unittest import mock

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from jsonrpc_amqp import NO_ANSWER, Client, Server
from jsonrpc_amqp.http import gateway as gateway_module
from jsonrpc_amqp.http.gateway import Gateway
from jsonrpc_amqp.http.http_server import LimitedProtocol
from jsonrpc_amqp.jsonrpc import labels

from ..abuse.neighbour import Neighbour, Visits
from ..bridged import Bridged
from ..broker import HOST
from ..gateway_tools import ECHO, WAIT, Methods, post, request_to, served
from ..http_tools import Asked, ok
from ..tools import wait_for
from .attacks import SUCCEEDS

GATEWAY_REFUSES = "refused by the gateway"
ENDED = "the connection is ended"
FREED = "its place is free again"
OTHERS_SERVED = "the other service can be called"
BRIDGE_REJECTS = "rejected by the bridge; that call fails"

EVIL = "EVE WROTE THIS"


class Scene(NamedTuple):
    """A gateway to two services, of which one does not answer, and what serves them."""

    app: Gateway
    port: int
    methods: Methods
    protected: bool


@contextmanager
def scene(protected: bool) -> Iterator[Scene]:
    """Run a gateway for a ``with`` block, and where it is protected, a neighbour that calls all the time."""
    url, methods = f"memory://{secrets.token_hex(4)}", Methods()
    methods.may_end.clear()
    options: dict[str, Any] = {} if protected else {"allow_hosts": ["*"], "allow_origins": ["*"]}
    visits = {**methods.all, "visit": Visits()}
    with (
        Server(url, "calc", methods=visits),
        Server(url, "deaf", methods={"wait": methods.wait}),
        Client(url, timeout=20) as client,
        ExitStack() as stack,
    ):
        app = Gateway(client, allow=["calc", "deaf"], max_in_flight=8, **options)
        port = stack.enter_context(served(app, LimitedProtocol if protected else HttpToolsProtocol))
        if not protected:
            stack.enter_context(mock.patch.object(gateway_module, "_is_literal", return_value=True))
            stack.enter_context(mock.patch.object(Gateway, "_check_places", _check_all_places))
        try:
            yield Scene(app, port, methods, protected)
        finally:
            methods.may_end.set()


def _check_all_places(self: Gateway, _service: str) -> None:
    if self._in_flight.total() >= self._max_in_flight:
        raise gateway_module._HttpError(503, gateway_module._not_delivered("too many requests at a time"))


def _visit(port: int) -> Callable[[str, int], Any]:
    def visit(name: str, number: int) -> Any:
        body = {"jsonrpc": "2.0", "method": "visit", "params": [name, number], "id": 1}
        return post(port, body, "/calc").json["result"]

    return visit


def _on_gateway(attack: Callable[[Scene], str]) -> Callable[[bool], str]:
    def run(protected: bool) -> str:
        with scene(protected) as here, ExitStack() as stack:
            if not protected:
                return attack(here)
            neighbour = stack.enter_context(Neighbour(_visit(here.port)))
            ended = attack(here)
            wait_for(lambda: neighbour.report().calls > 2, 60)
            neighbour.check()
            return ended

    return run


def _posting(path: str = "/calc", **headers: str) -> Callable[[bool], str]:
    def attack(here: Scene) -> str:
        status = post(here.port, ECHO, path, **headers).status
        assert status in (200, 403, 404, 421)
        return SUCCEEDS if status == 200 else GATEWAY_REFUSES

    return _on_gateway(attack)


def endless_headers(here: Scene) -> str:
    with socket.create_connection((HOST, here.port), 20) as sock:
        answer = b""
        with suppress(OSError):
            body = json.dumps(ECHO).encode()
            sock.sendall(b"POST /calc HTTP/1.1\r\nHost: localhost\r\n")
            for _ in range(80):
                sock.sendall(b"X: " + b"x" * 50_000 + b"\r\n")
            sock.sendall(request_to("calc", body).partition(b"\r\n")[2])
            answer = sock.recv(1000)
    return SUCCEEDS if answer.startswith(b"HTTP/1.1 200") else ENDED


def leave_a_place_taken(here: Scene) -> str:
    with socket.create_connection((HOST, here.port), 20) as sock:
        sock.sendall(request_to("deaf", WAIT, "Prefer: wait=300"))
        assert here.methods.begun.acquire(timeout=20)
        sock.sendall(request_to("deaf", WAIT))
        # Another connection is served behind these bytes, by the one thread of the gateway.
        assert post(here.port, ECHO, "/calc").status == 200
    with suppress(AssertionError):
        wait_for(lambda: here.app.stats().get("499") == 1, 20 if here.protected else 1)
        return FREED
    return SUCCEEDS


def take_every_place(here: Scene) -> str:
    with ExitStack() as stack:
        for _ in range(8):
            sock = stack.enter_context(socket.create_connection((HOST, here.port), 20))
            sock.sendall(request_to("deaf", WAIT, "Prefer: wait=300"))
        wait_for(lambda: here.app.stats()["in_flight"] + here.app.stats().get("503", 0) >= 8)
        return OTHERS_SERVED if post(here.port, ECHO, "/calc").status == 200 else SUCCEEDS


def late_response(protected: bool) -> str:
    """The HTTP server writes it when the request of another caller has arrived over the same connection."""
    connections: list[socket.socket] = []

    def respond(sock: socket.socket, asked: Asked) -> bool:
        response = {"jsonrpc": "2.0", "result": "genuine", "id": json.loads(asked.body)["id"]}
        if sock in connections:
            response = {"jsonrpc": "2.0", "result": EVIL, "id": 1}
        connections.append(sock)
        sock.sendall(ok(json.dumps(response).encode()))
        return True

    with Bridged(f"memory://{secrets.token_hex(4)}", "bridged", timeout=20) as bridged, ExitStack() as stack:
        if not protected:
            stack.enter_context(mock.patch.object(labels, "label", lambda body, asked, _start: _as_it_is(body, asked)))
        bridged.answer = respond
        call = b'{"jsonrpc": "2.0", "method": "m", "id": 1}'
        assert bridged.ask(call)["result"] == "genuine"
        answer = bridged.ask(call)
    if answer.get("result") == EVIL:
        return SUCCEEDS
    assert answer["error"]["code"] == NO_ANSWER
    return BRIDGE_REJECTS


def _as_it_is(body: bytes, asked: Any) -> labels.Labelled:
    return labels.Labelled(body, asked, {})


class HttpAttack(NamedTuple):
    """
    One row of the table in docs/security.md.

    Attributes:
        what: The description.
        run: Runs it, protected or not, and returns how it ended.
        ends: How it ends where it is protected.
    """

    what: str
    run: Callable[[bool], str]
    ends: str


HTTP_ATTACKS: dict[str, HttpAttack] = {
    "rebinding": HttpAttack(
        "a web page, once the name of its host leads to the gateway (DNS rebinding), calls a service",
        _posting(host="evil.example:8080", origin="http://evil.example:8080", sec_fetch_site="same-origin"),
        GATEWAY_REFUSES,
    ),
    "origin": HttpAttack(
        "a web page of another origin calls a service, past a proxy that answers preflights for it",
        _posting(host="localhost", origin="http://evil.example"),
        GATEWAY_REFUSES,
    ),
    "raw-path": HttpAttack(
        "call a service past a proxy that guards its path: post to `/%63alc`", _posting("/%63alc"), GATEWAY_REFUSES
    ),
    "headers": HttpAttack("send headers without end, to take memory", _on_gateway(endless_headers), ENDED),
    "left": HttpAttack(
        "hold a place for 300 s: call with `Prefer: wait=300`, send a second request behind it, and leave",
        _on_gateway(leave_a_place_taken),
        FREED,
    ),
    "places": HttpAttack(
        "take every place with calls of a service that does not answer",
        _on_gateway(take_every_place),
        OTHERS_SERVED,
    ),
    "late": HttpAttack(
        "answer another caller of a bridge: have its HTTP server send a second response, with the id 1, later",
        late_response,
        BRIDGE_REJECTS,
    ),
}
