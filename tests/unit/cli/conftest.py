"""What tests of commands share."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from ...cli_tools import SECRET


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The URL of a port that is taken, and at which no program listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"amqp://guest:{SECRET}@127.0.0.1:{taken.getsockname()[1]}"
