"""The command ``notify``."""

from __future__ import annotations

from typing import Any

import click

from .call import calling_options, connected_client, read_params
from .common import EXIT_CODES, REMOTE_ERROR_LINE


@click.command("notify", epilog=EXIT_CODES.replace(REMOTE_ERROR_LINE, ""))
@calling_options
def command(method: str, params: str | None, **options: Any) -> None:
    """
    Send a notification of METHOD; there is no reply.

    Done when the broker has it on disk in the service's queue. PARAMS as for call.

    \b
    jsonrpc-amqp notify log.write '{"line": "hello"}' --service example
    """
    with connected_client(**options) as client:
        client.notify(method, read_params(params))
