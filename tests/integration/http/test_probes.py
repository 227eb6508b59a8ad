"""Probes over HTTP."""

from __future__ import annotations

import errno
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from jsonrpc_amqp import Health
from jsonrpc_amqp.http import probes as module
from jsonrpc_amqp.http.probes import Probes

from ...probes import CASES, Subject


@pytest.fixture
def subject() -> Subject:
    return Subject()


@pytest.fixture
def probes(subject: Subject) -> Iterator[Probes]:
    made = Probes(0, subject)
    made.start()
    with closing(made):
        yield made


def ask(port: int, path: str, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, Any]:
    with closing(http.client.HTTPConnection(host, port, timeout=10)) as connection:
        connection.request(method, path)
        reply = connection.getresponse()
        body = reply.read()
        return reply.status, json.loads(body) if body.startswith(b"{") else body


@pytest.mark.parametrize(("health", "path", "status", "body"), CASES)
def test_over_http(
    probes: Probes, subject: Subject, health: Health, path: str, status: int, body: dict[str, Any]
) -> None:
    subject.health = health
    assert ask(probes.port, path) == (status, body)
    assert ask(probes.port, path, "HEAD") == (status, b"")


def test_other_methods(probes: Probes) -> None:
    assert ask(probes.port, "/livez", "POST")[0] == 501


def test_it_listens_on_all_addresses(probes: Probes) -> None:
    hosts = ["127.0.0.1"]
    with suppress(OSError), socket.socket(socket.AF_INET6) as trial:  # which may be switched off
        trial.bind(("::1", 0))
        hosts.append("::1")
    for host in hosts:
        assert ask(probes.port, "/livez", host=host)[0] == 200


def test_a_host_without_ipv6(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where IPv6 is switched off (``net.ipv6.conf.all.disable_ipv6``) there are such sockets, but no address."""
    bind = module._Server.server_bind

    def refuse(self: module._Server) -> None:
        if self.address_family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        bind(self)

    monkeypatch.setattr(module._Server, "server_bind", refuse)
    made = Probes(0, subject)
    made.start()
    with closing(made):
        assert ask(made.port, "/livez")[0] == 200


def test_a_port_that_is_taken(probes: Probes, subject: Subject) -> None:
    with pytest.raises(OSError, match="Address already in use"):
        Probes(probes.port, subject).start()


def test_connections_that_say_nothing_do_not_take_all_room(probes: Probes) -> None:
    """The seventeenth is closed; there is room again when others end."""
    idle = [socket.create_connection(("127.0.0.1", probes.port)) for _ in range(16)]
    try:
        with closing(socket.create_connection(("127.0.0.1", probes.port), timeout=10)) as another:
            assert another.recv(1) == b""
    finally:
        for each in idle:
            each.close()
    assert eventually_well(probes.port)


def eventually_well(port: int) -> bool:
    for _ in range(1000):
        try:
            return ask(port, "/livez")[0] == 200
        except (http.client.HTTPException, OSError):
            continue
    return False


def test_after_the_end_nothing_listens(subject: Subject) -> None:
    made = Probes(0, subject)
    made.start()
    port = made.port
    made.close()
    made.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))
