"""The dialects between a client and a server, on a broker and without one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pika
import pytest

from jsonrpc_amqp import (
    CallTimeout,
    Client,
    EncodeError,
    InternalError,
    InvalidParams,
    MalformedReply,
    MethodNotFound,
    ParseError,
    RemoteError,
    Server,
)

from ..tools import wait_for

seen: list[Any] = []


def note(value: Any) -> Any:
    seen.append(value)
    return value


METHODS: dict[str, Callable[..., Any]] = {
    "note": note,
    "now": lambda: {"msg": "Tue Nov 24 21:03:12 2026"},
    "fail": lambda value: 1 / value,
    "two": lambda a, b: [a, b],
}


@pytest.fixture(params=["memory", "rabbitmq"])
def place(request: pytest.FixtureRequest, service: str) -> str:
    """Return a URL."""
    return f"memory://{service}" if request.param == "memory" else str(request.getfixturevalue("url"))


# -- recipe2011, client and server ------------------------------------------------------------------------


@pytest.fixture
def old_server(place: str, service: str) -> Iterator[Server]:
    seen.clear()
    with Server(
        place, service, exchange="TestExchange", queue=f"{service}_old", dialect="recipe2011", recipe_method="note",
        methods=METHODS,
    ) as server:  # fmt: skip
        yield server


@pytest.fixture
def old_client(place: str, service: str, old_server: Server) -> Iterator[Client]:
    with Client(place, service, exchange="TestExchange", dialect="recipe2011", timeout=10) as client:
        yield client


def test_recipe_client_calls_recipe_server(old_client: Client) -> None:
    assert old_client.call("anything", [{"q": "time?"}]) == {"q": "time?"}
    assert old_client.call("anything", {"q": "by name"}) == {"q": "by name"}
    assert old_client.call("anything") is None
    assert old_client.proxy.anything("ü") == "ü"
    assert [old_client.submit("x", [n]) for n in range(100)][99].result(10) == 99
    assert json.loads(old_client.send_raw(b'{"jsonrpc":"2.0","method":"x","params":[1],"id":"a.b"}') or b"") == {
        "jsonrpc": "2.0",
        "result": 1,
        "id": "a.b",
    }


def test_recipe_notification(old_client: Client) -> None:
    old_client.notify("anything", ["hello"])
    wait_for(lambda: seen == ["hello"])


def test_recipe_is_served_beside_json_rpc(place: str, service: str, old_client: Client) -> None:
    with Client(place, service, exchange="TestExchange", timeout=10) as client:
        assert client.call("two", [1, 2]) == [1, 2]
        assert client.call("note", [3]) == 3
        assert old_client.call("note", [4]) == 4
        with pytest.raises(MethodNotFound):
            client.call("absent")
        with pytest.raises(RemoteError, match="-32700"):
            raise_error(client.send_raw(b"junk"))


def raise_error(answer: bytes | None) -> None:
    error = json.loads(answer or b"")["error"]
    raise RemoteError(error["code"], error["message"])


def test_recipe_errors_come_as_errors(place: str, service: str) -> None:
    with (
        Server(place, service, exchange="TestExchange", dialect="recipe2011", recipe_method="fail", methods=METHODS),
        Client(place, service, exchange="TestExchange", dialect="recipe2011", timeout=10) as client,
    ):
        assert client.call("x", [2]) == 0.5
        with pytest.raises(InternalError):
            client.call("x", [0])


@pytest.mark.parametrize("depth", [98, 99, 100, 101])
def test_recipe_at_the_limit_of_nesting(old_client: Client, depth: int) -> None:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    with pytest.raises((EncodeError, ParseError, MalformedReply)) if depth > 98 else nullcontext():
        assert old_client.call("x", [value]) == value
    # Other calls, and the connection, are not affected.
    assert old_client.call("x", [1]) == 1
    assert old_client.stats()["connections"] == 1


def test_recipe_method_that_is_missing(place: str, service: str) -> None:
    with (
        Server(place, service, exchange="TestExchange", dialect="recipe2011", recipe_method="later") as server,
        Client(place, service, exchange="TestExchange", dialect="recipe2011", timeout=10) as client,
    ):
        with pytest.raises(MethodNotFound):
            client.call("x", [1])
        server.method("later")(lambda: "now")
        assert client.call("x", [1]) == "now"


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'[{"jsonrpc":"2.0","method":"x","id":1}]',
        b"junk",
        b'{"jsonrpc":"2.0","method":"x","params":[1,2],"id":1}',
    ],
)
def test_recipe_has_no_form_for_it(old_client: Client, body: bytes) -> None:
    with pytest.raises(EncodeError, match="nothing was sent"):
        old_client.send_raw(body)
    assert old_client.stats()["pending"] == 0


def test_recipe_malformed_are_counted_and_never_come_back(url: str, service: str) -> None:
    options: dict[str, Any] = {"exchange": "TestExchange", "dialect": "recipe2011", "recipe_method": "note"}
    with Server(url, service, methods=METHODS, **options) as server:
        connection = pika.BlockingConnection(pika.URLParameters(url))
        channel = connection.channel()
        for body in (b"junk", b'{"qid":"q1"}', b'{"q":1,"qid":[]}'):
            channel.basic_publish("TestExchange", f"{service}.request.*", body)
        wait_for(lambda: server.stats()["malformed"] == 3)
        server.stop()
        assert server.stats()["received"] == 3
        assert channel.queue_declare(f"{service}_req", passive=True).method.message_count == 0
        connection.close()


def test_recipe_client_times_out(place: str, service: str) -> None:
    Server(place, service, exchange="TestExchange").start().stop()
    options: dict[str, Any] = {"exchange": "TestExchange", "dialect": "recipe2011"}
    with Client(place, service, **options) as client, pytest.raises(CallTimeout):
        client.call("x", timeout=0.5)


@pytest.mark.parametrize(
    ("method", "problem"),
    [("note", None), ("now", None), ("absent", "there is no method 'absent'"), ("two", "'two' cannot be called")],
)
def test_recipe_method_that_cannot_serve_is_reported(
    service: str, caplog: pytest.LogCaptureFixture, method: str, problem: str | None
) -> None:
    server = Server(f"memory://{service}", service, dialect="recipe2011", recipe_method=method, methods=METHODS)
    with server:
        pass
    assert (problem is None) == (server.dialect_problem is None) == (not caplog.records)
    assert problem is None or problem in str(server.dialect_problem)
    assert problem is None or problem in caplog.text


def test_recipe_params_that_do_not_fit_are_logged(place: str, service: str, caplog: pytest.LogCaptureFixture) -> None:
    # An optional parameter gets the question.
    methods: dict[str, Callable[..., Any]] = {"time.now": time.ctime}
    options: dict[str, Any] = {"exchange": "TestExchange", "dialect": "recipe2011"}
    with (
        Server(place, service, recipe_method="time.now", methods=methods, **options),
        Client(place, service, timeout=10, **options) as client,
        pytest.raises(InvalidParams),
    ):
        client.call("x", ["what time is it?"])
    assert "'time.now' did not take what a request of the dialect recipe2011 brought" in caplog.text


def test_recipe_client_of_an_ordinary_server_times_out_with_a_hint(place: str, service: str) -> None:
    with (
        Server(place, service, exchange="TestExchange", methods=METHODS),
        Client(place, service, exchange="TestExchange", dialect="recipe2011", timeout=0.3) as client,
        pytest.raises(CallTimeout, match="speaks this dialect"),
    ):
        client.call("note", [1])


# -- rabbitmq-java ----------------------------------------------------------------------------------------


def test_java_request_without_the_dialect_gets_a_hint(place: str, service: str) -> None:
    with Server(place, service), Client(place, queue=f"{service}_req", timeout=10) as client:
        answer = client.send_raw(b'{"method":"system.describe","id":null,"params":[],"version":"1.1"}')
    assert "rabbitmq-java" in json.loads(answer or b"")["error"]["data"]


def test_java_description(place: str, service: str) -> None:
    server = Server(place, service, methods=METHODS, dialect="rabbitmq-java")
    with server, Client(place, queue=f"{service}_req", timeout=10) as client:
        described = json.loads(
            client.send_raw(b'{"method":"system.describe","id":null,"params":[],"version":"1.1"}') or b""
        )
    assert (described["version"], described["id"]) == ("1.1", None)
    assert described["result"]["name"] == service
    params = {each["name"]: [param["name"] for param in each["params"]] for each in described["result"]["procs"]}
    assert params == {"note": ["value"], "now": [], "fail": ["value"], "two": ["a", "b"], "system.describe": []}


# -- options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dialect": "recipe2011"}, "need each other"),
        ({"recipe_method": "x"}, "need each other"),
        ({"dialect": "latin"}, "dialect is"),
        ({"dialect": "rabbitmq-java", "dispatcher": lambda _body: None}, "our own dispatcher"),
    ],
)
def test_server_options(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Server("memory://", "s", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dialect": "rabbitmq-java"}, "dialect is"),
        ({"dialect": "recipe2011", "reply": "direct"}, "over the exchange only"),
        ({"dialect": "recipe2011", "queue": "q"}, "over the exchange only"),
    ],
)
def test_client_options(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Client("memory://", "s", **options)
