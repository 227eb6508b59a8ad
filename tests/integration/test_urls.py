"""What URLs at the edges of their grammar lead to: real connections."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from jsonrpc_amqp import AccessRefused, Client, NotConnected, TransportError

from ..broker import HOST, Broker
from ..command import PATIENCE


def connect(url: str) -> TransportError:
    with pytest.raises(TransportError) as caught:
        Client(url, "s", reconnect=False).start(PATIENCE)
    return caught.value


@pytest.mark.parametrize("userinfo", ["guest:", ":", ":guest"])
def test_an_empty_user_or_password_is_sent_as_it_is(broker: Broker, userinfo: str) -> None:
    """With those of kombu, and of this library until 0.1, each of these logged in as guest."""
    error = connect(f"amqp://{userinfo}@{HOST}:{broker.port}")
    assert type(error) is AccessRefused


def test_the_longest_virtual_host_is_asked_for(broker: Broker) -> None:
    error = connect(f"amqp://{HOST}:{broker.port}/{'v' * 255}")
    assert type(error) is AccessRefused
    assert "v" * 255 in str(error)


def test_an_ipv6_literal_leads_to_that_address() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listener:
        port = listener.getsockname()[1]
        listener.settimeout(PATIENCE)
        client = Client(f"amqp://[::1]:{port}", "s")
        try:
            with pytest.raises(NotConnected):
                client.start(timeout=0)
            with listener.accept()[0] as connection:
                assert connection.recv(8) == b"AMQP\0\0\x09\x01"
        finally:
            client.close()


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _reset_later(connection: socket.socket) -> None:
    connection.recv(4096)
    _reset(connection)


ENDINGS: dict[str, Callable[[socket.socket], object]] = {
    "closed at once": lambda connection: None,
    "reset at once": _reset,
    "closed in the handshake": lambda connection: connection.recv(4096),
    "reset in the handshake": _reset_later,
}


@pytest.fixture(params=ENDINGS)
def ending_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port at which each connection ends during the TLS handshake."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                ENDINGS[request.param](connection)

    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def test_a_peer_that_ends_the_tls_handshake(ending_port: int) -> None:
    # What Python's ssl makes of it depends on when the end arrives.
    for _ in range(20):
        error = connect(f"amqps://joe:s3cret@{HOST}:{ending_port}")
        assert type(error) is NotConnected
        assert "does the broker want, and accept, a certificate" in str(error)
        assert "Errno 22" not in str(error)
        assert "s3cret" not in str(error)
