"""What a server counts."""

from __future__ import annotations

import pytest

from jsonrpc_amqp.server.counters import Counters


def test_a_snapshot_is_a_copy() -> None:
    counters = Counters()
    counters.add("received", 3)
    before = counters.snapshot()
    counters.add("received")
    assert (before["received"], counters.snapshot()["received"], before["failed"]) == (3, 4, 0)


def test_a_name_that_is_not_known_is_an_error() -> None:
    with pytest.raises(KeyError):
        Counters().add("misspelt")
