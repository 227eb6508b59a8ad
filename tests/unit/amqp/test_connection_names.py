"""Connections have names of their own, and say what made them."""

from __future__ import annotations

import os
import re
import socket

from jsonrpc_amqp.amqp import connection_names


def test_a_name_has_host_process_and_digits_of_its_own() -> None:
    names = {connection_names.new("server calc") for _ in range(100)}
    assert len(names) == 100
    for name in names:
        assert re.fullmatch(
            f"jsonrpc-amqp server calc {re.escape(socket.gethostname())}:{os.getpid()}:[0-9a-f]{{8}}", name
        )
