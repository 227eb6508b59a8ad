"""When a connection without progress ends. All else is tested with sockets (tests/integration/http/test_gateway.py)."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from jsonrpc_amqp.http.http_server import LimitedProtocol

ABORTED, WAITS_ON, SERVED = "aborted", "waits on", "served"


@pytest.mark.parametrize(
    ("before", "unsent", "is_running", "outcome"),
    [
        (0, 0, False, ABORTED),  # a head that does not come
        (9, 9, False, ABORTED),  # a response that is not read
        (9, 9, True, ABORTED),  # the same, with another request behind it
        (9, 5, False, WAITS_ON),
        (9, 5, True, WAITS_ON),
        (9, 0, False, WAITS_ON),
        (9, 0, True, SERVED),  # the next request takes its time
        (0, 0, True, SERVED),
    ],
)
def test_without_progress_it_ends(before: int, unsent: int, is_running: bool, outcome: str) -> None:
    connection = Mock()
    connection._unsent = before
    connection.transport.get_write_buffer_size.return_value = unsent
    connection.cycle.response_complete = not is_running
    LimitedProtocol._end_without_progress(connection)
    done = {
        ABORTED: connection.transport.abort.called,
        WAITS_ON: connection._expect_head.called,
        SERVED: connection._expect_nothing.called,
    }
    assert [name for name, called in done.items() if called] == [outcome]


def test_a_connection_without_a_request_ends() -> None:
    connection = Mock()
    connection._unsent, connection.cycle = 0, None
    connection.transport.get_write_buffer_size.return_value = 0
    LimitedProtocol._end_without_progress(connection)
    assert connection.transport.abort.called
