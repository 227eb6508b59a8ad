"""``jsonrpc-amqp describe`` of services in this process, and where there is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jsonrpc_amqp import Server

from ... import openrpc
from ...cli_tools import one_line
from .conftest import Invoke


def take(sku: str, count: int = 1) -> int:
    """Take items."""
    return count


def described(invoke: Invoke, server: Server, *args: str) -> Any:
    with server:
        return invoke("describe", *args, "--service", server.service, "--url", f"memory://{server.service}")


@pytest.fixture
def server(service: str) -> Server:
    return Server(f"memory://{service}", service, methods={"take": take, "ping": lambda: None}, title="Stock")


def test_all_methods(invoke: Invoke, server: Server) -> None:
    done = described(invoke, server)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Stock 0\n\nping()\n")
    assert "\ntake(sku, count=1)\n  Take items.\n" in done.stdout


def test_one_method(invoke: Invoke, server: Server) -> None:
    done = described(invoke, server, "take")
    assert done.returncode == 0
    assert "take(" in done.stdout
    assert "ping(" not in done.stdout


@pytest.mark.parametrize("names", [["take"], ["ping", "take"]])
def test_the_document(invoke: Invoke, server: Server, names: list[str]) -> None:
    done = described(invoke, server, "--json", *(names if len(names) == 1 else []))
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    openrpc.check(document)
    assert [each["name"] for each in document["methods"]] == names


def test_a_method_that_is_not_described(invoke: Invoke, server: Server) -> None:
    done = described(invoke, server, "takes")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no method takes; perhaps take?" in one_line(done.stderr)


def test_a_service_that_does_not_describe_itself(invoke: Invoke, service: str) -> None:
    done = described(invoke, Server(f"memory://{service}", service, discover=False))
    assert (done.returncode, done.stdout) == (1, "")
    assert "has no method rpc.discover" in one_line(done.stderr)


@pytest.mark.parametrize("result", [None, 5, [], {}, {"methods": {}}])
def test_a_service_that_replies_with_something_else(invoke: Invoke, service: str, result: Any) -> None:
    def dispatch(body: bytes) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "result": result, "id": json.loads(body)["id"]}).encode()

    done = described(invoke, Server(f"memory://{service}", service, dispatcher=dispatch))
    assert (done.returncode, done.stdout) == (1, "")
    assert "no document of OpenRPC" in one_line(done.stderr)


def test_an_error_of_the_server_is_json_on_standard_error(invoke: Invoke, service: str) -> None:
    done = described(invoke, Server(f"memory://{service}", service, authorize=lambda request: False))
    assert (done.returncode, done.stdout) == (1, "")
    assert json.loads(done.stderr)["code"] == -32003


def test_no_service(invoke: Invoke, service: str) -> None:
    done = invoke("describe", "--service", service, "--url", f"memory://{service}")
    assert (done.returncode, done.stdout) == (3, "")
    assert one_line(done.stderr)


def test_no_broker(invoke: Invoke, nowhere: str) -> None:
    done = invoke("describe", "--service", "example", url=nowhere)
    assert (done.returncode, done.stdout) == (3, "")
    assert one_line(done.stderr)


@pytest.mark.parametrize("args", [[], ["--service", "a", "--queue", "b"], ["--service", "a..b"], ["a", "b"]])
def test_wrong_usage(invoke: Invoke, args: list[str]) -> None:
    done = invoke("describe", *args, url="memory://x")
    assert (done.returncode, done.stdout) == (2, "")
