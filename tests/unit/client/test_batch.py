"""Calls and notifications that leave as one message."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from jsonrpc_amqp.client.batch import Batch
from jsonrpc_amqp.errors import CallTimeout, EncodeError, MalformedReply, MethodNotFound


class Sending:
    """Notes what batches send, and replies with ``reply``."""

    def __init__(self, *reply: object) -> None:
        self.reply: bytes | Exception = json.dumps(reply).encode()
        self.sent: list[tuple[Any, bool]] = []
        self._ids = itertools.count(1)

    def batch(self) -> Batch:
        return Batch(lambda: next(self._ids), self._send)

    def _send(self, body: bytes, is_notification: bool) -> bytes:
        self.sent.append((json.loads(body), is_notification))
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


def ok(number: int, result: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "result": result}


def error(number: int, code: int) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": "no"}}


def test_members_leave_as_one_message_when_the_block_ends() -> None:
    made = Sending(ok(2, "two"), ok(1, "one"))
    with made.batch() as batch:
        first = batch.call("add", [1, 2])
        batch.notify("log", {"a": 1})
        second = batch.call("now")
        assert made.sent == []
        assert not first.done()
    assert made.sent == [
        (
            [
                {"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1},
                {"jsonrpc": "2.0", "method": "log", "params": {"a": 1}},
                {"jsonrpc": "2.0", "method": "now", "id": 2},
            ],
            False,
        )
    ]
    # Paired by their ids, whatever the order of the reply.
    assert (first.result(0), second.result(0)) == ("one", "two")


def test_only_notifications_await_no_reply() -> None:
    made = Sending()
    made.reply = b""
    with made.batch() as batch:
        batch.notify("log")
    assert made.sent == [([{"jsonrpc": "2.0", "method": "log"}], True)]


def test_empty_batch_is_not_sent() -> None:
    made = Sending()
    with made.batch():
        pass
    assert made.sent == []


def test_errors_of_members_are_their_own() -> None:
    made = Sending(error(1, -32601), ok(2, 2))
    with made.batch() as batch:
        bad, good = batch.call("a"), batch.call("b")
    assert isinstance(bad.exception(0), MethodNotFound)
    assert good.result(0) == 2


def test_member_without_a_response_is_malformed_alone() -> None:
    made = Sending(ok(2, 2))
    with made.batch() as batch:
        missing, there = batch.call("a"), batch.call("b")
    assert isinstance(missing.exception(0), MalformedReply)
    assert there.result(0) == 2


def test_error_of_the_message_is_raised_and_ends_all_futures() -> None:
    made = Sending()
    made.reply = CallTimeout("no answer")
    batch = made.batch()
    futures: list[Future[Any]] = []
    with pytest.raises(CallTimeout) as caught, batch:
        futures += [batch.call("a"), batch.call("b")]
    assert [future.exception(0) for future in futures] == [caught.value, caught.value]


def test_batch_that_json_cannot_express_is_not_sent() -> None:
    made = Sending()
    batch = made.batch()
    with pytest.raises(EncodeError), batch:
        future = batch.call("a", [object()])
    assert made.sent == []
    assert isinstance(future.exception(0), EncodeError)


def test_block_that_raises_sends_nothing() -> None:
    made = Sending()
    batch = made.batch()
    batch.__enter__()
    future = batch.call("a")
    batch.__exit__(KeyError, KeyError(), None)
    assert made.sent == []
    with pytest.raises(CancelledError):
        future.result(0)


def test_member_that_was_cancelled_takes_no_result() -> None:
    made = Sending(ok(1, 1), ok(2, 2))
    with made.batch() as batch:
        cancelled, other = batch.call("a"), batch.call("b")
        assert cancelled.cancel()
    assert cancelled.cancelled()
    assert other.result(0) == 2


def test_results_cannot_be_waited_for_inside_the_block() -> None:
    made = Sending(ok(1, 1))
    with made.batch() as batch:
        future = batch.call("a")
        for wait in (future.result, future.exception):
            with pytest.raises(RuntimeError, match="the batch is sent when its with block ends"):
                wait(0)
    assert future.exception(0) is None


def test_batch_takes_calls_inside_its_block_only() -> None:
    made = Sending()
    batch = made.batch()
    for _ in ("before", "after"):
        for add in (batch.call, batch.notify):
            with pytest.raises(RuntimeError, match="a batch takes calls inside its with block"):
                add("a")
        if _ == "before":
            with batch:
                pass


def test_batch_is_used_once() -> None:
    batch = Sending().batch()
    with batch, pytest.raises(RuntimeError, match="a batch is used once; make another"):
        batch.__enter__()
    with pytest.raises(RuntimeError, match="a batch is used once; make another"):
        batch.__enter__()
