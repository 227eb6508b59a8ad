"""The request that a handler serves."""

from __future__ import annotations

import time

import pytest

from jsonrpc_amqp.context import NoEnvelope, Request, current_or_none, current_request, enter, leave


def test_there_is_a_request_only_while_one_is_served() -> None:
    request = Request("m", 1, False, NoEnvelope())
    assert current_or_none() is None
    token = enter(request)
    assert current_request() is current_or_none() is request
    leave(token)
    with pytest.raises(RuntimeError, match="only known inside a method"):
        current_request()


def test_a_request_shows_its_envelope() -> None:
    envelope = NoEnvelope("S", "S.request.c.1", {"trace": "t"}, "alice", True)
    request = Request("m", 1, False, envelope)
    assert (request.service, request.routing_key, request.headers) == ("S", "S.request.c.1", {"trace": "t"})
    assert (request.user_id, request.redelivered, request.remaining) == ("alice", True, None)


def test_remaining_is_never_negative() -> None:
    def remaining(deadline: float) -> float | None:
        return Request("m", 1, False, NoEnvelope(deadline=deadline)).remaining

    now = time.monotonic()
    left = remaining(now + 100)
    assert left is not None
    assert 99 < left <= 100
    assert remaining(now - 1) == 0
