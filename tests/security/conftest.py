"""The node of these tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import pytest

from .node import Node, running


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture(scope="session")
def seen() -> defaultdict[str, dict[str, str]]:
    """How each attack ended, by its key and the column of the page."""
    return defaultdict(dict)
