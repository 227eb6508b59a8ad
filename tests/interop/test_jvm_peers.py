"""Java classes for calling servers: RabbitMQ's own, and Spring's."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from examples.conformance_service import methods
from jsonrpc_amqp import CallTimeout, Client, MalformedReply, Server

from ..broker import Broker
from ..command import running
from ..tools import need
from .asking import ask, check_batch, check_many, check_odd, check_plain
from .conftest import build
from .peers import PAGE

JAVA = "interop-java"


@pytest.mark.peer("RpcClient", works="results, errors, batches, ids of every type, invalid JSON")
@pytest.mark.peer("RpcClient", works="a reply queue, and direct reply-to")
@pytest.mark.parametrize("reply", ["queue", "direct"])
def test_rpc_client(url: str, conformance: str, jvm: list[str], reply: str) -> None:
    command = [*jvm, "peers.RpcClientPeer", url, conformance, reply]
    check_plain(command)
    check_batch(command)
    check_odd(command)
    check_many(command, 200)


@pytest.mark.peer("RpcClient", works="1,000 at once")
def test_rpc_client_many_at_once(url: str, conformance: str, jvm: list[str]) -> None:
    check_many([*jvm, "peers.RpcClientPeer", url, conformance, "direct", "--concurrent"], 1000)


@pytest.mark.peer("RabbitTemplate", works="results, errors, batches, ids of every type, invalid JSON")
@pytest.mark.peer("RabbitTemplate", works="`sendAndReceive` with direct reply-to, a fixed and a temporary reply queue")
@pytest.mark.parametrize("reply", ["direct", "queue", "temporary"])
def test_rabbit_template(url: str, conformance: str, jvm: list[str], reply: str) -> None:
    command = [*jvm, "peers.RabbitTemplatePeer", url, conformance, reply]
    check_plain(command)
    check_batch(command)
    check_odd(command)


@pytest.mark.peer("RabbitTemplate", works="`convertSendAndReceive` with its JSON converter")
def test_rabbit_template_with_its_own_json(url: str, conformance: str, jvm: list[str]) -> None:
    command = [*jvm, "peers.RabbitTemplatePeer", url, conformance, "json"]
    check_plain(command)
    check_batch(command)


@pytest.mark.peer("RabbitTemplate", works="1,000 at once")
def test_rabbit_template_many_at_once(url: str, conformance: str, jvm: list[str]) -> None:
    check_many([*jvm, "peers.RabbitTemplatePeer", url, conformance, "direct", "--concurrent"], 1000)


# -- com.rabbitmq.tools.jsonrpc ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def java_dialect(broker: Broker) -> Iterator[str]:
    with Server(broker.url, JAVA, methods=methods, dialect="rabbitmq-java"):
        yield f"{JAVA}_req"


def call(command: Sequence[str], *calls: Sequence[Any]) -> list[str]:
    done = subprocess.run(
        command, input="".join(f"{json.dumps(each)}\n" for each in calls), capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.splitlines()


@pytest.mark.peer("JsonRpcClient", works="`system.describe`, results and errors, with both of its JSON mappers")
@pytest.mark.parametrize("mapper", ["default", "jackson"])
def test_json_rpc_client(url: str, java_dialect: str, jvm: list[str], mapper: str) -> None:
    command = [*jvm, "peers.JsonRpcClientPeer", url, java_dialect, mapper]
    *results, refused, failed = call(
        command,
        ["subtract", 42, 23],
        ["echo", "ü 中 😀"],
        ["echo", [1, [True, None]]],
        ["echo", {"a": {"b": 1}}],
        ["sum", 1, 2, 4],
        ["get_data"],
        ["refuse"],
        ["fail"],
    )
    assert [json.loads(each) for each in results] == [
        19, "ü 中 😀", [1, [True, None]], {"a": {"b": 1}}, 7, ["hello", 5],
    ]  # fmt: skip
    for line, name, code, message in (
        (refused, "JSONRPCError", 1, "not today"),
        (failed, "JSONRPCError", -32603, "Internal error"),
    ):
        kind, _, error = line.removeprefix("! ").partition(": ")
        assert kind == "com.rabbitmq.tools.jsonrpc.JsonRpcException"
        told = json.loads(error)
        assert (told["name"], told["code"], told["message"]) == (name, code, message)


SNIPPET = """
import com.rabbitmq.client.*;
import com.rabbitmq.tools.jsonrpc.*;

