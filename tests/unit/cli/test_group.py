"""Where commands are found."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from jsonrpc_amqp.cli import main


def test_commands_are_found_by_name() -> None:
    assert isinstance(main, click.Group)
    assert len(main.commands) == len({command.name for command in main.commands.values()}) > 8
    assert all(name == command.name for name, command in main.commands.items())
    assert "no-such" not in main.commands
    with pytest.raises(KeyError):
        main.commands["no-such"]


def test_a_command_that_calls_does_not_import_what_serves() -> None:
    code = (
        "import sys\n"
        "from jsonrpc_amqp.cli import main\n"
        "try:\n    main(['call', '--help'])\n"
        "finally:\n    assert 'jsonrpc_amqp.client' in sys.modules\n    assert 'jsonrpcserver' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
