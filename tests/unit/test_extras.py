"""Modules and commands whose library is not installed say which extra to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ..command import COMMAND


@pytest.mark.parametrize(
    ("command", "library"),
    [(["bridge", "--service", "s", "--to", "http://host/"], "aiohttp"), (["gateway"], "starlette")],
)
def test_without_the_extra(command: list[str], library: str) -> None:
    # None in there: as if it were not installed.
    code = f"import sys; sys.modules[{library!r}] = None; from jsonrpc_amqp.cli import main; main({command!r})"
    done = subprocess.run([COMMAND[0], "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"needs {library}: pip install 'jsonrpc-amqp[http]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [
        ("adapters.jsonrpclib", "jsonrpclib", "jsonrpclib"),
        ("adapters.tinyrpc", "tinyrpc", "tinyrpc"),
        ("adapters.pjrpc", "pjrpc", "pjrpc"),
        ("http.upstream", "aiohttp", "http"),
        ("http.http_server", "uvicorn", "http"),
        ("http.gateway", "starlette", "http"),
    ],
)
def test_what_an_import_without_its_library_says(module: str, library: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from jsonrpc_amqp import MissingExtra\n"
        f"try:\n    import jsonrpc_amqp.{module}\n"
        f"except MissingExtra as error:\n    assert isinstance(error, ImportError); print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"jsonrpc_amqp.{module} needs {library}" in done.stdout, done.stderr
    assert f"pip install 'jsonrpc-amqp[{extra}]'" in done.stdout
