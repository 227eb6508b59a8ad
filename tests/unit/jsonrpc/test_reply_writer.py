"""Replies: what JSON has no form for, and what is over the size cap."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
from jsonrpcserver import Error

from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher
from jsonrpc_amqp.jsonrpc.reply_writer import ReplyWriter

from .tools import ask, check_error, request


@dataclass
class Reading:
    value: float


@pytest.mark.parametrize(
    "result",
    [object(), math.nan, [math.inf], Reading(math.nan), "\ud800", 10**5000, {(1, 2): 3}],
    ids=lambda result: type(result).__name__,
)
def test_results_without_a_form_cost_themselves_only(result: Any, caplog: pytest.LogCaptureFixture) -> None:
    dispatcher = Dispatcher({"bad": lambda: result, "echo": lambda value: value})
    check_error(ask(dispatcher, request("bad")), -32603)
    first, second, third = ask(dispatcher, [request("echo", [1], 1), request("bad", id=2), request("echo", [3], 3)])
    assert (first["result"], third["result"]) == (1, 3)
    check_error(second, -32603, 2)
    assert dispatcher.failures == 2
    assert "'bad'" in caplog.text
    assert "Traceback" in caplog.text
    assert ask(Dispatcher({"bad": lambda: result}, expose_errors=True), request("bad"))["error"]["data"]


def test_error_data_without_a_form_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    dispatcher = Dispatcher({"m": lambda: Error(5, "no", object())})
    assert ask(dispatcher, request("m"))["error"] == {"code": 5, "message": "no"}
    assert dispatcher.failures == 1
    assert "Traceback" in caplog.text


def test_the_size_cap_of_replies() -> None:
    dispatcher = Dispatcher({"make": lambda size: "x" * size}, max_size=2000)
    around = len(b'{"jsonrpc":"2.0","result":"","id":1}')
    largest = dispatcher(json.dumps(request("make", [2000 - around])).encode())
    assert largest is not None
    assert len(largest) == 2000
    check_error(
        ask(dispatcher, request("make", [2001 - around])),
        -32603,
        data="the reply is over the size cap of 2000 bytes",
    )
    assert dispatcher.failures == 1


@pytest.mark.parametrize("batch", [False, True])
def test_an_error_whose_data_are_over_the_cap_is_sent_without_them(
    batch: bool, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher = Dispatcher({"m": lambda size: Error(5, "no", "x" * size), "n": lambda: 1}, max_size=2000)
    asked: Any = [request("m", [3000]), request("n", id=2)] if batch else request("m", [3000])
    answer = ask(dispatcher, asked)
    assert (answer[0] if batch else answer)["error"] == {"code": 5, "message": "no"}
    assert not batch or answer[1]["result"] == 1
    assert dispatcher.failures == 1
    assert "sent without data" in caplog.text


def test_an_error_whose_message_is_over_the_cap_is_replaced() -> None:
    dispatcher = Dispatcher({"m": lambda: Error(5, "x" * 3000, "y")}, max_size=2000)
    check_error(ask(dispatcher, request("m")), -32603, data="the reply is over the size cap of 2000 bytes")


@pytest.mark.parametrize("position", range(5))
def test_a_large_result_costs_itself_only(position: int) -> None:
    dispatcher = Dispatcher({"make": lambda size: "x" * size}, max_size=4096)
    answer = ask(dispatcher, [request("make", [4000 if n == position else 10], n) for n in range(5)])
    assert [response["id"] for response in answer] == list(range(5))
    assert [n for n, response in enumerate(answer) if "error" in response] == [position]
    assert dispatcher.failures == 1


def test_results_that_are_large_together_are_written_while_there_is_room() -> None:
    dispatcher = Dispatcher({"make": lambda size: "x" * size}, max_size=10_000)
    body = dispatcher(json.dumps([request("make", [3000], n) for n in range(10)]).encode())
    assert body is not None
    assert len(body) <= 10_000
    answer = json.loads(body)
    assert ["result" in response for response in answer] == [True] * 2 + [False] * 8


def test_the_results_of_a_batch_are_not_all_in_memory_at_once() -> None:
    class Large(str):
        alive = most = 0

        def __new__(cls) -> Large:
            cls.alive += 1
            cls.most = max(cls.most, cls.alive)
            return super().__new__(cls, "x" * 5000)

        def __del__(self) -> None:
            type(self).alive -= 1

    dispatcher = Dispatcher({"large": Large}, max_size=10_000)
    assert len(ask(dispatcher, [request("large", id=n) for n in range(20)])) == 20
    assert Large.most <= 2


@pytest.mark.parametrize("batch", [False, True])
def test_a_reply_never_exceeds_the_cap_even_with_huge_ids(batch: bool) -> None:
    dispatcher = Dispatcher(max_size=1024)
    value: Any = [request("absent", id="x" * 100 + str(n)) for n in range(6)] if batch else request("a", id="x" * 960)
    body = dispatcher(json.dumps(value, separators=(",", ":")).encode())
    assert body is not None
    assert len(body) <= 1024
    check_error(json.loads(body), -32603, None, data="the reply is over the size cap of 1024 bytes")


def write_batch(writer: ReplyWriter, methods: list[str | None], responses: list[Any]) -> tuple[bytes | None, int]:
    batch = writer.batch(len(methods))
    for method, response in zip(methods, responses, strict=True):
        batch.add(method, response)
    return batch.finish()


def test_a_writer_counts_the_errors_that_it_writes() -> None:
    writer = ReplyWriter(max_size=1024, max_depth=5, expose_errors=False)
    result = {"jsonrpc": "2.0", "result": 1, "id": 1}
    text, failures = writer.write("m", result)
    assert (json.loads(text), failures) == (result, 0)
    text, failures = writer.write("m", result | {"result": "x" * 1024})
    assert (json.loads(text)["error"]["code"], failures) == (-32603, 1)
    batch, failures = write_batch(writer, ["m", None, "n"], [result, None, result | {"result": math.nan}])
    assert batch is not None
    assert [("error" in response) for response in json.loads(batch)] == [False, True]
    assert failures == 1
    assert write_batch(writer, ["m"], [None]) == (None, 0)
