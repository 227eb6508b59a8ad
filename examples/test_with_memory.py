"""
How to test code that calls a service: with the service itself, or a replacement, on memory://. No broker, no mocks.

    pytest examples/test_with_memory.py
"""

from collections.abc import Iterator

import pytest

from jsonrpc_amqp import Client, RemoteError, Server, Unroutable

URL = "memory://prices"


def price_with_tax(client: Client, article: str) -> float:
    """An example of code under test."""
    net: float = client.call("price.of", [article])
    return round(net * 1.2, 2)


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(URL, service="shop", timeout=2) as client:
        yield client


@pytest.fixture
def shop() -> Iterator[None]:
    prices = {"bread": 3.5}
    with Server(URL, service="shop", methods={"price.of": prices.__getitem__}):
        yield


def test_without_a_server_the_call_is_unroutable(client: Client) -> None:
    with pytest.raises(Unroutable):
        client.call("price.of", ["bread"], service="never.started")


@pytest.mark.usefixtures("shop")
def test_tax_is_added(client: Client) -> None:
    assert price_with_tax(client, "bread") == 4.2


@pytest.mark.usefixtures("shop")
def test_unknown_articles_are_errors(client: Client) -> None:
    with pytest.raises(RemoteError):
        price_with_tax(client, "stone")
