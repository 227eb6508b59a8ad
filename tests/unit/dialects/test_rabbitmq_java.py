"""The dialect of RabbitMQ's Java classes: requests read, replies written, the service described."""

from __future__ import annotations

import json
from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest

from jsonrpc_amqp.dialects.rabbitmq_java import JavaServer

from .tools import read, translated


def java() -> JavaServer:
    return JavaServer("S", dict)


def test_java_call() -> None:
    inbound = translated(java(), b'{"method":"add","id":null,"params":[1,2],"version":"1.1"}')
    assert json.loads(inbound.body) == {"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 0}
    assert inbound.route is None
    assert json.loads(inbound.reply(b'{"jsonrpc":"2.0","result":3,"id":0}')) == {
        "version": "1.1",
        "id": None,
        "result": 3,
    }
    error = inbound.reply(b'{"jsonrpc":"2.0","error":{"code":7,"message":"no","data":[1]},"id":0}')
    assert json.loads(error)["error"] == {"name": "JSONRPCError", "code": 7, "message": "no", "error": [1]}
    # The order counts: one of the client's mappers takes the last "message" that it meets.
    assert error.endswith(b'},"name":"JSONRPCError","code":7,"message":"no"}')


@pytest.mark.parametrize(
    "body", [b'{"jsonrpc":"2.0","method":"add","version":"1.1"}', b"[]", b"junk", b'{"version":"1.0"}', b"5"]
)
def test_java_leaves_the_rest_alone(body: bytes) -> None:
    assert read(java(), body) is None


def test_java_description_by_number_of_params() -> None:
    methods: dict[str, Callable[..., Any]] = {
        "some": lambda a, b=1, *, c=2: a,
        "never": lambda *, c: c,
        "any": lambda a, *more: a,
    }
    procs = JavaServer("S", lambda: {name: signature(each) for name, each in methods.items()})
    counts: dict[str, list[int]] = {}
    for each in procs.describe()["procs"]:
        counts.setdefault(each["name"], []).append(len(each["params"]))
        assert each["javaReturnType"] == "java.lang.Object"
        assert each["idempotent"] is False
    assert counts == {"some": [1, 2], "any": list(range(1, 17))}
