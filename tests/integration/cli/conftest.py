"""What tests of commands share."""

from __future__ import annotations

import io
import socket
import sys
from collections.abc import Iterator
from subprocess import CompletedProcess
from typing import Protocol

import pytest

from jsonrpc_amqp.cli import main

from ...cli_tools import SECRET


class Invoke(Protocol):
    """Runs a command; as ``tests.command.run``."""

    def __call__(self, *args: str, url: str | None = None, stdin: bytes = b"") -> CompletedProcess[str]: ...


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command in this process, which takes milliseconds where a process of its own takes a second."""

    def invoke(*args: str, url: str | None = None, stdin: bytes = b"") -> CompletedProcess[str]:
        for name in ("AMQP_URL", "AMQP_URL_FILE"):
            monkeypatch.delenv(name, raising=False)
        if url is not None:
            monkeypatch.setenv("AMQP_URL", url)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(args), prog_name="jsonrpc-amqp")
        code = ended.value.code
        assert isinstance(code, int)
        return CompletedProcess(args, code, *capsys.readouterr())

    return invoke


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The URL of a port that is taken, and at which no program listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"amqp://guest:{SECRET}@127.0.0.1:{taken.getsockname()[1]}"
