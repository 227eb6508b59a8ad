"""A client that its program has dropped ends, but not before its calls have."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pytest

from jsonrpc_amqp import AccessRefused, Client, NotConnected
from jsonrpc_amqp.amqp.base import Listener

from .fakes import SERVICE, FakeSession, FakeTransport, reply_to


class Transport(FakeTransport):
    """Notes what it reports to."""

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[Listener] = []
        self.on_start = self.listeners.append


def used(transport: Transport) -> Client:
    return Client("amqp://joe:secret@there/", SERVICE, transport=transport)


def tick(transport: Transport) -> float | None:
    """What the leader does next."""
    (listener,) = transport.listeners
    return listener.on_tick(0.0)


def test_a_client_that_was_never_used_gives_no_warning() -> None:
    transport = Transport()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client = used(transport)
        del client
    assert transport.asked == []


def test_a_client_that_was_closed_gives_no_warning() -> None:
    transport = Transport()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client = used(transport)
        client.submit("now")
        client.close()
        del client
    assert transport.asked == ["start", "close"]


def test_a_client_that_is_dropped_gives_a_warning_without_its_password_and_is_closed() -> None:
    transport = Transport()
    client = used(transport)
    client.submit("now").cancel()
    with pytest.warns(ResourceWarning, match=r"^unclosed Client of 'S' at amqp://.*close\(\)") as caught:
        del client
    assert "secret" not in str(caught[0].message)
    assert transport.asked == ["start", "wake"]  # the rest is for the leader
    (listener,) = transport.listeners
    session = FakeSession()
    listener.plan()
    listener.on_open(session)  # drops the cancelled call
    tick(transport)
    assert transport.asked == ["start", "wake", "close"]
    tick(transport)
    assert transport.asked.count("close") == 1


def test_a_client_that_is_dropped_goes_on_until_its_calls_have_ended() -> None:
    transport = Transport()
    client = used(transport)
    future = client.submit("now")
    (listener,) = transport.listeners
    session = FakeSession()
    listener.plan()
    listener.on_open(session)
    with pytest.warns(ResourceWarning, match="unclosed Client"):
        del client
    look = tick(transport)
    assert look is not None
    assert look < math.inf
    assert "close" not in transport.asked
    assert not future.done()
    listener.on_deliveries(session, [reply_to(session.published[0], b'{"jsonrpc": "2.0", "result": 7, "id": 1}')])
    assert future.result(0) == 7
    tick(transport)
    assert transport.asked[-1] == "close"


@pytest.mark.parametrize(
    "keep",
    [
        lambda client: client.with_options(timeout=1),
        lambda client: client.proxy,
        lambda client: client.call,
        lambda client: client.batch(),
    ],
    ids=["with_options", "proxy", "call", "batch"],
)
def test_what_a_program_holds_of_a_client_keeps_it(keep: Callable[[Client], object]) -> None:
    transport = Transport()
    client = used(transport)
    client.submit("now").cancel()
    kept = keep(client)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del client
    assert transport.asked == ["start"]
    with pytest.warns(ResourceWarning, match="unclosed Client"):
        del kept


def test_a_client_that_could_not_start_holds_nothing_and_starts_at_the_next_use() -> None:
    transport = Transport()
    start = transport.on_start

    def fail(_listener: Listener) -> None:
        transport.on_start = start
        raise NotConnected("no thread left")

    transport.on_start = fail
    client = used(transport)
    with pytest.raises(NotConnected, match="no thread left"):
        client.submit("now")
    assert client.stats()["pending"] == 0
    assert not client._requests._sender._parked
    client.submit("now")
    assert client.stats()["pending"] == 1
    client.close()


def test_a_client_that_gave_up_ends_without_a_warning() -> None:
    transport = Transport()
    client = used(transport)
    client.submit("now")
    (listener,) = transport.listeners
    listener.on_failed(AccessRefused("no"), None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del client
    tick(transport)
    assert transport.asked[-1] == "close"
