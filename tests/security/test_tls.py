"""Each row of the table on TLS in docs/security.md: what connects, and how the error explains what does not."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from jsonrpc_amqp import AccessRefused, Client, NotConnected, Server, TransportError, current_request

from .node import CERTIFIED, Node

CONNECTED = None


class Row(NamedTuple):
    """
    One attempt to connect, and how it ends.

    Attributes:
        query: The query of the URL, with the files of the node; ``stranger`` is a certificate of another authority.
        error: The error that it ends with; None: it connects.
        says: Words of the error's message.
    """

    what: str
    query: str
    error: type[TransportError] | None = CONNECTED
    says: str = ""
    host: str = "localhost"
    scheme: str = "amqps"
    plain_port: bool = False


CA = "cacertfile={authority}"
MINE = CA + "&certfile={of_client}&keyfile={key_of_client}"
EXTERNAL = "&auth_mechanism=external"

ROWS = {
    "right": Row("right host name, its authority, a client certificate, a password", MINE),
    "external": Row("the same, and login with that certificate (EXTERNAL)", MINE + EXTERNAL),
    "wrong-host": Row(
        "a host name other than the certificate's",
        MINE,
        NotConnected,
        "its certificate is for another host",
        "127.0.0.1",
    ),
    "unknown-authority": Row(
        "an authority that the client was not given",
        "certfile={of_client}&keyfile={key_of_client}",
        NotConnected,
        "name the authority of its certificate",
    ),
    "expired": Row("an expired certificate of the broker", MINE, NotConnected, "has expired"),
    "none": Row(
        "no client certificate, though one is required",
        CA,
        NotConnected,
        "a certificate of this client",
    ),
    "stranger": Row(
        "a client certificate from an authority that the broker does not know",
        CA + "&certfile={stranger}&keyfile={key_of_stranger}",
        NotConnected,
        "certificate of this client",
    ),
    "expired-client": Row(
        "an expired client certificate",
        CA + "&certfile={expired}&keyfile={key_of_expired}",
        NotConnected,
        "certificate of this client",
    ),
    "unknown-user": Row(
        "login with a certificate (EXTERNAL) for which there is no user",
        CA + "&certfile={nobody}&keyfile={key_of_nobody}" + EXTERNAL,
        AccessRefused,
        "refused the user of this client's certificate",
    ),
    "tls-to-plain": Row("TLS to a port without TLS", MINE, NotConnected, "does this port speak TLS?", plain_port=True),
    "plain-to-tls": Row("no TLS to a port with TLS", "", NotConnected, "does this port want TLS?", scheme="amqp"),
}


@pytest.fixture(scope="module")
def names(node: Node, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The names and paths of the files for queries."""
    folder = tmp_path_factory.mktemp("certificates")
    now = datetime.now(UTC)
    old: dict[str, Any] = {"not_before": now - timedelta(days=9), "not_after": now - timedelta(days=1)}
    issued = {
        "stranger": trustme.CA().issue_cert("a@acme.example", common_name="alice"),
        "nobody": node.authority.issue_cert("n@acme.example", common_name="nobody"),
        "expired": node.authority.issue_cert("a@acme.example", common_name="alice", **old),
    }
    names = {name: str(path) for name, path in node.files._asdict().items()}
    for name, certificate in issued.items():
        names[name], names[f"key_of_{name}"] = str(folder / f"{name}.pem"), str(folder / f"{name}-key.pem")
        certificate.cert_chain_pems[0].write_to_path(names[name])
        certificate.private_key_pem.write_to_path(names[f"key_of_{name}"])
    return names


@pytest.mark.parametrize("key", ROWS)
def test_row(node: Node, names: dict[str, str], key: str, tls_rows: dict[str, tuple[str, str]]) -> None:
    row = ROWS[key]
    port = node.broker.port if row.plain_port else node.tls_port
    url = f"{row.scheme}://guest:guest@{row.host}:{port}/?{row.query.format(**names)}".rstrip("?")
    with expired(node) if key == "expired" else at_once():
        client = Client(url, "s", reconnect=False, timeout=10, user=CERTIFIED if EXTERNAL in row.query else None)
        if row.error is CONNECTED:
            with client:
                assert client.stats()["connections"] == 1
            tls_rows[key] = (row.what, "connected")
            return
        with pytest.raises(row.error, match=re.escape(row.says)) as caught:
            client.start()
        client.close()
    assert not caught.value.may_have_run
    assert "guest:guest" not in str(caught.value)
    tls_rows[key] = (row.what, f"`{row.error.__name__}`: ... {row.says} ...")


@contextmanager
def expired(node: Node) -> Iterator[None]:
    """Have the broker use an expired certificate for a ``with`` block."""
    files = node.files
    now = datetime.now(UTC)
    old = node.authority.issue_cert("localhost", not_before=now - timedelta(days=9), not_after=now - timedelta(days=1))
    kept = [(path, Path(f"{path}.kept")) for path in (files.certificate, files.key)]
    for path, copy in kept:
        shutil.copy(path, copy)
    old.cert_chain_pems[0].write_to_path(str(files.certificate))
    old.private_key_pem.write_to_path(str(files.key))
    node.broker.eval("ssl:clear_pem_cache().")
    try:
        yield
    finally:
        for path, copy in kept:
            copy.replace(path)
        node.broker.eval("ssl:clear_pem_cache().")


@contextmanager
def at_once() -> Iterator[None]:
    yield


def test_login_by_certificate_serves_and_calls(node: Node) -> None:
    """Client and server log in with certificates, and identify each other by the name in them."""
    url = node.url(CERTIFIED)
    server = Server(url, "certified", methods={"who": lambda: current_request().user_id}, user=CERTIFIED)
    with server, Client(url, "certified", user=CERTIFIED, server_user=CERTIFIED, timeout=10) as client:
        assert client.call("who") == CERTIFIED
