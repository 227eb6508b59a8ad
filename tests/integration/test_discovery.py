"""``rpc.discover`` of ``Server`` and ``AsyncServer``, on a broker."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest

from jsonrpc_amqp import NOT_AUTHORISED, AsyncClient, AsyncServer, Client, MethodNotFound, Server, ServerError

from .. import openrpc


@dataclass
class Item:
    sku: str
    count: int = 1


def take(item: Item) -> list[Item]:
    """Take an item."""
    return [item]


async def restock(sku: str, /, count: int = 10) -> None:
    """Order more."""


METHODS: Any = {"take": take, "restock": restock}


def check_methods(document: Any) -> None:
    openrpc.check(document)
    described = {each["name"]: (each["summary"], each["paramStructure"]) for each in document["methods"]}
    assert described == {"take": ("Take an item.", "either"), "restock": ("Order more.", "by-position")}


@pytest.mark.parametrize("dispatch", ["alone", "in a batch"])
def test_a_server_describes_itself(url: str, service: str, dispatch: str) -> None:
    server = Server(url, service, methods=METHODS, title="Stock", version="2.1", description="What there is.")
    with server, Client(url, service, timeout=60) as client:
        if dispatch == "alone":
            document = client.call("rpc.discover")
        else:
            with client.batch() as batch:
                found, taken = batch.call("rpc.discover"), batch.call("take", [{"sku": "a", "count": 2}])
            document = found.result()
            assert taken.result() == [{"sku": "a", "count": 2}]
        check_methods(document)
        assert document["info"] == {"title": "Stock", "version": "2.1", "description": "What there is."}
        server.method("later")(lambda: None)
        assert [each["name"] for each in client.call("rpc.discover")["methods"]] == ["later", "restock", "take"]


def test_a_server_on_an_event_loop_describes_itself(url: str, service: str) -> None:
    async def main() -> Any:
        async with (
            AsyncServer(url, service, methods=METHODS),
            AsyncClient(url, service, timeout=60) as client,
        ):
            return await client.call("rpc.discover")

    document = asyncio.run(main())
    check_methods(document)
    assert document["info"] == {"title": service, "version": "0"}


def test_a_server_may_have_no_such_method(service: str) -> None:
    with (
        Server(f"memory://{service}", service, discover=False),
        Client(f"memory://{service}", service) as client,
        pytest.raises(MethodNotFound) as error,
    ):
        client.call("rpc.discover")
    assert error.value.data == "rpc.discover"


def test_a_given_dispatcher_has_its_own(service: str) -> None:
    def dispatch(body: bytes) -> bytes:
        return b'{"jsonrpc": "2.0", "result": "its own", "id": %d}' % json.loads(body)["id"]

    where = f"memory://{service}"
    with Server(where, service, dispatcher=dispatch), Client(where, service) as client:
        assert client.call("rpc.discover") == "its own"


def test_who_may_ask(url: str, other_user: str, service: str) -> None:
    rules = {"rpc.discover": "guest", "*": "*"}
    with (
        Server(url, service, methods=METHODS, verify_user=True, authorize=rules),
        Client(url, service, timeout=60) as client,
        Client(other_user, service, timeout=60) as other,
    ):
        check_methods(client.call("rpc.discover"))
        assert other.call("take", [{"sku": "a"}])
        with pytest.raises(ServerError) as error:
            other.call("rpc.discover")
        assert error.value.code == NOT_AUTHORISED


def test_middleware_does_not_run_around_it(service: str) -> None:
    ran = []
    server = Server(f"memory://{service}", service)

    @server.middleware
    def noted(request: Any, call_next: Any) -> Any:
        ran.append(request.method)
        return call_next()

    with server, Client(f"memory://{service}", service) as client:
        assert client.call("rpc.discover")["methods"] == []
    assert ran == []
