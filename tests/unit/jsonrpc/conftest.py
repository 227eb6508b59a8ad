from __future__ import annotations

import pytest

from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher

from .tools import boom


@pytest.fixture
def dispatcher() -> Dispatcher:
    return Dispatcher({"echo": lambda value: value, "boom": boom})
