"""The command ``bridge``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from .. import Server
from ..options import TIMEOUT
from .common import (
    TEXT,
    WrongUsage,
    given,
    log_format_option,
    log_level_option,
    seconds_option,
    start_logging,
    usage_errors,
)
from .log_lines import LogFormat
from .serve import SERVE_EXIT_CODES, grace_option, queue_options, serve_until_stopped

# One thread for each request that the HTTP server is working on; these threads only wait.
_CONCURRENCY = 32


@click.command(
    "bridge",
    epilog=SERVE_EXIT_CODES,
)
@click.option("--service", required=True, metavar="NAME", help="The service to serve.")
@click.option("--to", required=True, metavar="URL", help="The JSON-RPC server: http://host:port/ or https://host/path.")
@seconds_option(
    "--timeout",
    default=TIMEOUT,
    help="How long the HTTP server may take; less where the caller has less left.",
)
@click.option(
    "--header",
    "headers",
    metavar="'NAME: VALUE'|@FILE",
    multiple=True,
    help="Send an HTTP header along; may be repeated. Other users of this machine can read a command line: better put "
    "secrets into a file, a header a line.",
)
@queue_options(concurrency=_CONCURRENCY)
@grace_option
@log_level_option
@log_format_option
def command(
    to: str,
    timeout: float,
    headers: Sequence[str],
    grace: float | None,
    log_level: str,
    log_format: LogFormat,
    **options: Any,
) -> None:
    """
    Serve a service by asking a JSON-RPC server over HTTP.

    Each request body is posted once, with other ids, and the HTTP response becomes the reply. What goes wrong becomes a
    JSON-RPC error: -32004 where the HTTP server was not reached, -32005 where it may have run the method. A
    notification that was not taken is logged, and becomes a dead letter (--dead-letters).

    The command waits for a missing broker. While the HTTP server cannot be reached, requests wait: calls until their
    time is nearly up, notifications until it can be reached.

    \b
    jsonrpc-amqp bridge --service calc --to http://127.0.0.1:8000/
    """
    start_logging(log_level, log_format)
    with usage_errors():
        from ..http.bridge import HttpBridge

        dispatcher = HttpBridge(to, timeout=timeout, headers=parse_headers(headers))
        server = Server(dispatcher=dispatcher, **given(options))
    with dispatcher:
        serve_until_stopped(server, grace)


def parse_headers(headers: Sequence[str]) -> dict[str, str]:
    """
    Return headers by name, including those in files.

    Args:
        headers: Each is ``NAME: VALUE``, or ``@FILE``, a file with such a header on each line.

    Raises:
        WrongUsage: One is neither, or a file cannot be read.
    """
    parsed = {}
    for line in _header_lines(headers):
        name, colon, value = line.partition(":")
        if not colon:
            # Do not repeat the text: it may be a secret.
            raise WrongUsage("a header is given as 'NAME: VALUE', or as @FILE with a header a line")
        parsed[name.strip()] = value.strip()
    return parsed


def _header_lines(headers: Sequence[str]) -> Iterator[str]:
    for header in headers:
        if not header.startswith("@"):
            yield header
            continue
        try:
            yield from filter(None, map(str.strip, Path(header[1:]).read_text(TEXT).splitlines()))
        except OSError as error:
            raise WrongUsage(f"{header[1:]}: {error.strerror}") from None
