"""Each fault of the proxy bites, and heals."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from ..broker import HOST, free_ports
from ..proxy import Proxy

PATIENCE = 10.0
# So long a silence is no slow machine.
SILENCE = 0.3


class Echo(socketserver.ThreadingTCPServer):
    """
    Sends back what it reads, and remembers each read.

    Attributes:
        reads: The size of each read.
        ended: How each connection ended: None in good order, else the error.
        reading: Cleared, nothing more is read.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__((HOST, free_ports(1)[0]), socketserver.BaseRequestHandler)
        self.port = self.server_address[1]
        self.reads: list[int] = []
        self.ended: list[OSError | None] = []
        self.reading = threading.Event()
        self.reading.set()

    def finish_request(self, request: Any, client_address: object) -> None:
        try:
            while self.reading.wait(PATIENCE) and (data := request.recv(65_536)):
                self.reads.append(len(data))
                request.sendall(data)
            self.ended.append(None)
        except OSError as error:
            self.ended.append(error)


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port) as between:
        yield between


@pytest.fixture
def connect(proxy: Proxy) -> Iterator[Callable[[], socket.socket]]:
    """Open a connection through the proxy, and close it at the end."""
    opened: list[socket.socket] = []

    def connection() -> socket.socket:
        opened.append(socket.create_connection((HOST, proxy.port), timeout=PATIENCE))
        return opened[-1]

    yield connection
    for each in opened:
        each.close()


def receive(connection: socket.socket, size: int) -> bytes:
    """Give so many bytes, or less if the stream ends before."""
    data = bytearray()
    while len(data) < size and (more := connection.recv(65_536)):
        data += more
    return bytes(data)


def ask(connection: socket.socket, data: bytes = b"hello") -> bytes:
    connection.sendall(data)
    return receive(connection, len(data))


def read_one(proxy: Proxy) -> bytes:
    with socket.create_connection((HOST, proxy.port), timeout=PATIENCE) as client:
        return client.recv(1)


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(SILENCE)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(PATIENCE)
    return False


