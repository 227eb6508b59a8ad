"""The command ``gateway``."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from ..http.limits import MAX_IN_FLIGHT, MAX_SIZE, MAX_WAIT
from ..options import GRACE, TIMEOUT
from ..server.signals import INSISTENT, drain_signals
from .common import (
    NOT_DRAINED,
    USAGE_ERROR,
    WrongUsage,
    count_option,
    declare_option,
    exchange_option,
    given,
    log_format_option,
    log_level_option,
    no_consumers_option,
    seconds_option,
    server_user_option,
    start_logging,
    url_option,
    usage_errors,
    user_option,
)
from .log_lines import LogFormat

log = logging.getLogger("jsonrpc_amqp.gateway")

# Accepted connections inherit these. Only some systems have the last three.
_SOCKET_OPTIONS = (
    # asyncio sets it only on sockets that name their protocol, which create_server's do not. uvicorn writes a response
    # in two parts, and with Nagle's algorithm the second one waits 40 ms for the peer's delayed acknowledgement.
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    # A caller whose host is gone ends no connection: it is noticed within a minute, not after 'Prefer: wait=300'.
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 30),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
)

# Seconds. If a proxy sends a request on a connection just when it is closed here, the caller gets the proxy's 502. Of
# the usual ones Caddy keeps unused connections longest by default: 120 s (nginx: 60 s, Traefik: 90 s).
KEEP_ALIVE = 130.0


@click.command(
    "gateway",
    epilog=f"""\b
Exit codes:
  0  stopped by a signal, and drained
  {USAGE_ERROR}  wrong usage, or the address is taken
  {NOT_DRAINED}  stopped by a signal, with requests cut off""",
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
@click.option(
    "--allow-host",
    "allow_hosts",
    metavar="NAME",
    multiple=True,
    help="A name that callers may know it by (the Host header), beside localhost, IP addresses and that of --listen; "
    "may be repeated. * allows each.",
)
@click.option(
    "--allow-origin",
    "allow_origins",
    metavar="ORIGIN",
    multiple=True,
    help="An origin whose web pages may call it, such as https://example.com; may be repeated. * allows each.",
)
@seconds_option("--timeout", default=TIMEOUT, help="For a request that does not say 'Prefer: wait=SECONDS'.")
@seconds_option("--max-wait", default=MAX_WAIT, help="The most that a request may ask for.")
@count_option("--max-size", default=MAX_SIZE, metavar="BYTES", help="The largest request.")
@count_option("--max-in-flight", default=MAX_IN_FLIGHT, help="The most requests at a time; those beyond get 503.")
@url_option
@exchange_option
@declare_option
@user_option
@server_user_option
@click.option(
    "--reply",
    type=click.Choice(["topic", "direct"]),
    show_default="topic",
    help="How replies come over the bus: over the exchange, or by RabbitMQ's direct reply-to.",
)
@no_consumers_option
@seconds_option(
    "--keep-alive",
    default=KEEP_ALIVE,
    help="How long an unused HTTP connection stays open: longer than the proxy in front keeps it.",
)
@log_level_option
@log_format_option
def command(
    listen: str,
    allow: Sequence[str],
    allow_hosts: Sequence[str],
    allow_origins: Sequence[str],
    timeout: float,
    max_wait: float,
    max_size: int,
    max_in_flight: int,
    keep_alive: float,
    log_level: str,
    log_format: LogFormat,
    **options: Any,
) -> None:
    """
    Take JSON-RPC over HTTP POST to /SERVICE into that service, until SIGTERM, SIGINT or SIGHUP.

    Everyone who can reach it calls as its own AMQP user, by whom servers decide who may call what: put authentication
    in front of it. GET /healthz is for load balancers.

    The command waits for a missing broker; requests get 503 meanwhile.

    \b
    jsonrpc-amqp gateway --allow calc
    curl -H 'Content-Type: application/json' http://127.0.0.1:8080/calc \\
        -d '{"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1}'
    """
    start_logging(log_level, log_format)
    with usage_errors():
        from .. import AsyncClient
        from ..http.gateway import Gateway
        from ..http.http_server import make_server, run

        host, port = parse_address(listen)
        client = AsyncClient(**given(options))
        app = Gateway(
            client,
            allow=allow,
            timeout=timeout,
            max_wait=max_wait,
            max_size=max_size,
            max_in_flight=max_in_flight,
            allow_hosts=[*allow_hosts, *named(host)],
            allow_origins=allow_origins,
        )
        sock = listening_socket(host, port)
    server = make_server(app, GRACE, keep_alive)
    # Before it says that it serves: a signal that comes then stops it, rather than end this process.
    _stop_by_signals(server)
    if allow:
        log.info("serving %s at http://%s/SERVICE", ", ".join(allow), _address(sock))
    else:
        log.warning("serving nothing at http://%s/: no service is allowed (--allow)", _address(sock))
    run(server, sock, client)
    if count := app.stats().get("cut_off", 0):
        log.warning("%d requests were cut off: they took longer than %g s, or a second SIGINT came", count, GRACE)
        sys.exit(NOT_DRAINED)
    log.info("drained")


def parse_address(listen: str) -> tuple[str, int]:
    """
    Return host and port of ``HOST:PORT``.

    Raises:
        WrongUsage: It is no such address.
    """
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise WrongUsage("--listen takes HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
    return host, int(port)


def named(host: str) -> list[str]:
    """Return a host that is given by its name, and nothing for an address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return [host]
    return []


def listening_socket(host: str, port: int) -> socket.socket:
    """
    Return a socket that listens.

    Raises:
        WrongUsage: The address cannot be used.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host, port), family=family)
    except OSError as error:
        raise WrongUsage(f"cannot listen at {host}:{port}: {error.strerror}") from None
    for level, option, value in _SOCKET_OPTIONS:
        if hasattr(socket, option):
            sock.setsockopt(level, getattr(socket, option), value)
    return sock


def _stop_by_signals(server: Any) -> None:
    """Let the signals that stop ``serve`` stop uvicorn's server."""
    # uvicorn sets the same handler when it begins, but for SIGHUP. When it has drained, it sets the previous ones and
    # raises what stopped it once more, which then has no effect, so that the exit code is 0.
    for number in drain_signals():
        handler = server.handle_exit if number in INSISTENT else partial(_stop, server)
        signal.signal(number, handler)


def _stop(server: Any, *_signal: object) -> None:
    server.should_exit = True


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ipaddress.ip_address(host).version == 6 else f"{host}:{port}"
