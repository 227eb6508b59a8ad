"""The command ``permissions``."""

from __future__ import annotations

from typing import Any

import click

from ..operator.permissions import permissions
from .common import USAGE_ERROR, errors, exchange_option


def _one(_context: click.Context, _parameter: click.Parameter, names: tuple[str, ...]) -> str:
    # click would take the last, and say nothing.
    if len(names) > 1:
        raise click.BadParameter("give one; for another run the command again")
    return names[0]


@click.command(
    "permissions",
    epilog=f"""\b
Exit codes:
  0  printed
  {USAGE_ERROR}  wrong usage""",
)
@click.option("--service", required=True, metavar="NAME", help="The service.")
@click.option(
    "--server-user", required=True, multiple=True, callback=_one, metavar="NAME", help="The AMQP user of its servers."
)
@click.option(
    "--client-user",
    required=True,
    multiple=True,
    callback=_one,
    metavar="NAME",
    help="The AMQP user of a client. Of a certificate the name that RabbitMQ takes, such as 'CN=alice,O=ACME'.",
)
@click.option(
    "--reply",
    type=click.Choice(["topic", "direct"]),
    default="topic",
    show_default=True,
    help="How the client has its answers: over the exchange, or by RabbitMQ's direct reply-to.",
)
@click.option("--vhost", metavar="NAME", default="/", show_default=True, help="The virtual host.")
@exchange_option
@click.option("--queue", metavar="NAME", show_default="<service>_req", help="The request queue.")
def show_permissions(**options: Any) -> None:
    """
    Print the rabbitmqctl commands that give two users the least they need, one to serve and one to call.

    Nothing is run, and no broker is asked. The users must be there, and so must exchange, queue and binding: start a
    server once as a user who may make them. Both ends then need declare=False. What this protects from, and what not,
    is in docs/security.md.

    \b
    jsonrpc-amqp permissions --service calc --server-user calc --client-user alice | sh -e
    """
    with errors():
        for line in permissions(options.pop("service"), **options):
            click.echo(line)
