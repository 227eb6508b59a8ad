"""The command ``call``, and what ``notify`` and ``describe`` share with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from .. import Client
from ..options import TIMEOUT
from .common import (
    DEFAULT_EXCHANGE,
    EXIT_CODES,
    WrongUsage,
    as_json,
    declare_option,
    exchange_option,
    given,
    no_consumers_option,
    reported_errors,
    seconds_option,
    server_user_option,
    stacked,
    standard_input,
    url_option,
    user_option,
)

connection_options = stacked(
    click.option("--service", metavar="NAME", help="The service to call."),
    click.option(
        "--queue",
        metavar="NAME",
        help="Call the server of this queue by its name, as AMQP RPC clients do, and not over the exchange.",
    ),
    seconds_option("--timeout", default=TIMEOUT, help="Seconds for all of it, connecting included."),
    url_option,
    exchange_option,
    declare_option,
    user_option,
)
calling_options = stacked(
    click.argument("method"),
    click.argument("params", required=False),
    connection_options,
    click.option(
        "--dialect",
        type=click.Choice(["recipe2011"]),
        help="Call a server of another lineage; METHOD is not sent. See docs/interop.md.",
    ),
)
reply_option = click.option(
    "--reply",
    type=click.Choice(["topic", "queue", "direct"]),
    show_default="topic, or queue with --queue",
    help="How the reply comes: over the exchange, to a queue of its own, or by RabbitMQ's direct reply-to.",
)


@click.command("call", epilog=EXIT_CODES)
@calling_options
@server_user_option
@reply_option
@no_consumers_option
@click.option("--persistent", is_flag=True, help="Have the broker keep the call on disk, and confirm that it does.")
def command(method: str, params: str | None, persistent: bool, **options: Any) -> None:
    """
    Call METHOD and print its result as one line of JSON. One of --service and --queue is needed.

    PARAMS is a JSON array (by position) or object (by name); "-" reads it from standard input.

    \b
    jsonrpc-amqp call time.now --service example
    jsonrpc-amqp call add '[1, 2]' --service example
    jsonrpc-amqp call add '[1, 2]' --queue rpc_queue
    """
    with connected_client(confirm=persistent, **options) as client:
        result = client.call(method, read_params(params), persistent=persistent)
    click.echo(as_json(result))


@contextmanager
def connected_client(**options: Any) -> Iterator[Client]:
    """
    Yield a client with these options; its errors end the command.

    Raises:
        WrongUsage: The options contradict each other.
    """
    if (options["service"] is None) == (options["queue"] is None):
        raise WrongUsage("whom to call? Give one of --service and --queue")
    if options["queue"] is not None and options["exchange"] != DEFAULT_EXCHANGE:
        raise WrongUsage("a queue is called past every exchange: drop --exchange, or give --service")
    with reported_errors():
        # One attempt to connect: a person is waiting, and a script can retry.
        client = Client(reconnect=False, **given(options))
        try:
            yield client
        finally:
            client.close()


def read_params(params: str | None) -> Any:
    """
    Return the value of PARAMS.

    Raises:
        StreamFailure: Standard input cannot be read.
        WrongUsage: It is no JSON array or object.
    """
    if params is None:
        return None
    try:
        text = standard_input() if params == "-" else params
        value = json.loads(text, parse_constant=_reject_constant)
    except ValueError as error:
        raise WrongUsage(f"PARAMS is not JSON: {error}") from None
    except RecursionError:
        raise WrongUsage("PARAMS is nested too deep") from None
    if not isinstance(value, (list, dict)):
        raise WrongUsage("PARAMS is a JSON array or object, such as '[1, 2]' or '{\"a\": 1}'")
    return value


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"there is no {name} in it")
