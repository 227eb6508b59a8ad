"""The peers, and docs/interop.md, the page that lists what was tested with them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import NamedTuple

HERE = Path(__file__).parent
PROGRAMS = HERE / "peers"
EXAMPLES = HERE.parent.parent / "examples"
PAGE = HERE.parent.parent / "docs" / "interop.md"
TEMPLATE = HERE / "interop.md.in"
COLUMNS = ("peer", "version", "direction", "what was run", "what works", "what does not, and why")
OURS = "this repository"


class Peer(NamedTuple):
    """
    One peer in one direction.

    Attributes:
        version: Returns the installed version.
        program: The program or class that was run.
        limits: What does not work, and why.
    """

    name: str
    version: Callable[[], str]
    direction: str
    program: str
    limits: str = ""


def python(package: str) -> Callable[[], str]:
    return lambda: version(package)


def maven(project: Path, artifact: str) -> Callable[[], str]:
    def find() -> str:
        pom = (project / "pom.xml").read_text()
        found = re.search(rf"<artifactId>{artifact}</artifactId>\s*<version>([^<]*)</version>", pom)
        assert found, f"no {artifact} in {project}"
        name = re.fullmatch(r"\$\{(.*)\}", found[1])
        return re.findall(rf"<{re.escape(name[1])}>([^<]*)<", pom)[0] if name else found[1]

    return find


def npm(project: Path, package: str) -> Callable[[], str]:
    def find() -> str:
        lock = json.loads((project / "package-lock.json").read_text())
        return str(lock["packages"][f"node_modules/{package}"]["version"])

    return find


def go(package: str) -> Callable[[], str]:
    return lambda: re.findall(rf"{package} v(\S+)", (EXAMPLES / "go" / "go.mod").read_text())[0]


def debian(package: str) -> Callable[[], str]:
    def find() -> str:
        done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True)
        return done.stdout.partition("-")[0] or "?"

    return find


IN, OUT = "calls our server", "is called by our client"
_ON = "on our transport"
_SPRING_LIMIT = "a timeout and a missing queue both return null to its caller"
_ONE_SLOT = "its transport stores one message, and overwrites it with the next: one request at a time"

PEERS: dict[str, Peer] = {
    "jsonrpcclient": Peer("jsonrpcclient", python("jsonrpcclient"), IN, "its requests, by `send_raw`"),
    "jsonrpcserver": Peer(
        "jsonrpcserver", python("jsonrpcserver"), OUT, "its `dispatch`, as `Server(dispatcher=...)`",
        "one bad member makes the whole batch fail: our own dispatcher passes it one request at a time",
    ),
    "pika": Peer("pika", python("pika"), IN, "`peers/python/pika_client.py`"),
    "aio-pika": Peer(
        "aio-pika", python("aio-pika"), IN, "`peers/python/aio_pika_client.py`",
        "its pattern `RPC` sends Python pickles, which we never read",
    ),
    "pjrpc in": Peer(
        "pjrpc", python("pjrpc"), IN, "its aio-pika client, `peers/python/pjrpc_client.py`",
        "ids with a fraction: it does not support them. It has no timeout, and does not notice that a queue is missing",
    ),
    "pjrpc out": Peer("pjrpc", python("pjrpc"), OUT, "its aio-pika server, `peers/python/pjrpc_server.py`"),
    "tinyrpc in": Peer(
        "tinyrpc", python("tinyrpc"), IN, "its `RabbitMQClientTransport`, `peers/python/tinyrpc_client.py`",
        "several requests at once: its transport waits for one. It has no timeout",
    ),
    "tinyrpc out": Peer(
        "tinyrpc", python("tinyrpc"), OUT, "its `RabbitMQServerTransport`, `peers/python/tinyrpc_server.py`",
        f"{_ONE_SLOT}. It never acknowledges a notification, which therefore runs again and again",
    ),
    "jsonrpclib in": Peer(
        "jsonrpclib-pelix", python("jsonrpclib-pelix"), _ON,
        "its `ServerProxy` and `MultiCall`, [as an adapter](adapters.md)",
        "a proxy whose headers change must be used by one thread: the library is not thread-safe there",
    ),
    "jsonrpclib out": Peer(
        "jsonrpclib-pelix", python("jsonrpclib-pelix"), _ON,
        "its `SimpleJSONRPCDispatcher`, [as an adapter](adapters.md)",
    ),
    "tinyrpc client": Peer(
        "tinyrpc", python("tinyrpc"), _ON, "its `RPCClient`, [as an adapter](adapters.md)",
    ),
    "tinyrpc server": Peer(
        "tinyrpc", python("tinyrpc"), _ON, "its `RPCServer`, [as an adapter](adapters.md)",
        "`current_request()` in a method, which runs on a thread of the library. Its own `serve_forever` ends at a "
        "request that it fails on, and then receives nothing: that of the adapter goes on",
    ),
    "pjrpc client": Peer(
        "pjrpc", python("pjrpc"), _ON, "its clients, sync and `async`, [as an adapter](adapters.md)",
        "ids with a fraction: it does not support them",
    ),
    "pjrpc dispatcher": Peer(
        "pjrpc", python("pjrpc"), _ON, "its `Dispatcher`, [as an adapter](adapters.md)",
        "its `AsyncDispatcher`, and running the members of a batch in parallel (`executor`)",
    ),
    "curl": Peer(
        "curl", debian("curl"), "calls over HTTP", "`jsonrpc-amqp gateway`, [the gateway](http.md)",
    ),
    "pelix http": Peer(
        "jsonrpclib-pelix", python("jsonrpclib-pelix"), "is called over HTTP",
        "its `SimpleJSONRPCServer` behind `jsonrpc-amqp bridge`, [the bridge](http.md)",
        "a call with an id of null: it treats it as a notification. The bridge reports that there was no response, in "
        "a batch as well",
    ),
    "RpcClient": Peer(
        "RabbitMQ Java, `RpcClient`", maven(PROGRAMS / "jvm", "amqp-client"), IN, "`peers/jvm`, `RpcClientPeer`",
    ),
    "RabbitTemplate": Peer(
        "Spring AMQP, `RabbitTemplate`", maven(PROGRAMS / "jvm", "spring-rabbit"), IN,
        "`peers/jvm`, `RabbitTemplatePeer`", _SPRING_LIMIT,
    ),
    "JsonRpcClient": Peer(
        "RabbitMQ Java, `JsonRpcClient`", maven(PROGRAMS / "jvm", "amqp-client"), IN,
        '`peers/jvm`, `JsonRpcClientPeer` and `JsonRpcProxyPeer`, to a server with `dialect="rabbitmq-java"`',
        "replies that contain an empty object `{}`: its default mapper cannot read one. Params by name: not supported. "
        "Its default mapper reads integers over 32 bits as doubles",
    ),
    "JsonRpcServer": Peer(
        "RabbitMQ Java, `JsonRpcServer`", maven(PROGRAMS / "jvm", "amqp-client"), OUT,
        "`peers/jvm`, `JsonRpcServerPeer`",
        "all calls: it accepts JSON-RPC 1.1 only. Our client raises `MalformedReply`, which says so",
    ),
    "rabbitmq-client": Peer(
        "Node, `rabbitmq-client`", npm(PROGRAMS / "node", "rabbitmq-client"), IN,
        "its `RPCClient`, `peers/node/rpc.js`",
        "named reply queues: it supports direct reply-to only. With `confirm: true` it may miss a reply that is faster "
        "than the confirm",
    ),
    "amqp-tools": Peer(
        "C, `amqp-tools`", debian("amqp-tools"), IN, "`peers/c/rpc.sh`",
        "`correlation_id` and direct reply-to: its commands support neither, so each request has a reply queue of "
        "its own",
    ),
    "recipe in": Peer(
        "the recipe of 2011", lambda: "2011", IN,
        'what its programs publish, byte for byte, sent to a server with `dialect="recipe2011"`',
        "it has only 1,000 ids: two callers with the same id get each other's replies",
    ),
    "recipe out": Peer(
        "the recipe of 2011", lambda: "2011", OUT,
        'a reimplementation of its broker, called by a client with `dialect="recipe2011"`',
        "batches, several parameters, method names: its messages cannot contain them",
    ),
    "java in": Peer("our Java client", lambda: OURS, IN, "`examples/java`: `mvn test`, `ExampleRequest`"),
    "java out": Peer("our Java server", lambda: OURS, OUT, "`examples/java`: `ExampleServer`"),
    "node": Peer("our Node client", lambda: OURS, IN, "`examples/node`: `npm test`, `example_request.mjs`"),
    "go": Peer("our Go client", lambda: OURS, IN, "`examples/go`: `go test ./...`, `cmd/example_request`"),
}  # fmt: skip


def page(works: Mapping[str, Sequence[str]]) -> str:
    """Return the text of docs/interop.md, from what was tested with each peer."""
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for key, peer in PEERS.items():
        seen = "<br>".join(dict.fromkeys(works.get(key, ())))
        rows.append((peer.name, peer.version(), peer.direction, peer.program, seen, peer.limits or "nothing known"))
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return Template(TEMPLATE.read_text("utf-8")).substitute(table=table)


def without_versions(text: str) -> str:
    """Return the page without versions, which differ between machines."""
    return re.sub(r"(?m)^(\| [^|]* \|) [^|]* \|", r"\1 |", text)
