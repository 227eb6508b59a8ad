"""How a connection is made: within its time, to the address and the broker that take it, and what limits say."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from struct import pack
from typing import Any

import pytest
from amqp import spec
from amqp.serialization import dumps

from jsonrpc_amqp import AccessRefused, Client, DeadLetters, NotConnected, Server, TransportError

from ..broker import HOST, Broker
from ..proxy import Proxy
from ..tools import wait_for

# Addresses of this machine where no broker listens.
OTHER, THIRD = "127.0.0.2", "127.0.0.3"
# Seconds: what ends by a deadline of 1 s has ended by then, on a busy machine too.
SURELY = 15.0


def is_connecting() -> bool:
    """Whether an attempt to connect is under way in this process."""
    return any(thread.name.endswith("-dial") for thread in threading.enumerate())


def wait_until_told(end: Client | Server, pattern: str) -> None:
    """Have it connect until its error says so; on a busy machine, the first attempt may take longer than others."""

    def is_told() -> bool:
        with pytest.raises(NotConnected) as caught:
            end.start(timeout=1)
        return re.search(pattern, str(caught.value)) is not None

    wait_for(is_told, 30)


@contextmanager
def listening(address: str = HOST, port: int = 0, *, backlog: int = 16) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(backlog)
        yield listener


@contextmanager
def silent(address: str = HOST, port: int = 0) -> Iterator[int]:
    """Listen, and say nothing to those that connect; give the port."""
    with listening(address, port) as listener:
        yield listener.getsockname()[1]


@contextmanager
def dropping(address: str, port: int) -> Iterator[None]:
    """Listen with a full backlog: Linux drops the packets of those that connect, as a firewall does."""
    with ExitStack() as stack:
        stack.enter_context(listening(address, port, backlog=0))
        while True:
            sock = stack.enter_context(socket.socket())
            sock.settimeout(0.5)
            try:
                sock.connect((address, port))
            except TimeoutError:
                break
        yield


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have ``broker.test`` stand for some addresses, in this order."""
    lookup = socket.getaddrinfo

    def resolve(*addresses: str) -> None:
        def getaddrinfo(host: str, port: int, *args: Any, **more: Any) -> Any:
            if host != "broker.test":
                return lookup(host, port, *args, **more)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return resolve


def named(broker: Broker) -> str:
    return f"amqp://guest:guest@broker.test:{broker.port}/"


# -- bounds ---------------------------------------------------------------------------------------------------------


def test_too_few_channels_are_told(second_broker: Callable[..., Broker], service: str) -> None:
    node = second_broker(extra_config={"channel_max": "3"})
    told = "allows 3 channels per connection .*, and 4 are needed"
    client, server = Client(node.url, service), Server(node.url, service)
    for end in (client, server):
        wait_until_told(end, told)
    with pytest.raises(NotConnected, match=told):
        client.call("x", timeout=3)
    client.close()
    server.stop()
    wait_for(lambda: not is_connecting(), SURELY)
    # Direct replies come to the channel of the request.
    Client(node.url, service, reply="direct").start(timeout=SURELY).close()


@pytest.mark.parametrize("make", [Client, Server])
def test_a_peer_that_drips_does_not_outlast_the_attempt(broker: Broker, service: str, make: Any) -> None:
    with Proxy(broker.port) as network:
        network.drip(0.05)
        end = make(network.url, service, connect_timeout=1.0)
        wait_until_told(end, r"not made within 1 s \(connect_timeout\).* during the login")
        assert end.stats()["failed_attempts"] >= 1
        end.stop() if hasattr(end, "stop") else end.close()
    wait_for(lambda: not is_connecting(), SURELY)


@pytest.mark.parametrize(("scheme", "step"), [("amqp", "the login"), ("amqps", "the TLS handshake")])
def test_a_silent_peer_does_not_outlast_the_attempt(service: str, scheme: str, step: str) -> None:
    with silent() as port:
        client = Client(f"{scheme}://{HOST}:{port}", service, connect_timeout=0.5, reconnect=False)
        with pytest.raises(NotConnected, match=rf"within 0.5 s \(connect_timeout\).* during {step}"):
            client.start(timeout=SURELY)
        wait_for(lambda: not is_connecting(), SURELY)
        client.close()


