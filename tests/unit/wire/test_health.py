"""What is in the way of a connection."""

from __future__ import annotations

from typing import Any

import pytest

from jsonrpc_amqp import NotConnected
from jsonrpc_amqp.wire.health import Health, problems_of

from ..client.fakes import FakeSession


def test_nothing_is_in_the_way() -> None:
    health = Health()
    assert health.is_ready
    assert health.is_alive
    assert not Health(("x",)).is_ready


def session(**state: bool) -> Any:
    made = FakeSession()
    for name, value in state.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("session", "failure", "problems"),
    [
        (session(), None, []),
        (session(), NotConnected("an earlier one"), []),
        (None, None, ["there is no connection to the broker"]),
        (None, NotConnected("refused"), ["there is no connection to the broker: refused"]),
        (session(hears_broker=False), None, ["the broker has been silent for longer than a heartbeat"]),
        (session(congested=True), None, ["the broker takes no messages (a memory or disk alarm?)"]),
    ],
)
def test_what_is_in_the_way(session: Any, failure: NotConnected | None, problems: list[str]) -> None:
    assert list(problems_of(session, failure)) == problems
