"""Help, and text that cannot control a terminal."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import click
import pytest

from jsonrpc_amqp import __version__
from jsonrpc_amqp.cli import main
from jsonrpc_amqp.cli.common import as_json, one_line, read_url

from ...cli_tools import SECRET
from .conftest import Invoke


def test_version(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"jsonrpc-amqp, version {__version__}\n"


@pytest.mark.parametrize("command", ["serve", "call", "notify", "demo"])
def test_every_option_is_explained_and_shows_no_password(invoke: Invoke, command: str) -> None:
    done = invoke(command, "--help", url=f"amqp://u:{SECRET}@h")
    assert done.returncode == 0
    assert SECRET not in done.stdout
    assert isinstance(main, click.Group)
    for parameter in main.commands[command].params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help
            assert parameter.opts[0] in done.stdout


def test_the_url_is_localhost_where_none_is_given(invoke: Invoke) -> None:
    assert re.search(r"AMQP_URL;\s+default:\s+amqp://localhost", invoke("call", "--help").stdout)


URL = "amqp://u:p%C3%A9@h/v"


@pytest.mark.parametrize("content", [URL, f"{URL}\n", f" {URL} \r\n", f"\ufeff{URL}", f"\ufeff{URL}\r\n"])
def test_the_url_in_a_file_that_any_editor_wrote(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_bytes(content.encode())
    assert read_url(str(tmp_path / "url")) == URL
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert read_url("-") == URL


@pytest.mark.parametrize("text", ["\x1b[2J", "\u202e", "\ufeff", "\U000e0041", "a\nb", "\x9b", "\u2028"])
def test_what_controls_a_terminal_is_escaped(text: str) -> None:
    shown = as_json({text: [text]}).decode()
    assert shown.isprintable()
    assert json.loads(shown) == {text: [text]}
    assert one_line(text).isprintable()


def test_what_can_be_printed_is_not_escaped() -> None:
    assert as_json(["é 中 😀"]).decode() == '["é 中 😀"]'
    assert as_json([1], indent=2) == b"[\n  1\n]"
    assert one_line("é 中 😀") == "é 中 😀"
