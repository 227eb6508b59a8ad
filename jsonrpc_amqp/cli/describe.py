"""The command ``describe``."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import click

from .. import Client, MethodNotFound
from .call import connected_client, connection_options, reply_option
from .common import EXIT_CODES, REMOTE_ERROR, REMOTE_ERROR_LINE, Failure, as_json, server_user_option
from .description import lines_of

_METHOD = "rpc.discover"


class NotDescribed(Failure):
    """The server replied, and not with what was asked for."""

    exit_code = REMOTE_ERROR


@click.command(
    "describe",
    epilog=EXIT_CODES.replace(
        REMOTE_ERROR_LINE,
        f"{REMOTE_ERROR_LINE.rstrip()};\n       or there is no description, or none of METHOD, which one line says\n",
    ),
)
@click.argument("method", required=False)
@connection_options
@server_user_option
@reply_option
@click.option("--json", "in_json", is_flag=True, help="Print the document, as JSON.")
def command(method: str | None, in_json: bool, **options: Any) -> None:
    """
    Print what a service does, or one METHOD of it. One of --service and --queue is needed.

    Its server is asked, by the method rpc.discover, whose result is a document of OpenRPC (https://open-rpc.org).

    \b
    jsonrpc-amqp describe --service example
    jsonrpc-amqp describe time.now --service example
    jsonrpc-amqp describe --service example --json > openrpc.json
    """
    with connected_client(**options) as client:
        document = _discover(client, options["service"] or options["queue"])
    if method is not None:
        document = {**document, "methods": [_one(document, method)]}
    if in_json:
        click.echo(as_json(document, indent=2))
        return
    for line in lines_of(document):
        click.echo(line.encode())


def _discover(client: Client, asked: str) -> dict[str, Any]:
    """Return the document of a service, some of which was checked: it has an array of methods."""
    try:
        document = client.call(_METHOD)
    except MethodNotFound:
        raise NotDescribed(
            f"{asked} does not describe itself: it has no method {_METHOD}. Servers of this library have it, but for "
            "those with discover=False or with a dispatcher of another library"
        ) from None
    if not isinstance(document, dict) or not isinstance(document.get("methods"), list):
        raise NotDescribed(f"{asked} replied to {_METHOD} with what is no document of OpenRPC")
    return document


def _one(document: dict[str, Any], name: str) -> Any:
    """Return the description of one method."""
    methods = {each.get("name"): each for each in document["methods"] if isinstance(each, dict)}
    if name in methods:
        return methods[name]
    near = get_close_matches(name, [each for each in methods if isinstance(each, str)], 3)
    hint = f"; perhaps {' or '.join(near)}?" if near else ""
    raise NotDescribed(f"the service describes no method {name}{hint}")
