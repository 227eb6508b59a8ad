"""The programs in README.md, and in pages of docs/, run as they stand."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jsonrpc_amqp import (
    AsyncClient,
    AsyncServer,
    Client,
    InternalError,
    InvalidParams,
    RemoteError,
    Server,
    current_request,
)
from jsonrpc_amqp.cli import main as command

from ..pages import Page
from ..references import missing_links

README = Page("README.md")
ERRORS = Page("docs/errors.md")
TYPES = Page("docs/types.md")
MIDDLEWARE = Page("docs/middleware.md")
DISCOVERY = Page("docs/discovery.md")
PAGES = [README, ERRORS, TYPES, MIDDLEWARE, DISCOVERY]


def test_five_minutes(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQP_URL", url)
    server_program, client_program, async_program, async_server_program, _, _ = range(len(README.programs))
    with README.run(server_program)["server"]:
        README.run(client_program)
        README.run(async_program)
    asyncio.run(use(README.run(async_server_program)["server"], url))
    _time, sums, proxied, submitted, batched, error, *of_coroutines = capsys.readouterr().out.splitlines()
    assert (sums, proxied, submitted, batched) == ("3 3", "3", "7", "3 7")
    assert error == "-32601 Method not found"
    assert of_coroutines == ["3 3", "[3, 'rested']", "3"]


async def use(server: AsyncServer, url: str) -> None:
    async with server, AsyncClient(url, service="rest", timeout=60) as client:
        assert await client.call("nap", [0.01]) == "rested"


def test_probes(capsys: pytest.CaptureFixture[str]) -> None:
    README.run(len(README.programs) - 2)
    assert capsys.readouterr().out.splitlines() == ["True", "the server was stopped"]


def test_unit_test_without_a_broker() -> None:
    README.run(len(README.programs) - 1)["test_greeting"]()


def test_discovery(capsys: pytest.CaptureFixture[str]) -> None:
    with DISCOVERY.run(0)["server"], pytest.raises(SystemExit, match="0"):
        command(["describe", "--service", "warehouse", "--url", "memory://warehouse"], prog_name="jsonrpc-amqp")
    (shown,) = re.findall(r"(?s)```text\n(.*?)```", DISCOVERY.text)
    assert capsys.readouterr().out == shown


def test_both_commands_stand_at_the_top() -> None:
    top = README.text.split("## ")[0]
    assert "make demo" in top
    assert "make test" in top


def test_errors(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AMQP_URL", url)
    monkeypatch.syspath_prepend(tmp_path)
    definitions, server_program, client_program, mapping, nested, copies = range(len(ERRORS.programs))
    (tmp_path / "shop_errors.py").write_text(ERRORS.programs[definitions])
    try:
        shop = ERRORS.run(server_program)
        with shop["server"]:
            (shown,) = re.findall(r'(?m)^    (\{"jsonrpc".*)$', ERRORS.text)
            with Client(url, service="shop", timeout=60) as client:
                request = b'{"jsonrpc": "2.0", "method": "order", "params": ["lamp", 9], "id": 1}'
                assert json.loads(client.send_raw(request) or b"") == json.loads(shown)
            client_side = ERRORS.run(client_program)
            assert capsys.readouterr().out.splitlines() == [
                "2",
                "There is not enough of it (1001): {'sku': 'lamp', 'left': 2} lamp 2",
                "Discontinued 1002 candle",
                "count is less than 1",
                "1099 not for sale {'sku': 'gold'}",
            ]
            with Client(url, service="shop", timeout=60, errors=client_side["shop_errors"]) as client:
                with pytest.raises(InternalError):
                    client.call("order", ["table", 1])
                ERRORS.run(mapping, shop)
                with pytest.raises(RemoteError, match="no such sku"):
                    client.call("order", ["table", 1])
                ERRORS.run(nested, shop | {"Client": Client})
                assert client.call("gift", ["lamp"]) == 1
                with pytest.raises(shop["OutOfStock"], match="'sku': 'rug'"):
                    client.call("gift", ["rug"])
                with pytest.raises(RemoteError, match="no such gift"):
                    client.call("gift", ["table"])
        ERRORS.run(copies, shop)
    finally:
        sys.modules.pop("shop_errors", None)


def test_types(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQP_URL", url)
    server_program, client_program = range(len(TYPES.programs))
    with TYPES.run(server_program)["server"] as server:
        TYPES.run(client_program)
        (shown,) = re.findall(r"(?m)^    (\[\{.*)$", TYPES.text)
        (params,) = re.findall(r'"params": (.*?)`', TYPES.text)
        with Client(url, service=server.service, timeout=60) as client, pytest.raises(InvalidParams) as caught:
            client.call("stock.add", json.loads(params))
        assert caught.value.data == json.loads(shown)
    assert capsys.readouterr().out.splitlines() == [
        "1",
        "Item(sku='lamp', price=Decimal('24.50'), since=None)",
        "UTC",
    ]


def test_middleware(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQP_URL", url)
    with MIDDLEWARE.run(0)["server"] as server, Client(url, service=server.service, timeout=60) as client:
        assert client.call("discount", [5], headers={"member": "yes", "x-request-id": "r1"}) == 5
        with pytest.raises(RemoteError, match="for members only"):
            client.call("discount", [5])
        assert client.call("wait", [0], headers={"x-request-id": "r2"}) == "done"
    assert capsys.readouterr().out.splitlines() == [
        "discount of r1: 0 s",
        "discount of None: 0 s",
        "wait of r2: 0 s",
    ]


def test_middleware_of_clients(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQP_URL", url)
    asked: list[str] = []

    def price(sku: str) -> float:
        asked.append(sku)
        assert sku == "lamp" or current_request().headers["x-request-id"]
        return {"lamp": 24.5}[sku]

    methods: dict[str, Callable[..., Any]] = {
        "price": price,
        "tag": lambda: current_request().headers["x-tag"],
        "asked": lambda: len(asked),
    }
    with Server(url, service="shop", methods=methods):
        for number in range(1, len(MIDDLEWARE.programs)):
            MIDDLEWARE.run(number)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == ["shop price ok", "24.5", "shop price InternalError", "-32603", "night run", "24.5 24.5 3"]
    first, *_others, end = lines[6:]
    assert first == "1 Unroutable"
    assert re.fullmatch("given up after [1-9] retries", end)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path.name)
def test_links_lead_somewhere(page: Page) -> None:
    assert "](" in page.text
    assert missing_links(page.text, page.folder) == []
