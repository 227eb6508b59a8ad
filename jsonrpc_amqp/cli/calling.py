"""The commands that call: ``call``, ``notify``, ``demo``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from .. import Client, demo
from .common import (
    ANSWERED,
    CLIENT,
    EXIT_CODES,
    WrongUsage,
    as_json,
    declare_option,
    errors,
    exchange_option,
    given,
    one_line,
    seconds_option,
    server_user_option,
    stacked,
    url_option,
    user_option,
)

_calling = stacked(
    click.argument("method"),
    click.argument("params", required=False),
    click.option("--service", metavar="NAME", help="The service to call."),
    click.option(
        "--queue",
        metavar="NAME",
        help="Call the server of this queue by its name, as AMQP RPC clients do, and not over the exchange.",
    ),
    click.option(
        "--dialect",
        type=click.Choice(["recipe2011"]),
        help="Call a server of another lineage; METHOD is not sent. See docs/interop.md.",
    ),
    seconds_option("--timeout", default=CLIENT["timeout"].default, help="Seconds for all of it, connecting included."),
    url_option,
    exchange_option,
    declare_option,
    user_option,
)


@click.command(epilog=EXIT_CODES)
@_calling
@server_user_option
@click.option(
    "--reply",
    type=click.Choice(["topic", "queue", "direct"]),
    show_default="topic, or queue with --queue",
    help="How the answer comes: over the exchange, to a queue of its own, or by RabbitMQ's direct reply-to.",
)
@click.option("--persistent", is_flag=True, help="Have the broker keep the call on disk, and confirm that it does.")
def call(method: str, params: str | None, persistent: bool, **options: Any) -> None:
    """
    Call METHOD and print its result as one line of JSON. One of --service and --queue is needed.

    PARAMS is a JSON array (by position) or object (by name); "-" reads it from standard input.

    \b
    jsonrpc-amqp call time.now --service example
    jsonrpc-amqp call add '[1, 2]' --service example
    jsonrpc-amqp call add '[1, 2]' --queue rpc_queue
    """
    with _client(confirm=persistent, **options) as client:
        result = client.call(method, _read_params(params), persistent=persistent)
    click.echo(as_json(result))


@click.command(epilog=EXIT_CODES.replace(ANSWERED, ""))
@_calling
def notify(method: str, params: str | None, **options: Any) -> None:
    """
    Send a notification of METHOD; nobody answers it.

    Done when the broker has it on disk in the service's queue. PARAMS as for call.

    \b
    jsonrpc-amqp notify log.write '{"line": "hello"}' --service example
    """
    with _client(**options) as client:
        client.notify(method, _read_params(params))


@click.command("demo", epilog=EXIT_CODES)
@click.option("--url", default="memory://", show_default=True, help="The broker; memory:// needs none.")
def show(url: str) -> None:
    """Run a server and a client; print what each sees of one notification and of one call."""
    with errors():
        demo.run(url, echo=lambda line: click.echo(one_line(line)))


@contextmanager
def _client(**options: Any) -> Iterator[Client]:
    if (options["service"] is None) == (options["queue"] is None):
        raise WrongUsage("whom to call? Give one of --service and --queue")
    if options["queue"] is not None and options["exchange"] != CLIENT["exchange"].default:
        raise WrongUsage("a queue is called past every exchange: drop --exchange, or give --service")
    with errors():
        # The first attempt is the only one: a person waits, and a script can loop.
        client = Client(reconnect=False, **given(options))
        try:
            yield client
        finally:
            client.close()


def _read_params(params: str | None) -> Any:
    """
    Give what PARAMS stands for.

    Raises:
        WrongUsage: It is no JSON array or object.
    """
    if params is None:
        return None
    try:
        text = sys.stdin.buffer.read().decode() if params == "-" else params
        value = json.loads(text, parse_constant=_no_json)
    except ValueError as error:
        raise WrongUsage(f"PARAMS is not JSON: {error}") from None
    except RecursionError:
        raise WrongUsage("PARAMS is nested too deep") from None
    if not isinstance(value, (list, dict)):
        raise WrongUsage("PARAMS is a JSON array or object, such as '[1, 2]' or '{\"a\": 1}'")
    return value


def _no_json(name: str) -> NoReturn:
    raise ValueError(f"there is no {name} in it")
