"""Fixtures for all tests. Those of the broker fail in tests/unit, see its conftest.py."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from jsonrpc_amqp import Client, Server
from jsonrpc_amqp.logs import LINE_FILTER

from .broker import Broker
from .loop_client import LOOPS, Loop, LoopClient
from .loop_server import LoopServer

_THREADS = "threads"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that run the tests of ``Client`` on ``AsyncClient``, and those of ``Server`` likewise."""
    for end in ("client", "server"):
        parser.addoption(
            f"--{end}", choices=(_THREADS, *LOOPS), default=_THREADS, help=f"what drives the {end}s of tests"
        )


@pytest.fixture(autouse=True)
def _on_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an end on an event loop in the place of ``Client`` or ``Server``, if the options say so."""
    for option, end, on_loop in (("--client", Client, LoopClient), ("--server", Server, LoopServer)):
        kind = request.config.getoption(option)
        if kind != _THREADS and getattr(request.module, end.__name__, None) is end:
            Loop.kind = kind
            monkeypatch.setattr(request.module, end.__name__, on_loop)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Leave out tests of what only threads do, where an option says that an event loop drives that end.

    With ``--dist=loadgroup``, the tests of a folder share a process: those of tests/security compare what all saw.
    """
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            item.add_marker(pytest.mark.xdist_group(item.path.parent.name))
    for end in ("client", "server"):
        if config.getoption(f"--{end}") != _THREADS:
            left_out = [item for item in items if item.get_closest_marker(f"threads_{end}")]
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item not in left_out]


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


@pytest.fixture(scope="session")
def _spare() -> Iterator[Broker]:
    with Broker() as node:
        yield node


@pytest.fixture
def fragile(_spare: Broker) -> Iterator[Broker]:
    """Another node that tests share, one after the other: each may kill it, freeze it, and set limits for a while."""
    if not _spare.awake:
        _spare.restart()
    yield _spare
    if _spare.frozen:
        _spare.thaw()


@pytest.fixture
def service() -> str:
    """A service name that no other test uses."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def other_user(broker: Broker) -> str:
    """The URL of the shared node for a user beside the usual one."""
    broker.add_users("neighbour")
    return broker.url.replace("guest:guest", "neighbour:secret")


@pytest.fixture(scope="session")
def slowed() -> dict[str, dict[str, float]]:
    """Seconds of the slowest call of a neighbour in each case of tests/abuse, of the server and of the client."""
    return {"server": {}, "client": {}}


@pytest.fixture(scope="session")
def abused() -> dict[str, dict[str, int]]:
    """Bytes that each case of tests/abuse has cost, of the server and of the client."""
    return {"server": {}, "client": {}}
