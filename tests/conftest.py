"""What every test may ask for: a broker, a name of its own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from jsonrpc_amqp.logs import LINE_FILTER

from .broker import Broker


@pytest.fixture(autouse=True)
def _log_anew() -> None:
    """Let no test go without its lines because of those of the test before."""
    LINE_FILTER.reset()


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The node that all tests share: use names of your own on it, and leave it running."""
    with Broker() as node:
        yield node


@pytest.fixture
def url(broker: Broker) -> str:
    """Where the shared node takes connections."""
    return broker.url


@pytest.fixture
def second_broker() -> Iterator[Callable[..., Broker]]:
    """Start a node that the test may kill: ``second_broker(extra_config={...})``; as ``Broker``."""
    with ExitStack() as nodes:

        def start(**options: Any) -> Broker:
            return nodes.enter_context(Broker(**options))

        yield start


@pytest.fixture
def service() -> str:
    """Give a service name that no other test uses."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def abused() -> dict[str, dict[str, int]]:
    """Bytes that each case of tests/abuse has cost, of the server and of the client."""
    return {"server": {}, "client": {}}
