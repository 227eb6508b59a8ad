"""The node and the records that these tests share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from .budget import Spent
from .node import Node, running

# Before the first test that needs it, the node starts and ten commands run on it.
SLOW = 240
PAGE = Path(__file__).with_name("test_page.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "node" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(SLOW))
    # It checks all others, including those of tests/abuse.
    items.sort(key=lambda item: item.path == PAGE)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture(scope="session")
def seen() -> defaultdict[str, dict[str, str]]:
    """How each attack ended, by its key and the column of the page."""
    return defaultdict(dict)


@pytest.fixture(scope="session")
def disrupted() -> defaultdict[str, dict[str, str]]:
    """How each disruption ended, by its key and the column of the page."""
    return defaultdict(dict)


@pytest.fixture(scope="session")
def http_seen() -> defaultdict[str, dict[str, str]]:
    """How each attack over HTTP ended, by its key and the column of the page."""
    return defaultdict(dict)


@pytest.fixture(scope="session")
def spent() -> dict[str, Spent]:
    """What hostile input costs, by the key of its case."""
    return {}


@pytest.fixture(scope="session")
def tls_rows() -> dict[str, tuple[str, str]]:
    """The attempts to connect with TLS, by key: description and outcome."""
    return {}
