"""Requests for clients and servers of other libraries (the programs in peers/), and the expected responses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from jsonrpc_amqp import Client, InvalidParams, MethodNotFound

PLAIN: dict[str, dict[str, Any]] = {
    '{"jsonrpc":"2.0","method":"subtract","params":[42,23],"id":1}': {"result": 19, "id": 1},
    '{"jsonrpc":"2.0","method":"subtract","params":{"subtrahend":23,"minuend":42},"id":2}': {"result": 19, "id": 2},
    '{"jsonrpc":"2.0","method":"echo","params":["ü 中 😀"],"id":"a.b"}': {"result": "ü 中 😀", "id": "a.b"},
    '{"jsonrpc":"2.0","method":"get_data","id":"q518"}': {"result": ["hello", 5], "id": "q518"},
    '{"jsonrpc":"2.0","method":"absent","id":4}': {"error": -32601, "id": 4},
    '{"jsonrpc":"2.0","method":"subtract","params":[1],"id":5}': {"error": -32602, "id": 5},
    '{"jsonrpc":"2.0","method":"fail","id":6}': {"error": -32603, "id": 6},
    '{"jsonrpc":"2.0","method":"refuse","id":7}': {"error": 1, "id": 7, "data": {"when": "tomorrow"}},
}
BATCH = (
    '[{"jsonrpc":"2.0","method":"sum","params":[1,2,4],"id":"1"},{"jsonrpc":"2.0","method":"update","params":[1]},'
    '{"jsonrpc":"2.0","method":"absent","id":2}]'
)
BROKEN = '{"jsonrpc":"2.0","method":"subtract","params":['
FRACTION = '{"jsonrpc":"2.0","method":"subtract","params":[42,23],"id":1.5}'


def ask(command: Sequence[str], lines: Sequence[str], *, timeout: float = 150) -> list[Any]:
    """Run a program, and return the response that it prints for each line."""
    done = subprocess.run(
        command, input="".join(f"{line}\n" for line in lines), capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    responses = done.stdout.splitlines()
    assert len(responses) == len(lines), f"{done.stdout}\n{done.stderr}"
    return [json.loads(response) for response in responses]


def check_plain(command: Sequence[str], *, own_ids: bool = False) -> None:
    """Check results, and errors of every kind; ``own_ids``: the peer makes its own ids."""
    for wanted, response in zip(PLAIN.values(), ask(command, list(PLAIN)), strict=True):
        check(response, {**wanted, "id": response["id"]} if own_ids else wanted)


def check(response: Any, wanted: dict[str, Any]) -> None:
    """Compare one response."""
    assert response["jsonrpc"] == "2.0"
    assert response["id"] == wanted["id"]
    if "error" in wanted:
        assert response["error"]["code"] == wanted["error"]
        assert "data" not in wanted or response["error"]["data"] == wanted["data"]
    else:
        assert response["result"] == wanted["result"]


def check_batch(command: Sequence[str]) -> None:
    """Check a batch with a call, a notification, and a call that fails."""
    (response,) = ask(command, [BATCH])
    by_id = {each["id"]: each for each in response}
    assert len(response) == 2
    check(by_id["1"], {"result": 7, "id": "1"})
    check(by_id[2], {"error": -32601, "id": 2})


def check_odd(command: Sequence[str]) -> None:
    """Check invalid JSON, and an id with a fraction."""
    broken, fraction = ask(command, [BROKEN, FRACTION])
    check(broken, {"error": -32700, "id": None})
    check(fraction, {"result": 19, "id": 1.5})


def check_many(command: Sequence[str], count: int, *, own_ids: bool = False) -> None:
    """Check many requests, each with its own response."""
    lines = [f'{{"jsonrpc":"2.0","method":"echo","params":[{number}],"id":{number}}}' for number in range(count)]
    for number, response in enumerate(ask(command, lines)):
        check(response, {"result": number, "id": response["id"] if own_ids else number})


def check_server(client: Client) -> None:
    """Check results, the standard errors, and a batch, of a server with ``subtract`` and ``echo``."""
    assert client.call("subtract", [42, 23]) == 19
    assert client.call("subtract", {"minuend": 42, "subtrahend": 23}) == 19
    assert client.call("echo", ["ü 中 😀"]) == "ü 中 😀"
    with pytest.raises(MethodNotFound):
        client.call("absent")
    with pytest.raises(InvalidParams):
        client.call("subtract", [1])
    with client.batch() as batch:
        one, missing = batch.call("subtract", [3, 2]), batch.call("absent")
    assert one.result() == 1
    assert isinstance(missing.exception(), MethodNotFound)


def check_server_at_once(client: Client) -> None:
    """Check a thousand calls, each with its own result."""
    futures = [client.submit("echo", [number]) for number in range(1000)]
    assert [future.result(20) for future in futures] == list(range(1000))