def wait_for(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


Connect = Callable[[], socket.socket]


def test_forwards_and_counts(proxy: Proxy, echo: Echo, connect: Connect) -> None:
    first, second = connect(), connect()
    assert ask(first, b"first") == b"first"
    assert ask(second, b"the second") == b"the second"
    assert (proxy.connections, proxy.open) == (2, 2)
    wait_for(lambda: (proxy.bytes_up, proxy.bytes_down) == (15, 15))
    # The end of a stream goes through after the stream, and leaves the other direction open.
    first.sendall(b"x" * 1_000_000)
    first.shutdown(socket.SHUT_WR)
    assert receive(first, 2_000_000) == b"x" * 1_000_000
    wait_for(lambda: proxy.open == 1)
    assert echo.ended == [None]
    assert proxy.url == f"amqp://guest:guest@127.0.0.1:{proxy.port}/"


def test_cut_resets_both_sides_and_serves_new_connections(proxy: Proxy, echo: Echo, connect: Connect) -> None:
    present = [connect(), connect()]
    assert [ask(each) for each in present] == [b"hello", b"hello"]
    proxy.cut()
    for each in present:
        with pytest.raises(ConnectionResetError):
            each.recv(1)
    wait_for(lambda: len(echo.ended) == 2)
    assert [type(error) for error in echo.ended] == [ConnectionResetError, ConnectionResetError]
    assert proxy.open == 0
    assert ask(connect()) == b"hello"


def test_reset_of_one_side_reaches_the_other(proxy: Proxy, echo: Echo, connect: Connect) -> None:
    client = connect()
    assert ask(client) == b"hello"
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    wait_for(lambda: len(echo.ended) == 1)
    assert isinstance(echo.ended[0], ConnectionResetError)


def test_delay_holds_up_both_directions_in_order(proxy: Proxy, echo: Echo, connect: Connect) -> None:
    living = connect()
    assert ask(living) == b"hello"
    proxy.delay(0.2)
    for client in (living, connect()):
        echo.reads.clear()
        began = time.monotonic()
        for word in (b"one ", b"two ", b"three"):
            client.sendall(word)
            time.sleep(0.02)
        wait_for(lambda: bool(echo.reads))
        assert time.monotonic() - began >= 0.2
        assert receive(client, 13) == b"one two three"
        assert 0.44 <= time.monotonic() - began < 2


def test_no_delay_lets_go_what_waits(proxy: Proxy, connect: Connect) -> None:
    client = connect()
    proxy.delay(30)
    client.sendall(b"hello")
    assert is_silent(client)
    proxy.delay(0)
    assert receive(client, 5) == b"hello"
    assert ask(client) == b"hello"


def test_drip_reaches_the_peer_byte_by_byte(proxy: Proxy, echo: Echo, connect: Connect) -> None:
    client = connect()
    assert ask(client) == b"hello"
    proxy.drip()
    echo.reads.clear()
    data = bytes(range(256)) * 2
    client.sendall(data)
    back = b""
    reads: list[int] = []
    while len(back) < len(data):
        back += client.recv(65_536)
        reads.append(len(back) - sum(reads))
    assert back == data
    assert sum(echo.reads) == len(data)
    for each in (reads, echo.reads):
        assert each.count(1) > len(data) / 2
    proxy.heal()
    echo.reads.clear()
    assert ask(client, data) == data
    assert echo.reads == [len(data)]


def test_half_open_forgets_the_present_and_serves_the_new(proxy: Proxy, echo: Echo, connect: Connect) -> None:
    left, stays = connect(), connect()
    assert [ask(each) for each in (left, stays)] == [b"hello", b"hello"]
    proxy.half_open()
    stays.sendall(b"lost")
    left.close()
    assert is_silent(stays)
    assert echo.ended == []
    assert echo.reads == [5, 5]
    new = connect()
    assert ask(new) == b"hello"
    assert proxy.open == 3
    proxy.heal()
    with pytest.raises(ConnectionResetError):
        stays.recv(1)
    wait_for(lambda: len(echo.ended) == 2)
    assert ask(new) == b"hello"
    assert proxy.open == 1


def test_black_hole_takes_new_connections_too(proxy: Proxy, echo: Echo, connect: Connect) -> None:
    present = connect()
    assert ask(present) == b"hello"
    proxy.black_hole()
    new = connect()
    for each in (present, new):
        each.sendall(b"lost")
        assert is_silent(each)
    assert echo.reads == [5]
    proxy.heal()
    for each in (present, new):
        with pytest.raises(ConnectionResetError):
            each.recv(1)
    assert ask(connect()) == b"hello"


def test_reads_no_more_than_is_taken(proxy: Proxy, echo: Echo, connect: Connect) -> None:
    echo.reading.clear()
    client = connect()
    client.settimeout(SILENCE)
    # Far more than the buffers of four sockets take.
    data, sent = memoryview(bytes(range(256)) * 256 * 1024), 0
    with suppress(TimeoutError):
        while sent < len(data):
            sent += client.send(data[sent : sent + 65_536])
    assert proxy.bytes_up < sent < len(data)
    echo.reading.set()
    sender = threading.Thread(target=client.sendall, args=(data[sent:],))
    client.settimeout(PATIENCE)
    sender.start()
    received = receive(client, len(data))
    sender.join()
    assert received == data


def test_refusal_of_the_server_is_a_reset() -> None:
    [port] = free_ports(1)
    with Proxy(port) as proxy:
        with pytest.raises(ConnectionResetError):  # when it connects, or when it reads
            read_one(proxy)
        with socket.create_server((HOST, port)), socket.create_connection((HOST, proxy.port)) as client:
            assert is_silent(client)
            assert (proxy.connections, proxy.open) == (2, 1)


def test_end_of_the_proxy_leaves_nothing(echo: Echo) -> None:
    threads = threading.active_count()
    with Proxy(echo.port) as proxy:
        client = socket.create_connection((HOST, proxy.port), timeout=PATIENCE)
        assert ask(client) == b"hello"
        proxy.half_open()
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)
    wait_for(lambda: threading.active_count() == threads)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, proxy.port), timeout=PATIENCE)
