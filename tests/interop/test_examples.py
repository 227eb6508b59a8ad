"""The clients and the server in examples/, with the tests in their own languages, against our server and client."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jsonrpc_amqp import Client

from ..broker import Broker
from ..command import COMMAND, run, running, serving
from ..tools import need
from .asking import check_server, check_server_at_once
from .conftest import SERVICE, SLOW

TESTS = "all of its tests: the vectors, every form of a call, each failure, 1,000 in flight"
# Otherwise Go needs a C compiler, which Debian does not install with it.
ENVIRONMENT = {**os.environ, "CGO_ENABLED": "0"}
EXAMPLE = "the recipe's example: one notification, and the time"


def run_tests(folder: Path, url: str, *command: str) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**ENVIRONMENT, "AMQP_URL": url, "SERVICE": SERVICE},
        capture_output=True,
        text=True,
        timeout=SLOW,
    )
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-20_000:]}"


@pytest.fixture
def example_broker(url: str) -> Iterator[None]:
    """The server of examples/, whose service is called ``example``."""
    with serving("examples.example_broker", "--service", "example", url=url) as server:
        yield
        assert "I am" in server.output or "asks for the time" in server.output, "the notification did not come"


def check_time(folder: Path, url: str, *command: str) -> None:
    """Run an example, which prints the time of the server."""
    done = subprocess.run(
        command, cwd=folder, env={**ENVIRONMENT, "AMQP_URL": url}, capture_output=True, text=True, timeout=SLOW
    )
    assert done.returncode == 0, done.stderr
    answer = done.stdout.splitlines()[-1].rpartition("  ")[-1].strip()
    assert abs(time.mktime(time.strptime(answer)) - time.time()) < 60, done.stdout


# -- Java -------------------------------------------------------------------------------------------------


@pytest.mark.peer("java in", works=TESTS)
def test_java(java_example: Path, url: str, conformance: str) -> None:
    run_tests(java_example, url, need("mvn"), "-q", "test")


@pytest.fixture(scope="module")
def java_classes(java_example: Path) -> list[str]:
    run_tests(java_example, "", need("mvn"), "-q", "compile")
    return [need("java"), "-cp", f"{java_example}/target/classes:{java_example}/target/lib/*"]


@pytest.mark.peer("java in", works=EXAMPLE)
def test_java_example(url: str, java_example: Path, java_classes: list[str], example_broker: None) -> None:
    check_time(java_example, url, *java_classes, "ExampleRequest")


@pytest.fixture(scope="module")
def java_server(broker: Broker, java_classes: list[str]) -> Iterator[str]:
    service = "interop-java-server"
    words = [*java_classes[1:], "ExampleServer"]
    with running(*words, url=broker.url, program=java_classes[:1], env={"SERVICE": service}) as server:
        server.wait_until_said("serving")
        yield service


@pytest.mark.peer("java out", works="results, errors, batches, notifications, 1,000 at once, topic and direct replies")
@pytest.mark.parametrize("reply", ["topic", "direct"])
def test_our_client_calls_the_java_server(url: str, java_server: str, reply: Any) -> None:
    with Client(url, java_server, reply=reply, timeout=60) as client:
        check_server(client)
        client.notify("notify_hello", ["hello"])
        with client.batch() as batch:
            seven = batch.call("sum", [1, 2, 4])
        assert seven.result() == 7
        check_server_at_once(client)


@pytest.mark.peer("java out", works="the whole conformance kit")
def test_the_java_server_conforms(url: str, java_server: str) -> None:
    done = run(*COMMAND[1:], "conformance", "--service", java_server, url=url, program=COMMAND[:1])
    assert done.returncode == 0, done.stdout
    assert " checks passed" in done.stdout


# -- Node and Go ------------------------------------------------------------------------------------------


@pytest.mark.peer("node", works=TESTS)
def test_node(node_example: Path, url: str, conformance: str) -> None:
    run_tests(node_example, url, need("npm"), "test")


@pytest.mark.peer("node", works=EXAMPLE)
def test_node_example(url: str, node_example: Path, example_broker: None) -> None:
    check_time(node_example, url, need("node"), "example_request.mjs")


@pytest.mark.peer("go", works=TESTS)
def test_go(go_example: Path, url: str, conformance: str) -> None:
    run_tests(go_example, url, need("go"), "test", "-count=1", "./...")


@pytest.mark.peer("go", works=EXAMPLE)
def test_go_example(url: str, go_example: Path, example_broker: None) -> None:
    check_time(go_example, url, need("go"), "run", "./cmd/example_request")
