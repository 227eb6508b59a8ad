"""The marker ``peer``, which says what a test shows of which peer, and the shared fixtures."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from examples.conformance_service import methods
from jsonrpc_amqp import Server

from ..broker import Broker
from ..tools import need
from .peers import EXAMPLES, PROGRAMS

SERVICE = "conformance"
seen: defaultdict[str, list[str]] = defaultdict(list)
# For compilers and package managers with empty caches.
SLOW = 900


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "peer(key, works): the peer that a test runs, and what it shows of it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"jvm", "node_peer", "java_example", "node_example", "go_example"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.timeout(SLOW))
    # It checks all others.
    items.sort(key=lambda item: item.path.name == "test_page.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.passed:
        for marker in item.iter_markers("peer"):
            seen[marker.args[0]].append(marker.kwargs["works"])
    return report


@pytest.fixture(scope="session")
def works() -> dict[str, list[str]]:
    """What the passed tests have shown of each peer."""
    return seen


@pytest.fixture(scope="session")
def conformance(broker: Broker) -> Iterator[str]:
    """A server of the conformance service; the name of its queue."""
    with Server(broker.url, SERVICE, methods=methods):
        yield f"{SERVICE}_req"


def build(folder: Path, *command: str) -> None:
    """Run a tool in a folder; show its output if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SLOW)
    assert done.returncode == 0, f"{' '.join(command)} in {folder}:\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def jvm() -> list[str]:
    """The start of a command that runs one of the peers in Java."""
    java, maven = need("java"), need("mvn")
    need("javac")
    folder = PROGRAMS / "jvm"
    build(folder, maven, "-q", "-B", "package", "-DskipTests")
    return [java, "-cp", f"{folder}/target/classes:{folder}/target/lib/*"]


@pytest.fixture(scope="session")
def node_peer() -> list[str]:
    """The command of the peer in Node."""
    node, npm = need("node"), need("npm")
    build(PROGRAMS / "node", npm, "ci")
    return [node, str(PROGRAMS / "node" / "rpc.js")]


@pytest.fixture(scope="session")
def amqp_tools() -> str:
    """The command of the peer in C."""
    for tool in ("amqp-publish", "amqp-consume", "amqp-declare-queue", "amqp-delete-queue"):
        need(tool)
    return str(PROGRAMS / "c" / "rpc.sh")


@pytest.fixture(scope="session")
def java_example() -> Path:
    need("java"), need("javac"), need("mvn")
    return EXAMPLES / "java"


@pytest.fixture(scope="session")
def node_example() -> Path:
    need("node")
    build(EXAMPLES / "node", need("npm"), "ci")
    return EXAMPLES / "node"


@pytest.fixture(scope="session")
def go_example() -> Path:
    need("go")
    return EXAMPLES / "go"
