"""
A node with well-behaved users, and with Eve.

On virtual host "/" every user may do everything. On "topic" and "direct" each user has the permissions that
``jsonrpc-amqp permissions`` prints, and nothing else; so has Eve, as an ordinary client.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import trustme
from click.testing import CliRunner

from jsonrpc_amqp import Client, Server
from jsonrpc_amqp.cli import main

from ..broker import DEBIAN_SCRIPTS, Broker, free_ports

SERVICE, EXCHANGE = "calc.v2", "jsonrpc"
SERVER = "srv"
ALICE, DOTTED, EVE = "alice", "a.b", "eve"
# As RabbitMQ writes the subject of Alice's certificate.
CERTIFIED = r"CN=alice,OU=dev,O=ACME\, Inc."
CLIENTS = (ALICE, DOTTED, CERTIFIED)
PASSWORD = "secret"
OPEN, TOPIC, DIRECT = "/", "topic", "direct"
# Of the queue of the service, which drops the oldest ones of more; other attacks send fewer.
MAX_LENGTH = 2500


class Files(NamedTuple):
    """Files of certificates and keys, and of the authority that issued them."""

    authority: Path
    certificate: Path
    key: Path
    of_client: Path
    key_of_client: Path


def issue(folder: Path) -> tuple[trustme.CA, Files]:
    """Make an authority, certificates and keys in a folder."""
    folder.chmod(0o755)
    files = Files(*(folder / name for name in ("ca.pem", "cert.pem", "key.pem", "client.pem", "client-key.pem")))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(files.authority))
    for issued, certificate, key in (
        (authority.issue_cert("localhost"), files.certificate, files.key),
        (
            authority.issue_cert(
                "a@acme.example", common_name="alice", organization_unit_name="dev", organization_name="ACME, Inc."
            ),
            files.of_client,
            files.key_of_client,
        ),
    ):
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        issued.private_key_pem.write_to_path(str(key))
    return authority, files


class Node:
    """The node, with URLs and clients for its users."""

    def __init__(self, broker: Broker, tls_port: int, authority: trustme.CA, files: Files) -> None:
        self.broker = broker
        self.tls_port = tls_port
        self.authority = authority
        self.files = files

    def url(self, user: str, vhost: str = OPEN) -> str:
        """Return the URL of a user, with a certificate or a password."""
        path = quote(vhost, safe="") if vhost != OPEN else ""
        if user != CERTIFIED:
            return f"amqp://{quote(user)}:{PASSWORD}@127.0.0.1:{self.broker.port}/{path}"
        files = self.files
        return (
            f"amqps://localhost:{self.tls_port}/{path}?auth_mechanism=external&cacertfile={files.authority}"
            f"&certfile={files.of_client}&keyfile={files.key_of_client}"
        )

    def client(self, user: str, vhost: str, **options: Any) -> Client:
        """Return a client of the service."""
        named: dict[str, Any] = {"user": CERTIFIED} if user == CERTIFIED else {}
        return Client(self.url(user, vhost), SERVICE, timeout=10, declare=vhost == OPEN, **named, **options)

    def shell(self, lines: str, shell: str = "sh") -> str:
        """Run lines of ``rabbitmqctl`` in a shell, and return their output."""
        path = f"{DEBIAN_SCRIPTS}:{os.environ['PATH']}"
        done = subprocess.run(
            [shell, "-e"],
            input=lines,
            env={**self.broker._env, "PATH": path},
            capture_output=True,
            text=True,
            timeout=300,  # each starts an Erlang machine
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def running(folder: Path) -> Iterator[Node]:
    """Start the node, and set the permissions of its users."""
    authority, files = issue(folder)
    [port] = free_ports(1)
    config = {
        "listeners.ssl.1": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": str(files.authority),
        "ssl_options.certfile": str(files.certificate),
        "ssl_options.keyfile": str(files.key),
        "ssl_options.verify": "verify_peer",
        "ssl_options.fail_if_no_peer_cert": "true",
        "auth_mechanisms.1": "PLAIN",
        "auth_mechanisms.2": "EXTERNAL",
        "ssl_cert_login_from": "distinguished_name",
    }
    with Broker(extra_config=config, plugins=["rabbitmq_auth_mechanism_ssl"]) as broker:
        node = Node(broker, port, authority, files)
        _add_users(broker)
        for vhost in (TOPIC, DIRECT):
            # An administrator makes exchange, queue and binding.
            with Server(f"{broker.url}{vhost}", SERVICE, dead_letters=True):
                pass
        _limit(node)
        _permit(node)
        yield node


def _add_users(broker: Broker) -> None:
    broker.eval(", ".join(f'rabbit_vhost:add(<<"{vhost}">>, <<>>, [], <<"t">>)' for vhost in (TOPIC, DIRECT)) + ".")
    broker.add_users(SERVER, *CLIENTS, EVE, password=PASSWORD)
    broker.permit("guest", TOPIC, DIRECT)


def _limit(node: Node) -> None:
    policy = ("--apply-to", "queues", "limit", f"^{re.escape(SERVICE)}_req$", f'{{"max-length": {MAX_LENGTH}}}')
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda vhost: node.broker.ctl("set_policy", "-p", vhost, *policy), (OPEN, TOPIC, DIRECT)))


def _permit(node: Node) -> None:
    """Run the printed commands, each line once."""
    printed = [lines_for(user, reply) for reply in (TOPIC, DIRECT) for user in (*CLIENTS, EVE)]
    lines = {line for text in printed for line in text.splitlines()}
    declarations = {line for line in lines if not line.startswith("rabbitmqctl")}
    for line in declarations:  # the exchanges first, as in each text
        node.shell(line)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(node.shell, lines - declarations))


def lines_for(client: str, reply: str) -> str:
    """Return the output of ``jsonrpc-amqp permissions`` for a client."""
    users = ["--server-user", SERVER, "--client-user", client]
    # In this process, since starting the command takes half a second each time.
    done = CliRunner().invoke(main, ["permissions", "--service", SERVICE, *users, "--reply", reply, "--vhost", reply])
    assert done.exit_code == 0, done.output
    assert [shlex.split(line)[0] for line in done.stdout.splitlines()] == ["printf", *["rabbitmqctl"] * 4]
    return str(done.stdout)
