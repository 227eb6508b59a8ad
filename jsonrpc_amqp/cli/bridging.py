"""The commands to and from HTTP: ``bridge`` and ``gateway``."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from .. import Client, MissingExtra, Server, TransportError
from .common import (
    CLIENT,
    TRANSPORT_ERROR,
    USAGE_ERROR,
    WrongUsage,
    declare_option,
    exchange_option,
    given,
    log_level_option,
    seconds_option,
    server_user_option,
    start_logging,
    url_option,
    user_option,
)
from .serving import queue_options, run

log = logging.getLogger("jsonrpc_amqp.gateway")

# A thread for each request that the HTTP server works on: they only wait.
_CONCURRENCY = 32
_GRACE = 30


@click.command(
    epilog=f"""\b
Exit codes:
  0  told to end, and drained
  {USAGE_ERROR}  wrong usage
  {TRANSPORT_ERROR}  the broker refused the user, or has the queue with other properties"""
)
@click.option("--service", required=True, metavar="NAME", help="The service to serve.")
@click.option("--to", required=True, metavar="URL", help="The JSON-RPC server: http://host:port/ or https://host/path.")
@seconds_option(
    "--timeout",
    default=CLIENT["timeout"].default,
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
@log_level_option
def bridge(to: str, timeout: float, headers: Sequence[str], log_level: str, **options: Any) -> None:
    """
    Serve a service by asking a JSON-RPC server over HTTP.

    Each request body is posted unchanged, once, and its answer given back. What goes wrong becomes a JSON-RPC error:
    -32004 where the HTTP server was not reached, -32005 where it may have run the method. A notification that was not
    taken is logged, and becomes a dead letter (--dead-letters).

    A missing broker is waited for.

    \b
    jsonrpc-amqp bridge --service calc --to http://127.0.0.1:8000/
    """
    start_logging(log_level)
    with _wrong_usage():
        from ..http.bridge import HttpBridge

        dispatcher = HttpBridge(to, timeout=timeout, headers=_parsed(headers))
        server = Server(dispatcher=dispatcher, **given(options))
    with dispatcher:
        run(server)


@click.command(
    epilog=f"""\b
Exit codes:
  0  told to end, and drained
  {USAGE_ERROR}  wrong usage, or the address is taken"""
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:8080",
    show_default=True,
    help="Where to listen; [::1]:8080 for IPv6, port 0 for any that is free.",
)
@click.option(
    "--allow",
    metavar="SERVICE",
    multiple=True,
    help="A service that may be called; may be repeated. Without it nothing is served.",
)
@seconds_option(
    "--timeout", default=CLIENT["timeout"].default, help="For a request that does not say 'Prefer: wait=SECONDS'."
)
@seconds_option("--max-wait", default=300.0, help="The most that a request may ask for.")
@click.option(
    "--max-size",
    type=click.IntRange(min=1),
    metavar="BYTES",
    default=1 << 20,
    show_default=True,
    help="The largest request.",
)
@click.option(
    "--max-in-flight",
    type=click.IntRange(min=1),
    metavar="N",
    default=1000,
    show_default=True,
    help="The most requests at a time; those beyond are told 503.",
)
@url_option
@exchange_option
@declare_option
@user_option
@server_user_option
@click.option(
    "--reply",
    type=click.Choice(["topic", "direct"]),
    show_default="topic",
    help="How answers come over the bus: over the exchange, or by RabbitMQ's direct reply-to.",
)
@log_level_option
def gateway(
    listen: str,
    allow: Sequence[str],
    timeout: float,
    max_wait: float,
    max_size: int,
    max_in_flight: int,
    log_level: str,
    **options: Any,
) -> None:
    """
    Take JSON-RPC over HTTP POST to /SERVICE into that service, until SIGTERM or SIGINT.

    Whoever reaches it calls as its own AMQP user, by whom servers decide who may call what: put authentication in
    front of it. GET /healthz is for load balancers.

    A missing broker is waited for; requests are told 503 meanwhile.

    \b
    jsonrpc-amqp gateway --allow calc
    curl -H 'Content-Type: application/json' http://127.0.0.1:8080/calc \\
        -d '{"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1}'
    """
    start_logging(log_level)
    with _wrong_usage():
        from ..http.gateway import Gateway

        client = Client(**given(options))
        app = Gateway(
            client, allow=allow, timeout=timeout, max_wait=max_wait, max_size=max_size, max_in_flight=max_in_flight
        )
        sock = _listening(listen)
    if allow:
        log.info("serving %s at http://%s/SERVICE", ", ".join(allow), _shown(sock))
    else:
        log.warning("serving nothing at http://%s/: no service is allowed (--allow)", _shown(sock))
    try:
        # So that the first request need not wait for it.
        with suppress(TransportError):
            client.start(timeout=0)
        _serve(app, sock)
    finally:
        client.close()


def _serve(app: Any, sock: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        # The gateway's own log says what failed; a line for each request is the business of what stands in front of it.
        access_log=False,
        log_config=None,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE,
    )
    # Once it has drained it raises the signal again that told it to; it then has done what it was told.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    uvicorn.Server(config).run(sockets=[sock])


@contextmanager
def _wrong_usage() -> Iterator[None]:
    """Tell what the user can mend in one line."""
    try:
        yield
    except (MissingExtra, ValueError) as error:
        raise WrongUsage(error) from None


def _parsed(headers: Sequence[str]) -> dict[str, str]:
    """Give headers by name, those in files included."""
    parsed = {}
    for line in _lines(headers):
        name, colon, value = line.partition(":")
        if not colon:
            # Not the text: it may be a secret.
            raise WrongUsage("a header is given as 'NAME: VALUE', or as @FILE with a header a line")
        parsed[name.strip()] = value.strip()
    return parsed


def _lines(headers: Sequence[str]) -> Iterator[str]:
    for header in headers:
        if not header.startswith("@"):
            yield header
            continue
        try:
            yield from filter(None, map(str.strip, Path(header[1:]).read_text("utf-8").splitlines()))
        except OSError as error:
            raise WrongUsage(f"{header[1:]}: {error.strerror}") from None


def _listening(listen: str) -> socket.socket:
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise WrongUsage("--listen takes HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host, int(port)), family=family)
    except OSError as error:
        raise WrongUsage(f"cannot listen at {listen}: {error.strerror}") from None
    # Connections inherit it. asyncio sets it only where the socket names its protocol, which those of Python do not; an
    # answer is written in two parts, and the second then waits 40 ms for the other side.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _shown(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ipaddress.ip_address(host).version == 6 else f"{host}:{port}"
