"""``amqps://``: who is believed to be the broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from jsonrpc_amqp import Client, NotConnected, Server

from ..broker import Broker, free_ports


class Tls(NamedTuple):
    """A node that takes TLS connections, and the authority that vouches for "localhost" there."""

    port: int
    authority: Path
    plain: str

    def url(self, host: str = "localhost") -> str:
        return f"amqps://guest:guest@{host}:{self.port}/"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    folder = tmp_path_factory.mktemp("tls")
    folder.chmod(0o755)
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    [port] = free_ports(1)
    config = {
        "listeners.ssl.1": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": str(folder / "ca.pem"),
        "ssl_options.certfile": str(folder / "cert.pem"),
        "ssl_options.keyfile": str(folder / "key.pem"),
        "ssl_options.verify": "verify_none",
    }
    with Broker(extra_config=config) as broker:
        yield Tls(port, folder / "ca.pem", broker.url)


def test_right_host_with_its_authority(tls: Tls, service: str) -> None:
    url = f"{tls.url()}?cacertfile={tls.authority}"
    server = Server(url, service, methods={"echo": lambda text: text})
    with server, Client(tls.url(), service, tls={"ca_certs": str(tls.authority)}, timeout=20) as client:
        for size in (0, 1, 100_000, 5_000_000):
            assert client.call("echo", ["x" * size]) == "x" * size
        futures = [client.submit("echo", [str(i)]) for i in range(500)]
        assert [future.result(20) for future in futures] == [str(i) for i in range(500)]
        assert client.stats()["connections"] == 1


def test_requests_that_wait_at_the_start_are_served_at_once(tls: Tls, service: str) -> None:
    options = {"ca_certs": str(tls.authority)}
    served = threading.Event()
    with Server(tls.url(), service, tls=options):
        pass
    with Client(tls.url(), service, tls=options) as client:
        client.notify("served")
    began = time.monotonic()
    with Server(tls.url(), service, methods={"served": served.set}, tls=options, heartbeat=60):
        assert served.wait(10)
        # Not by the next thing that happens to arrive, a heartbeat.
        assert time.monotonic() - began < 5


def test_wrong_host_is_refused(tls: Tls, service: str) -> None:
    client = Client(tls.url("127.0.0.1"), service, tls={"ca_certs": str(tls.authority)}, reconnect=False)
    with pytest.raises(NotConnected, match="certificate"):
        client.start()
    client.close()


def test_unknown_authority_is_refused(tls: Tls, service: str) -> None:
    client = Client(tls.url(), service, reconnect=False)
    with pytest.raises(NotConnected, match="certificate"):
        client.start()
    client.close()


def test_plain_port_does_not_speak_tls(tls: Tls, service: str) -> None:
    client = Client(tls.plain.replace("amqp://", "amqps://"), service, reconnect=False)
    with pytest.raises(NotConnected):
        client.start(timeout=10)
    client.close()


def test_verification_is_off_only_when_said(tls: Tls, service: str) -> None:
    with Client(f"{tls.url('127.0.0.1')}?verify=verify_none", service) as client:
        assert client.stats()["connections"] == 1


@pytest.mark.parametrize("tls", [{"cafile": "ca.pem"}, {"context": {}}])
def test_unknown_options_are_refused(tls: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="ca_certs"):
        Client("amqps://localhost", tls=tls)


@pytest.mark.parametrize("value", ["none", "VERIFY_NONE"])
def test_an_unknown_way_to_verify_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="verify_peer or verify_none"):
        Client(f"amqps://localhost/?verify={value}")


@pytest.mark.parametrize("url", ["amqp://localhost/?cacertfile=ca.pem", "amqp://localhost/?verify=verify_peer"])
def test_tls_parameters_of_a_plain_url_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="amqps://"):
        Client(url)
    with pytest.raises(ValueError, match="amqps://"):
        Client("amqps://a;amqp://b", tls={"ca_certs": "ca.pem"})


def test_missing_file_is_named(service: str) -> None:
    client = Client("amqps://localhost", service, tls={"ca_certs": "/no/such.pem"}, reconnect=False)
    with pytest.raises(NotConnected, match=r"/no/such\.pem"):
        client.start()
    client.close()
