"""jsonrpcserver and jsonrpcclient, used as their own documentation says, with our transport in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import jsonrpcclient
import jsonrpcserver
import pytest

from jsonrpc_amqp import Client, InvalidParams, MethodNotFound, Server

pytestmark = pytest.mark.peer("jsonrpcclient", works="all of its request builders and id generators, batches, errors")

METHODS: dict[str, Callable[..., Any]] = {
    "ping": lambda: jsonrpcserver.Success("pong"),
    "add": lambda a, b: jsonrpcserver.Success(a + b),
    "refuse": lambda: jsonrpcserver.Error(1, "not today", {"when": "tomorrow"}),
}


def raw_jsonrpcserver(body: bytes) -> bytes | None:
    """Dispatch with jsonrpcserver alone, which returns "" if there is no response."""
    return jsonrpcserver.dispatch(body.decode(), METHODS).encode() or None


RAW = pytest.mark.peer("jsonrpcserver", works="requests, notifications, batches, errors, with topic and direct replies")


@pytest.fixture(params=["ours", pytest.param("raw jsonrpcserver", marks=RAW)])
def server(request: pytest.FixtureRequest, url: str, service: str) -> Iterator[Server]:
    if request.param == "ours":
        server = Server(url, service, methods=METHODS)
    else:
        server = Server(url, service, dispatcher=raw_jsonrpcserver)
    with server:
        yield server


@pytest.fixture(params=["topic", "direct"])
def client(request: pytest.FixtureRequest, url: str, service: str, server: Server) -> Iterator[Client]:
    with Client(url, service, reply=request.param, timeout=60) as client:
        yield client


def ask(client: Client, request: str) -> Any:
    """Send text made by jsonrpcclient, and let it parse the response."""
    answer = client.send_raw(request.encode())
    assert answer is not None
    return jsonrpcclient.parse_json(answer.decode())


def test_request_json(client: Client) -> None:
    assert ask(client, jsonrpcclient.request_json("ping", id=1)) == jsonrpcclient.Ok("pong", 1)
    assert ask(client, jsonrpcclient.request_json("add", params=(1, 2), id="a.b")) == jsonrpcclient.Ok(3, "a.b")
    assert ask(client, jsonrpcclient.request_json("add", params={"a": 1, "b": 2}, id=7)) == jsonrpcclient.Ok(3, 7)


@pytest.mark.parametrize(
    "request_json", [jsonrpcclient.request_json_hex, jsonrpcclient.request_json_uuid, jsonrpcclient.request_json_random]
)
def test_ids_of_every_generator(client: Client, request_json: Any) -> None:
    request = request_json("ping")
    assert ask(client, request) == jsonrpcclient.Ok("pong", json.loads(request)["id"])


def test_errors(client: Client) -> None:
    error = ask(client, jsonrpcclient.request_json("refuse", id=1))
    assert error == jsonrpcclient.Error(1, "not today", {"when": "tomorrow"}, 1)
    assert ask(client, jsonrpcclient.request_json("absent", id=2)).code == -32601
    assert ask(client, jsonrpcclient.request_json("add", params=(1,), id=3)).code == -32602
    assert ask(client, "{").code == -32700


def test_notification(client: Client) -> None:
    assert client.send_raw(jsonrpcclient.notification_json("ping").encode()) is None


def test_batch(client: Client) -> None:
    requests = [
        jsonrpcclient.request("ping", id=1),
        jsonrpcclient.notification("ping"),
        jsonrpcclient.request("add", params=(1, 2), id=2),
    ]
    assert list(ask(client, json.dumps(requests))) == [jsonrpcclient.Ok("pong", 1), jsonrpcclient.Ok(3, 2)]


def test_our_own_forms_against_either_server(client: Client) -> None:
    assert client.call("add", [1, 2]) == 3
    assert client.send(jsonrpcclient.request("ping", id=1)) == jsonrpcclient.Ok("pong", 1)
    with client.batch() as batch:
        three, missing = batch.call("add", [1, 2]), batch.call("absent")
    assert three.result() == 3
    assert isinstance(missing.exception(), MethodNotFound)
    with pytest.raises(InvalidParams):
        client.call("add", [1])
    client.notify("ping")