def test_a_lookup_that_hangs_does_not_outlast_the_attempt(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: goes_on.wait(60))
    client = Client("amqp://broker.test", service, connect_timeout=0.1)
    wait_until_told(client, "during the lookup of its name")
    wait_for(lambda: client.stats()["failed_attempts"] >= 6, 30)
    assert len([thread for thread in threading.enumerate() if thread.name.endswith("-dial")]) <= 4
    client.close()
    goes_on.set()
    wait_for(lambda: not is_connecting(), SURELY)


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
def test_close_ends_an_attempt(service: str, scheme: str) -> None:
    with listening() as listener:
        client = Client(f"{scheme}://{HOST}:{listener.getsockname()[1]}", service, connect_timeout=60)
        waiting = client.submit("x")
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(SURELY)
            assert peer.recv(1) != b""
            client.close()
            while peer.recv(4096):
                pass  # it ends, or fails by its timeout
            assert isinstance(waiting.exception(SURELY), TransportError)
    wait_for(lambda: not is_connecting(), SURELY)


def test_close_ends_an_attempt_whose_packets_are_dropped(service: str) -> None:
    with listening() as free:
        port = free.getsockname()[1]
    with dropping(OTHER, port):
        client = Client(f"amqp://{OTHER}:{port}", service, connect_timeout=60)
        client.submit("x")
        wait_for(is_connecting, SURELY)
        client.close()
        wait_for(lambda: not is_connecting(), SURELY)


class Scripted:
    """A peer that speaks AMQP up to a point: it sends each text once the client has sent something."""

    def __init__(self, *texts: bytes) -> None:
        self._texts = texts

    def __enter__(self) -> Scripted:
        self._stack = ExitStack()
        self._listener = self._stack.enter_context(listening())
        self.url = f"amqp://{HOST}:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        peer, _ = self._listener.accept()
        with peer:
            for text in self._texts:
                peer.recv(4096)
                peer.sendall(text)
            while peer.recv(4096):
                pass

    def __exit__(self, *_: object) -> None:
        self._thread.join(SURELY)
        self._stack.close()


def method(sig: tuple[int, int], form: str, *args: Any) -> bytes:
    payload = pack(">HH", *sig) + dumps(form, args)
    return pack(">BHI", 1, 0, len(payload)) + payload + b"\xce"


START = method(spec.Connection.Start, "ooFSS", 0, 9, {}, "PLAIN", "en_US")


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ([pack(">BHI", 1, 0, 1 << 31)], "a frame of 2147483647 bytes, more than 131072"),
        ([START, pack(">BHI", 1, 0, 200_000)], "a frame of 200000 bytes"),
        ([START, method(spec.Connection.Tune, "BlB", 9, 8, 0)], "a limit of 8 bytes a frame; 4096 is the least"),
    ],
    ids=["first frame", "later frame", "frame_max"],
)
def test_what_no_broker_sends_ends_the_attempt(service: str, texts: list[bytes], told: str) -> None:
    with Scripted(*texts) as peer:
        client = Client(peer.url, service, connect_timeout=30, reconnect=False)
        with pytest.raises(NotConnected, match=told):
            client.start(timeout=SURELY)
        client.close()


# -- addresses ------------------------------------------------------------------------------------------------------


def test_an_address_that_drops_packets_does_not_hide_the_next(
    broker: Broker, service: str, resolve: Callable[..., None]
) -> None:
    resolve(OTHER, THIRD, HOST)
    with dropping(OTHER, broker.port), dropping(THIRD, broker.port):
        with Server(named(broker), service, methods={"ok": lambda: 1}), Client(named(broker), service) as client:
            assert client.call("ok") == 1
            # What worked is tried first from now on.
            memory = client._requests._transport._dialer._memory  # type: ignore[attr-defined]
            assert str(memory._worked["broker.test", broker.port]) == HOST
        with DeadLetters(named(broker), service) as dead, pytest.raises(TransportError, match="no queue"):
            list(dead.list())


def test_all_addresses_that_fail_are_named(service: str, resolve: Callable[..., None]) -> None:
    with listening() as free:
        port = free.getsockname()[1]
    resolve(OTHER, THIRD)
    with pytest.raises(NotConnected, match=f"{OTHER}: Connection refused; {THIRD}: Connection refused"):
        Client(f"amqp://broker.test:{port}", service, reconnect=False).start(timeout=SURELY)


def test_an_address_that_takes_the_connection_and_says_nothing_is_tried_last_next_time(
    broker: Broker, service: str, resolve: Callable[..., None]
) -> None:
    resolve(OTHER, THIRD, HOST)
    with silent(OTHER, broker.port), silent(THIRD, broker.port):
        client = Client(named(broker), service, connect_timeout=1)
        client.start(timeout=30)
        assert client.stats()["failed_attempts"] >= 2
        client.close()


