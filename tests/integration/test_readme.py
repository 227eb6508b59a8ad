"""The programs in README.md run as they stand."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from jsonrpc_amqp import AsyncClient, AsyncServer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(program: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "readme"}
    exec(compile(program, "README.md", "exec"), namespace)
    return namespace


def test_five_minutes(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQP_URL", url)
    server_program, client_program, async_program, async_server_program, _ = PROGRAMS
    with run(server_program)["server"]:
        run(client_program)
        run(async_program)
    asyncio.run(use(run(async_server_program)["server"], url))
    _time, sums, proxied, submitted, batched, error, *of_coroutines = capsys.readouterr().out.splitlines()
    assert (sums, proxied, submitted, batched) == ("3 3", "3", "7", "3 7")
    assert error == "-32601 Method not found"
    assert of_coroutines == ["3 3", "[3, 'rested']", "3"]


async def use(server: AsyncServer, url: str) -> None:
    async with server, AsyncClient(url, service="rest", timeout=60) as client:
        assert await client.call("nap", [0.01]) == "rested"


def test_unit_test_without_a_broker() -> None:
    run(PROGRAMS[-1])["test_greeting"]()


def test_both_commands_stand_at_the_top() -> None:
    top = README.split("## ")[0]
    assert "make demo" in top
    assert "make test" in top


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)
