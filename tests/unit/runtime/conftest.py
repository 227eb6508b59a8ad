"""Fixtures of the tests of runtimes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .fakes import FakeConnection


@pytest.fixture
def connection() -> Iterator[FakeConnection]:
    fake = FakeConnection()
    yield fake
    fake.near.close()
    fake.far.close()