# -- limits ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node() -> Iterator[Broker]:
    """A broker whose limits and users a test may change, and changes back."""
    with Broker() as node:
        yield node


@pytest.mark.parametrize(
    ("command", "scope", "limit", "most"),
    [
        # Not a limit of some: RabbitMQ counts a channel some time after it was opened.
        ("set_user_limits", "guest", "max-channels", 0),
        ("set_user_limits", "guest", "max-connections", 0),
        ("set_vhost_limits", "", "max-connections", 0),
        ("set_vhost_limits", "", "max-queues", 0),
    ],
)
def test_a_limit_is_named_and_waited_for(
    node: Broker, service: str, command: str, scope: str, limit: str, most: int
) -> None:
    def set_limit(value: int) -> None:
        node.ctl(command, *([scope] if scope else []), f'{{"{limit}": {value}}}')

    client, server = Client(node.url, service), Server(node.url, service)
    with ExitStack() as ends:
        ends.callback(client.close)
        ends.callback(server.stop)
        set_limit(most)
        try:
            owner = "user" if scope else "virtual host"
            for end in (client, server):
                wait_until_told(end, f"a limit is reached, {limit} of the {owner} .rabbitmqctl {command}")
        finally:
            set_limit(-1)
        # They try on by themselves, until the limit does not hold them back.
        wait_for(lambda: client.stats()["connections"] == server.stats()["connections"] == 1, 30)


# -- several brokers, and refusals ----------------------------------------------------------------------------------


def refusing(url: str) -> str:
    return url.replace("guest:guest", "guest:wrong")


def test_a_broker_that_refuses_does_not_hide_the_next(url: str, service: str) -> None:
    both = f"{refusing(url)};{url}"
    with Server(both, service, methods={"ok": lambda: 1}, dead_letters=True):
        for reconnect in (True, False):
            with Client(both, service, timeout=SURELY, reconnect=reconnect) as client:
                assert client.call("ok") == 1
        with DeadLetters(both, service) as dead:
            assert list(dead.list()) == []


def test_a_broker_that_is_down_does_not_hide_the_next(url: str, service: str) -> None:
    with listening() as free:
        down = f"amqp://{HOST}:{free.getsockname()[1]}"
    with (
        Server(url, service, methods={"ok": lambda: 1}),
        Client(f"{down};{url}", service, timeout=SURELY, reconnect=False) as client,
    ):
        assert client.call("ok") == 1


def test_a_refusal_is_final_once_all_brokers_have_refused(broker: Broker, url: str, service: str) -> None:
    with Proxy(broker.port) as network:
        both = f"{refusing(url)};{refusing(network.url)}"
        for end in (Client(both, service), Server(both, service)):
            with pytest.raises(AccessRefused, match=f"{network.port} refused.*{broker.port} refused"):
                end.start(timeout=SURELY)
        with DeadLetters(both, service) as dead, pytest.raises(AccessRefused):
            list(dead.list())


def test_a_refused_client_that_is_called_on_and_on_seldom_logs_in(broker: Broker, service: str) -> None:
    errors: list[BaseException] = []

    def call_on_and_on(until: float) -> None:
        while time.monotonic() < until:
            try:
                client.call("x", timeout=SURELY)
            except TransportError as exc:
                errors.append(exc)

    with Proxy(broker.port) as network:
        client = Client(refusing(network.url), service)
        until = time.monotonic() + 3
        threads = [threading.Thread(target=call_on_and_on, args=(until,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * SURELY)
        # After pauses of at least 0.1, 0.2, 0.4, 0.8 and 1 s.
        assert network.connections <= 6
        assert len(errors) > 4 * network.connections
        assert {type(error) for error in errors} == {AccessRefused}
        assert client.stats()["failed_attempts"] == network.connections
        client.close()


def test_a_refused_client_works_once_it_is_let_in(node: Broker, service: str) -> None:
    url = node.url.replace("guest:guest", "late:late")
    client = Client(url, service)
    with pytest.raises(AccessRefused):
        client.call("ok")
    node.ctl("add_user", "late", "late")
    node.ctl("set_permissions", "late", ".*", ".*", ".*")
    with Server(node.url, service, methods={"ok": lambda: 1}):

        def works() -> bool:
            try:
                return bool(client.call("ok", timeout=SURELY) == 1)
            except AccessRefused:  # which still stands
                return False

        wait_for(works, SURELY)
    client.close()
