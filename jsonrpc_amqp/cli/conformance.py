"""The command ``conformance``."""

from __future__ import annotations

import sys
from typing import Any

import click

from .. import conformance
from .common import (
    REMOTE_ERROR,
    STREAM_ERROR,
    TRANSPORT_ERROR,
    USAGE_ERROR,
    exchange_option,
    one_line,
    reported_errors,
    seconds_option,
    url_option,
)


@click.command(
    "conformance",
    epilog=f"""\b
Exit codes:
  0  every check passed
  {REMOTE_ERROR}  some did not
  {USAGE_ERROR}  wrong usage, or not a service that can be checked
  {TRANSPORT_ERROR}  there is no broker, or no server replies, or none does any more
  {STREAM_ERROR}  standard output cannot be written""",
)
@click.option("--service", required=True, metavar="NAME", help="The service to check.")
@seconds_option("--timeout", default=conformance.TIMEOUT, help="How long a reply may take.")
@url_option
@exchange_option
@click.option("--queue", metavar="NAME", show_default="<service>_req", help="The request queue.")
@click.option("--failed", is_flag=True, help="Print only what failed.")
@click.option(
    "--only", metavar="TEXT", multiple=True, help="Run the checks with TEXT in their group or name; may be repeated."
)
def command(failed: bool, **options: Any) -> None:
    """
    Check whether a server keeps the contract of docs/protocol.md, in whatever language it is written.

    It must have the methods of the JSON-RPC 2.0 specification's examples: subtract(minuend, subtrahend), sum(...),
    get_data() -> ["hello", 5], update(...) and notify_hello(...). Nothing else may read its queue meanwhile.

    \b
    python examples/conformance_service.py &
    jsonrpc-amqp conformance --service conformance
    """
    faults = total = 0
    with reported_errors():
        for result in conformance.run(**options):
            total += 1
            faults += result.fault is not None
            if result.fault is not None or not failed:
                click.echo(one_line(_row(result)))
    click.echo(f"{total - faults} of {total} checks passed")
    sys.exit(REMOTE_ERROR if faults else 0)


def _row(result: conformance.Result) -> str:
    ok = result.fault is None
    return f"{'ok  ' if ok else 'FAIL'}  {result.group:<13}  {result.name}" + ("" if ok else f": {result.fault}")