public class Snippet {
    public static void main(String[] args) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(args[0]);
        try (Connection connection = factory.newConnection(); Channel channel = connection.createChannel()) {
            %s
            System.out.println(three);
        }
    }
}
"""


@pytest.mark.peer("JsonRpcClient", works="as the page shows it")
def test_what_the_page_shows_compiles_and_runs(url: str, jvm: list[str], tmp_path: Path) -> None:
    (shown,) = re.findall(r"```java\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (tmp_path / "Snippet.java").write_text(SNIPPET % shown)
    libraries = jvm[2]
    build(tmp_path, need("javac"), "-cp", libraries, "-d", str(tmp_path), "Snippet.java")
    with Server(url, "example", methods={"add": lambda a, b: a + b}, dialect="rabbitmq-java"):
        command = [jvm[0], "-cp", f"{libraries}:{tmp_path}", "Snippet", url.rstrip("/")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


@pytest.mark.peer("JsonRpcClient", works="its `call(String[])`, which converts by the described types")
def test_json_rpc_client_with_strings(url: str, java_dialect: str, jvm: list[str]) -> None:
    command = [*jvm, "peers.JsonRpcClientPeer", url, java_dialect, "strings"]
    assert json.loads(call(command, ["subtract", "42", "23"])[0]) == 19


@pytest.mark.peer("JsonRpcClient", works="over the topic exchange as well")
def test_json_rpc_client_over_the_exchange(url: str, java_dialect: str, jvm: list[str]) -> None:
    command = [*jvm, "peers.JsonRpcClientPeer", url, f"{JAVA}.request", "default", "jsonrpc"]
    assert json.loads(call(command, ["subtract", 42, 23])[0]) == 19


@pytest.mark.peer("JsonRpcClient", works="its dynamic proxy of a Java interface")
@pytest.mark.parametrize("mapper", ["default", "jackson"])
def test_json_rpc_proxy(url: str, java_dialect: str, jvm: list[str], mapper: str) -> None:
    done = subprocess.run(
        [*jvm, "peers.JsonRpcProxyPeer", url, java_dialect, mapper], capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert "19" in done.stdout


@pytest.mark.peer("JsonRpcClient", works="together with JSON-RPC 2.0, on one queue")
def test_json_rpc_2_beside_it(url: str, java_dialect: str, jvm: list[str]) -> None:
    (answer,) = ask(
        [*jvm, "peers.RpcClientPeer", url, java_dialect, "direct"],
        ['{"jsonrpc":"2.0","method":"subtract","params":[42,23],"id":1}'],
    )
    assert answer == {"jsonrpc": "2.0", "result": 19, "id": 1}
    with Client(url, JAVA, timeout=60) as client:
        assert client.call("subtract", [42, 23]) == 19


@pytest.mark.peer("JsonRpcServer", works="what it does not support ends in an error, without further damage")
@pytest.mark.parametrize("mapper", ["default", "jackson"])
def test_json_rpc_server_takes_1_1_only(url: str, service: str, jvm: list[str], mapper: str) -> None:
    command = [*jvm[1:], "peers.JsonRpcServerPeer", url, service, mapper]
    with running(*command, program=jvm[:1]) as server:
        server.wait_until_said("serving")
        with Client(url, service, reply="direct", timeout=60) as client, pytest.raises(MalformedReply, match="jsonrpc"):
            client.call("subtract", [42, 23])
        with Client(url, service, timeout=5) as client, pytest.raises(CallTimeout):
            client.call("subtract", [42, 23])
