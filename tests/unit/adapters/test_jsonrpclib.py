"""The adapter's transport: headers, notifications, and a client that stays open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonrpclib.SimpleJSONRPCServer import SimpleJSONRPCDispatcher

from jsonrpc_amqp import Client, Server, current_request
from jsonrpc_amqp.adapters.jsonrpclib import AmqpTransport, dispatcher

CALL = '{"jsonrpc": "2.0", "method": "headers", "id": 1}'


def headers() -> dict[str, Any]:
    return {name: value for name, value in current_request().headers.items() if name != "timeout-ms"}


@pytest.fixture
def client(service: str) -> Iterator[Client]:
    url = f"memory://{service}"
    with Server(url, service, methods={"headers": headers}), Client(url, service, timeout=10) as client:
        yield client


def test_pushed_headers_are_sent_until_they_are_popped(client: Client) -> None:
    transport = AmqpTransport(client)
    transport.push_headers({"a": 1, "b": 2})
    transport.push_headers({"b": 3})
    assert '"result":{"a":"1","b":"3"}' in transport.request("host", "/", CALL).replace(" ", "")
    transport.pop_headers({"b": 3})
    with pytest.raises(AssertionError):
        transport.pop_headers({"b": 3})


def test_the_reply_to_a_notification_is_empty_and_the_client_stays_open(client: Client) -> None:
    transport = AmqpTransport(client)
    assert transport.request("host", "/", '{"jsonrpc": "2.0", "method": "headers"}') == ""
    transport.close()
    assert client.call("headers") == {}


@pytest.mark.parametrize("id", [None, "", 1.5])
def test_a_call_that_the_library_takes_for_a_notification_gets_its_result(id: Any) -> None:
    methods = SimpleJSONRPCDispatcher()
    methods.register_function(lambda: 1, "one")
    dispatch = dispatcher(methods, max_batch=1)
    call = {"jsonrpc": "2.0", "method": "one", "id": id}
    assert json.loads(dispatch(json.dumps(call).encode()) or b"") == {"jsonrpc": "2.0", "result": 1, "id": id}
    assert b"-32600" in (dispatch(b"[1, 2]") or b"")
    assert dispatch(b'{"jsonrpc": "2.0", "method": "one"}') is None
