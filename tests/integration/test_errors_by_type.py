"""Errors of an application, from the method that raises them to the program that catches them."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jsonrpc_amqp import (
    NOT_AUTHORISED,
    ApplicationError,
    AsyncClient,
    AsyncServer,
    Client,
    InternalError,
    InvalidParams,
    MethodNotFound,
    RemoteError,
    Server,
    ServerError,
)

from ..exceptions import OutOfStock
from ..tools import wait_for


class Closed(ApplicationError, code=1002):
    until: str | None = None


def order(sku: str, kind: str = "own") -> None:
    if kind == "own":
        raise OutOfStock(sku, left=3)
    if kind == "closed":
        raise Closed
    if kind == "params":
        raise InvalidParams("no such sku", {"sku": sku})
    if kind == "data":  # of another class with this code, perhaps in another language
        raise RemoteError(OutOfStock.code, "none left", {"left": "few"})
    if kind == "library":
        raise KeyError(sku)
    raise RemoteError(4711, "odd", [sku])


async def order_async(sku: str, kind: str = "own") -> None:
    await asyncio.sleep(0)
    order(sku, kind)


@pytest.fixture(params=["memory", "rabbitmq"])
def place(request: pytest.FixtureRequest, service: str) -> str:
    """Return the URL of a broker."""
    return f"memory://{service}" if request.param == "memory" else str(request.getfixturevalue("url"))


@pytest.fixture
def server(place: str, service: str) -> Iterator[Server]:
    with Server(place, service, methods={"order": order, "later": order_async, "echo": lambda value: value}) as server:
        server.error_handler(KeyError)(lambda exc: OutOfStock(exc.args[0]))
        yield server


@pytest.fixture
def client(place: str, service: str, server: Server) -> Iterator[Client]:
    with Client(place, service, timeout=30, errors=[OutOfStock, Closed]) as client:
        yield client


def check_own(error: BaseException | None) -> None:
    assert type(error) is OutOfStock
    assert (error.sku, error.left, error.code, error.is_reply) == ("a7", 3, 1001, True)
    assert str(error) == "As users define them (1001): {'sku': 'a7', 'left': 3}"


@pytest.mark.parametrize("method", ["order", "later"])
def test_every_form_of_a_call_raises_it(client: Client, method: str) -> None:
    with pytest.raises(OutOfStock) as caught:
        client.call(method, ["a7"])
    check_own(caught.value)
    check_own(client.submit(method, ["a7"]).exception(30))
    with pytest.raises(RemoteError) as caught_as_base:
        getattr(client.proxy, method)(sku="a7")
    check_own(caught_as_base.value)
    with client.batch() as batch:
        first, good, last = batch.call(method, ["a7"]), batch.call("echo", [1]), batch.call(method, ["a7", "closed"])
    check_own(first.exception(0))
    assert good.result(0) == 1
    assert type(last.exception(0)) is Closed


@pytest.mark.parametrize("method", ["order", "later"])
@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("closed", Closed, "Closed (1002): {'until': None}"),
        ("params", InvalidParams, "no such sku (-32602): {'sku': 'a7'}"),
        ("data", RemoteError, "none left (1001): {'left': 'few'}"),
        ("library", OutOfStock, "As users define them (1001): {'sku': 'a7', 'left': 0}"),
        ("else", RemoteError, "odd (4711): ['a7']"),
    ],
)
def test_what_is_raised_on_purpose_arrives(
    client: Client, method: str, kind: str, error: type[RemoteError], text: str
) -> None:
    with pytest.raises(RemoteError) as caught:
        client.call(method, ["a7", kind])
    assert (type(caught.value), str(caught.value)) == (error, text)


def test_options_have_classes_of_their_own(client: Client) -> None:
    none = client.with_options(errors=[], timeout=20)
    with pytest.raises(RemoteError) as caught:
        none.call("order", ["a7"])
    assert type(caught.value) is RemoteError
    assert type(none.submit("later", ["a7"]).exception(30)) is RemoteError
    with pytest.raises(OutOfStock):
        none.with_options(errors=sys.modules[__name__], timeout=20).call("order", ["a7"])
    with client.with_options(timeout=20).batch() as batch:  # as the client
        future = batch.call("order", ["a7"])
    check_own(future.exception(0))
    with pytest.raises(TypeError, match="errors are subclasses of ApplicationError"):
        client.with_options(errors=[RemoteError])  # type: ignore[list-item]  # the refusal is tested


def test_two_classes_with_one_code_are_refused(place: str) -> None:
    class Other(ApplicationError, code=1001):
        pass

    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match=r"OutOfStock and .*Other have the same code, 1001"):
            kind(place, errors=[OutOfStock, Other])


def test_a_method_that_is_not_there_is_named(client: Client) -> None:
    with pytest.raises(MethodNotFound, match=r"Method not found \(-32601\): 'no\.such'") as caught:
        client.call("no.such")
    assert caught.value.data == "no.such"


def test_what_is_not_authorised_names_nothing(place: str, service: str) -> None:
    server = Server(place, service, methods={"order": order}, authorize=lambda _request: False)
    with server, Client(place, service, timeout=30) as client:
        for method in ("order", "no.such"):
            with pytest.raises(ServerError) as caught:
                client.call(method)
            assert (caught.value.code, caught.value.data) == (NOT_AUTHORISED, None)


def test_error_of_a_notification_is_logged(client: Client, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    client.notify("order", ["a7"])
    wait_for(lambda: server.stats()["failed"] == 1)
    wait_for(lambda: "a notification of 'order' ended in: 'As users define them'" in caplog.text)


@pytest.mark.parametrize("kind", ["own", "params"])
def test_error_of_a_nested_call_is_not_that_of_the_call(
    client: Client, place: str, service: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def through() -> Any:
        return client.call("order", ["a7", kind])

    def translated() -> Any:
        try:
            return client.call("order", ["a7", kind])
        except RemoteError as error:
            raise Closed(until=str(error.code)) from error

    outer = f"{service}.outer"
    with Server(place, outer, methods={"through": through, "translated": translated}):
        with pytest.raises(InternalError) as caught:
            client.call("through", service=outer)
        assert caught.value.data is None
        with pytest.raises(Closed) as translated_error:
            client.call("translated", service=outer)
    assert translated_error.value.until in ("1001", "-32602")
    assert "it did not catch the error that a call of its own ended in" in caplog.text


def test_coroutines_and_a_server_on_their_loop(place: str, service: str) -> None:
    threads = set()

    async def use() -> None:
        server = AsyncServer(place, service, methods={"order": order, "later": order_async})

        @server.error_handler(LookupError)
        def missing(error: LookupError) -> Exception:
            threads.add(threading.current_thread())
            return Closed(until=str(error))

        async with server, AsyncClient(place, service, timeout=30, errors=[OutOfStock, Closed]) as client:
            for method in ("order", "later"):
                with pytest.raises(OutOfStock) as caught:
                    await client.call(method, ["a7"])
                check_own(caught.value)
                async with client.batch() as batch:
                    first, second = batch.call(method, ["a7"]), batch.call(method, ["b8", "library"])
                check_own(first.exception())
                with pytest.raises(Closed, match="'until': \"'b8'\""):
                    await second
                with pytest.raises(RemoteError) as plain:
                    await client.with_options(errors=()).call(method, ["a7"])
                assert type(plain.value) is RemoteError

    asyncio.run(use())
    assert threads


def test_error_handlers_of_a_server_with_another_dispatcher(place: str, service: str) -> None:
    calls: list[Callable[..., Any]] = [Server, AsyncServer]
    for kind in calls:
        with pytest.raises(TypeError, match="register methods and error handlers there"):
            kind(place, service, dispatcher=lambda body: body).error_handler(KeyError)
