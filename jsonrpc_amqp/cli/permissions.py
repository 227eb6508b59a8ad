"""The command ``permissions``."""

from __future__ import annotations

from typing import Any

import click

from ..operator.permissions import permissions
from .common import STREAM_ERROR, USAGE_ERROR, exchange_option, reported_errors


def _single_name(_context: click.Context, _parameter: click.Parameter, names: tuple[str, ...]) -> str:
    # click would silently take the last one.
    if len(names) > 1:
        raise click.BadParameter("give one; for another run the command again")
    return names[0]


@click.command(
    "permissions",
    epilog=f"""\b
Exit codes:
  0  printed
  {USAGE_ERROR}  wrong usage
  {STREAM_ERROR}  standard output cannot be written""",
)
@click.option("--service", required=True, metavar="NAME", help="The service.")
@click.option(
    "--server-user",
    required=True,
    multiple=True,
    callback=_single_name,
    metavar="NAME",
    help="The AMQP user of its servers.",
)
@click.option(
    "--client-user",
    required=True,
    multiple=True,
    callback=_single_name,
    metavar="NAME",
    help="The AMQP user of a client. With a certificate, its name in RabbitMQ, such as 'CN=alice,O=ACME'.",
)
@click.option(
    "--reply",
    type=click.Choice(["topic", "direct"]),
    default="topic",
    show_default=True,
    help="How the client receives replies: over the exchange, or by RabbitMQ's direct reply-to.",
)
@click.option("--vhost", metavar="NAME", default="/", show_default=True, help="The virtual host.")
@exchange_option
@click.option("--queue", metavar="NAME", show_default="<service>_req", help="The request queue.")
def command(**options: Any) -> None:
    """
    Print the rabbitmqctl commands that give two users the least they need, one to serve and one to call.

    Nothing is run, and no broker is contacted. The users must exist; the first command declares the exchange. Queue and
    binding are declared by a server that is started once as a user who may do so. Both ends then need declare=False.
    docs/security.md says what this protects from, and what not.

    \b
    jsonrpc-amqp permissions --service calc --server-user calc --client-user alice | sh -e
    """
    with reported_errors():
        for line in permissions(options.pop("service"), **options):
            click.echo(line)
