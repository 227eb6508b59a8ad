"""
The command ``jsonrpc-amqp``: a module for each command, and what they share in ``common`` and ``targets``. How each of
them begins and ends is in ``group``.

Results go to standard output, everything else to standard error. Text from the wire is escaped, so that it cannot
control a terminal.
"""

from __future__ import annotations

import click

from .. import __version__
from .common import INTERRUPTED, NOT_DRAINED, REMOTE_ERROR, STREAM_ERROR, TRANSPORT_ERROR, USAGE_ERROR
from .group import CommandGroup, CommandModules

__all__ = [
    "INTERRUPTED",
    "NOT_DRAINED",
    "REMOTE_ERROR",
    "STREAM_ERROR",
    "TRANSPORT_ERROR",
    "USAGE_ERROR",
    "main",
]


@click.group(
    cls=CommandGroup,
    commands=CommandModules(
        "call", "notify", "describe", "demo", "conformance", "permissions", "serve", "dead", "bridge", "gateway"
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"""\b
Exit codes that all commands share:
  0    done
  {USAGE_ERROR}    wrong usage
  {STREAM_ERROR}    standard input cannot be read, or standard output cannot be written
  {INTERRUPTED}  interrupted
Where no program reads its output any more, a command ends by SIGPIPE. See
COMMAND --help for the others.""",
)
@click.version_option(__version__, prog_name="jsonrpc-amqp")
def main() -> None:
    """JSON-RPC 2.0 over RabbitMQ: serve methods, and call them."""
