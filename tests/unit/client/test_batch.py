"""Calls and notifications that leave as one message."""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, as_completed, wait
from types import MappingProxyType
from typing import Any

import pytest

from jsonrpc_amqp.client.batch import Batch
from jsonrpc_amqp.client.call import Call, WaitingCall
from jsonrpc_amqp.client.proxy import Proxy
from jsonrpc_amqp.errors import CallTimeout, EncodeError, MalformedReply, MethodNotFound


class Sending:
    """Notes what batches send, and replies with ``reply``."""

    def __init__(self, *reply: object) -> None:
        self.reply: bytes | Exception = json.dumps(reply).encode()
        self.sent: list[tuple[Any, bool]] = []
        self.pending: list[Call] = []
        self.on_wait: Callable[[], object] = lambda: None
        self._ids = itertools.count(1)

    def batch(self) -> Batch:
        return Batch(lambda: next(self._ids), self._make, wait=self._wait, drop=self._drop)

    def _make(self, body: bytes, is_notification: bool) -> WaitingCall:
        self.sent.append((json.loads(body), is_notification))
        return WaitingCall("S", body, "_", 30.0, 30.0)

    def _wait(self, call: WaitingCall) -> bytes:
        self.pending.append(call)
        self.on_wait()
        if isinstance(self.reply, Exception):
            raise self.reply
        return call.result() if call.is_done() else self.reply

    def _drop(self, call: Call) -> bool:
        is_mine = call in self.pending
        if is_mine:
            self.pending.remove(call)
        return is_mine


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


def test_params_are_taken_as_they_are_when_they_are_given() -> None:
    made, given = Sending(ok(1, 1), ok(2, 2)), deque([1])
    with made.batch() as batch:
        batch.call("a", given)
        batch.call("b", range(2))
        batch.notify("c", MappingProxyType({"x": 1}))
        given.append(2)
        with pytest.raises(TypeError, match="not str; put a single value in a list"):
            batch.call("d", "text")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="not bytes; put a single value in a list"):
            batch.notify("d", b"text")  # type: ignore[arg-type]
    assert [request["params"] for request in made.sent[0][0]] == [[1], [0, 1], {"x": 1}]


def test_a_proxy_of_a_batch_takes_any_name() -> None:
    made = Sending(ok(1, 1))
    with made.batch() as batch:
        Proxy(batch.call, "").link(self="/a", method="x", params=1)
    assert made.sent[0][0][0]["params"] == {"self": "/a", "method": "x", "params": 1}


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


def test_member_that_was_cancelled_before_is_not_sent() -> None:
    made = Sending(ok(2, 2))
    with made.batch() as batch:
        cancelled, other = batch.call("a"), batch.call("b")
        assert cancelled.cancel()
    assert [request["id"] for request in made.sent[0][0]] == [2]
    assert cancelled.cancelled()
    assert other.result(0) == 2


@pytest.mark.parametrize("notifies", [False, True])
def test_what_is_left_of_a_batch_whose_calls_were_cancelled_before(notifies: bool) -> None:
    made = Sending()
    made.reply = b""
    with made.batch() as batch:
        if notifies:
            batch.notify("log")
        assert batch.call("a").cancel()
    assert made.sent == ([([{"jsonrpc": "2.0", "method": "log"}], True)] if notifies else [])


def test_member_that_is_cancelled_under_way_takes_no_result() -> None:
    made = Sending(ok(1, 1), ok(2, 2))
    with made.batch() as batch:
        cancelled, other = batch.call("a"), batch.call("b")
        made.on_wait = cancelled.cancel
    assert cancelled.cancelled()
    assert other.result(0) == 2
    assert len(made.pending) == 1


def test_batch_is_given_up_once_all_its_calls_are_cancelled() -> None:
    made = Sending(ok(1, 1), ok(2, 2))
    with made.batch() as batch:
        batch.notify("log")
        futures = [batch.call("a"), batch.call("b")]
        made.on_wait = lambda: [future.cancel() for future in futures]
    assert all(future.cancelled() for future in futures)
    assert made.pending == []


def test_batch_whose_reply_is_there_is_not_given_up() -> None:
    made = Sending(ok(1, 1))

    def reply_and_cancel() -> None:
        (call,) = made.pending
        made.pending.clear()
        assert isinstance(call, WaitingCall)
        call.succeed(made.reply if isinstance(made.reply, bytes) else b"")
        future.cancel()

    with made.batch() as batch:
        future = batch.call("a")
        made.on_wait = reply_and_cancel
    assert future.cancelled()
    assert made.sent


@pytest.mark.parametrize("raises", [False, True])
def test_cancelled_members_wake_those_who_wait_for_several(raises: bool) -> None:
    made = Sending()
    batch = made.batch()
    batch.__enter__()
    future = batch.call("a")
    if raises:
        batch.__exit__(KeyError, KeyError(), None)
    else:
        future.cancel()
        batch.__exit__(None, None, None)
    assert wait([future], timeout=10).done == {future}
    assert list(as_completed([future], timeout=10)) == [future]


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
