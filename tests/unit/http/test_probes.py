"""Probes over ASGI."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from jsonrpc_amqp import Health
from jsonrpc_amqp.http.probes import probes_app

from ...probes import CASES, Subject


@pytest.fixture
def subject() -> Subject:
    return Subject()


def ask_app(subject: Subject, path: str, method: str = "GET", root_path: str = "") -> tuple[int, bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": root_path + path, "root_path": root_path, "method": method}
    asyncio.run(probes_app(subject)(scope, None, send))  # type: ignore[arg-type]  # a coroutine
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize(("health", "path", "status", "body"), CASES)
def test_over_asgi(subject: Subject, health: Health, path: str, status: int, body: dict[str, Any]) -> None:
    subject.health = health
    path = path.partition("?")[0]
    for root_path in ("", "/probes"):
        told, text = ask_app(subject, path, root_path=root_path)
        assert (told, json.loads(text)) == (status, body)
    assert ask_app(subject, path, "HEAD") == (status, b"")
    assert ask_app(subject, path, "POST")[0] == 405


def test_it_is_asked_over_http_only(subject: Subject) -> None:
    with pytest.raises(ValueError, match="over HTTP, not 'websocket'"):
        asyncio.run(probes_app(subject)({"type": "websocket"}, None, None))  # type: ignore[arg-type]  # not used
