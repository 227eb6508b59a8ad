"""Fixtures for all tests. Those of the broker fail in tests/unit, see its conftest.py."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from jsonrpc_amqp.logs import LINE_FILTER

from .broker import Broker


def pytest_configure() -> None:
    """Have programs that tests start take signals that a shell ignores for what runs in its background, or by nohup."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _reset_line_filter() -> None:
    """Let each test log lines that an earlier test has logged; the filter drops repetitions."""
    LINE_FILTER.reset()


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The node that all tests of a process share: use unique names on it, and leave it running."""
    with Broker() as node:
        yield node


@pytest.fixture
def url(broker: Broker) -> str:
    """The URL of the shared node."""
    return broker.url


@pytest.fixture
def second_broker() -> Iterator[Callable[..., Broker]]:
    """Start a node that the test may kill: ``second_broker(extra_config={...})``; arguments as for ``Broker``."""
    with ExitStack() as nodes:

        def start(**options: Any) -> Broker:
            return nodes.enter_context(Broker(**options))

        yield start


@pytest.fixture
def service() -> str:
    """A service name that no other test uses."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def other_user(broker: Broker) -> str:
    """The URL of the shared node for a user beside the usual one."""
    broker.ctl("eval", _ADD_USER)
    return broker.url.replace("guest:guest", "neighbour:secret")


_ADD_USER = """
    rabbit_auth_backend_internal:add_user(<<"neighbour">>, <<"secret">>, <<"test">>),
    rabbit_auth_backend_internal:set_permissions(<<"neighbour">>, <<"/">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>).
"""


@pytest.fixture(scope="session")
def slowed() -> dict[str, dict[str, float]]:
    """Seconds of the slowest call of a neighbour in each case of tests/abuse, of the server and of the client."""
    return {"server": {}, "client": {}}


@pytest.fixture(scope="session")
def abused() -> dict[str, dict[str, int]]:
    """Bytes that each case of tests/abuse has cost, of the server and of the client."""
    return {"server": {}, "client": {}}
