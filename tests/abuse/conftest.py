"""What the cases have cost."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def abused() -> dict[str, dict[str, int]]:
    """Bytes that each case has cost, of the server and of the client."""
    return {"server": {}, "client": {}}
