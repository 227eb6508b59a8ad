"""
The command ``jsonrpc-amqp``: serve, call, notify, dead, permissions, bridge, gateway, conformance, demo.

Results go to standard output, everything else to standard error. What came over the wire is written such that it
cannot steer a terminal.
"""

from __future__ import annotations

import click

from .. import __version__
from .bridging import bridge, gateway
from .calling import call, notify, show
from .checking import check_conformance
from .common import INTERRUPTED, REMOTE_ERROR, TRANSPORT_ERROR, USAGE_ERROR
from .dead_letters import dead
from .permitting import show_permissions
from .serving import serve

__all__ = ["INTERRUPTED", "REMOTE_ERROR", "TRANSPORT_ERROR", "USAGE_ERROR", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jsonrpc-amqp")
def main() -> None:
    """JSON-RPC 2.0 over RabbitMQ: serve methods, and call them."""


for command in (call, notify, show, check_conformance, show_permissions, serve, dead, bridge, gateway):
    main.add_command(command)
