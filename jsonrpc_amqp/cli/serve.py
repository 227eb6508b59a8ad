"""The command ``serve``: one process, or several under a supervisor."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

import click

from .. import AsyncServer, Health, TransportError
from ..http.probes import Probes
from ..options import CONCURRENCY, DELIVERY_LIMIT, GRACE, PREFETCH
from ..server.base import be_isolated, isolate
from ..server.last_death import LastDeath
from ..server.supervisor import Supervisor
from ..server.worker import DRAINED, SERVING, Parent
from .common import (
    NOT_DRAINED,
    TRANSPORT_ERROR,
    USAGE_ERROR,
    F,
    Failure,
    NoReply,
    WrongUsage,
    count_option,
    declare_option,
    exchange_option,
    file_of_url,
    log_format_option,
    log_level_option,
    read_url,
    seconds_option,
    stacked,
    start_logging,
    url_option,
    user_option,
)
from .interpreter import this_program
from .log_lines import LogFormat
from .systemd import is_notified, notified
from .targets import AnyServer, is_given, make_server

log = logging.getLogger("jsonrpc_amqp.cli")

SERVE_EXIT_CODES = f"""\b
Exit codes:
  0  stopped by a signal, and drained
  {USAGE_ERROR}  wrong usage, or what is to be served cannot be
  {TRANSPORT_ERROR}  the broker refused the user, or has the queue with other properties
  {NOT_DRAINED}  stopped by a signal, and not drained: a handler was left running, or a
     worker was killed; the broker delivers their requests again"""

grace_option = seconds_option(
    "--grace",
    # Not the number itself: the server of a TARGET may have another default.
    default=None,
    show_default=f"{GRACE:g}",
    help="How long running methods get to finish when a signal stops the server.",
)


def queue_options(concurrency: int = CONCURRENCY) -> Callable[[F], F]:
    """Return a decorator that adds the options of a request queue and its consumer to a command that serves."""
    return stacked(
        count_option("--concurrency", default=concurrency, help="Methods that run at a time, in each process."),
        click.option(
            "--prefetch",
            type=click.IntRange(min=1, max=65535),
            metavar="N",
            show_default=f"{PREFETCH}, and at least twice the concurrency",
            help="Most requests that a process holds.",
        ),
        url_option,
        exchange_option,
        declare_option,
        user_option,
        click.option(
            "--verify-user",
            is_flag=True,
            default=None,
            help="Serve only requests whose sender the broker has verified; see docs/security.md.",
        ),
        click.option("--queue", metavar="NAME", show_default="<service>_req", help="The request queue."),
        click.option(
            "--queue-type",
            type=click.Choice(["classic", "quorum"]),
            show_default="the virtual host's default",
            help="The type with which the request queue is declared.",
        ),
        click.option(
            "--delivery-limit",
            type=click.IntRange(min=1),
            metavar="N",
            show_default=str(DELIVERY_LIMIT),
            help="How often a quorum queue may deliver a request again before it gives it up.",
        ),
        click.option(
            "--dead-letters",
            is_flag=True,
            default=None,
            help="Keep requests that were given up in <service>_dead; see dead.",
        ),
    )


@click.command(
    "serve",
    epilog=SERVE_EXIT_CODES,
)
@click.argument("target")
@click.option("--service", metavar="NAME", help="The service's name. Needed unless TARGET is a Server.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Run N processes, and restart those that die. A request that kills them is found, and given up.",
)
@queue_options()
@click.option(
    "--dialect",
    type=click.Choice(["recipe2011", "rabbitmq-java"]),
    help="Serve clients of another lineage as well; see docs/interop.md.",
)
@click.option("--recipe-method", metavar="METHOD", help="The method that the requests of --dialect recipe2011 are for.")
@click.option(
    "--redelivery",
    type=click.Choice(["run", "refuse"]),
    show_default="run",
    help="What to do with a request that a server may already have had.",
)
@click.option(
    "--ack",
    type=click.Choice(["late", "early"]),
    show_default="late",
    help="Acknowledge a request after its reply, or before its method runs.",
)
@grace_option
@click.option(
    "--health-port",
    type=click.IntRange(min=1, max=65535),
    metavar="N",
    help="Answer the HTTP probes GET /livez and /readyz on this port, on all addresses.",
)
@log_level_option
@log_format_option
@click.option("--worker", type=(int, int, int, int), hidden=True)
@click.option("--isolated", type=int, hidden=True)
@click.pass_context
def command(
    context: click.Context,
    /,
    target: str,
    workers: int | None,
    worker: tuple[int, int, int, int] | None,
    isolated: int | None,
    grace: float | None,
    health_port: int | None,
    log_level: str,
    log_format: LogFormat,
    url: str,
    **options: Any,
) -> None:
    """
    Serve TARGET until SIGTERM, SIGINT or SIGHUP, then finish what runs; a second SIGTERM or SIGINT ends at once.

    \b
    TARGET is found from the working directory:
      module            its Server if it has exactly one, else all methods
                        that were registered with jsonrpcserver's @method
      module:attribute  a Server, a dict of methods, or a module

    A Server, which may be an AsyncServer, has its own url, service and numbers: no option may contradict them.

    The command waits for a missing broker.

    With --workers, a worker that has ended is replaced: at once if it had served, otherwise after a pause, which
    doubles each time up to 30 s. A user that the broker refuses ends the command only before the first worker has
    served. A file with the URL is read again for each worker, so that the password in it may change. A worker that has
    not ended 5 s after the grace is killed.

    \b
    jsonrpc-amqp serve examples.example_broker --service example --workers 3
    """
    start_logging(log_level, log_format, _identity(worker, isolated))
    if workers is not None:
        check = partial(_check_target, context, target, url, options)
        sys.exit(_supervise(context, workers, url, grace, check, health_port))
    if isolated is not None:
        be_isolated(make_server(context, target, url, options), isolated)
    elif worker is not None:
        tells = health_port is not None or is_notified()
        _serve_as_worker(context, worker, partial(make_server, context, target, url, options), grace, tells=tells)
    else:
        server = make_server(context, target, url, options)
        with _observed(health_port, server.health):
            serve_until_stopped(server, grace)


@contextmanager
def _observed(port: int | None, health_of: Callable[[], Health]) -> Iterator[None]:
    """Tell systemd during a ``with`` block, and answer probes, on a port if it is given."""
    with notified(health_of), _probes(port, health_of):
        yield


@contextmanager
def _probes(port: int | None, health_of: Callable[[], Health]) -> Iterator[None]:
    if port is None:
        yield
        return
    probes = Probes(port, health_of)
    try:
        probes.start()
    except OSError as error:
        raise WrongUsage(f"--health-port {port}: {error}") from None
    with closing(probes):
        yield


def _serve_as_worker(
    context: click.Context,
    worker: tuple[int, int, int, int],
    make: Callable[[], AnyServer],
    grace: float | None,
    *,
    tells: bool,
) -> None:
    *pipes, last_death = worker
    parent = Parent(*pipes)
    server = make()
    parent.drain_with(server.drain)  # which has ``serve_forever`` return
    server.on_serving(partial(parent.tell, SERVING))
    if tells:
        parent.keep_telling(server.health)
    with closing(isolate(server, [*_own_command(context), "--isolated"], LastDeath(last_death).read)):
        serve_until_stopped(server, grace)
    parent.tell(DRAINED)


def _identity(worker: tuple[int, int, int, int] | None, isolated: int | None) -> dict[str, Any]:
    """Return what identifies this process in its log lines."""
    if isolated is not None:
        return {"isolated": True, "process": os.getpid()}
    return {} if worker is None else {"worker": worker[0], "process": os.getpid()}


def serve_until_stopped(server: AnyServer, grace: float | None) -> None:
    """Serve until a signal stops the server. End the command where it has not drained, or the broker refused it."""
    try:
        if isinstance(server, AsyncServer):
            has_drained = asyncio.run(
                server.serve_forever(handle_signals=True, grace=GRACE if grace is None else grace)
            )
        else:
            has_drained = server.serve_forever() if grace is None else server.serve_forever(grace=grace)
    except TransportError as error:
        # The server has logged why it gives up; do not print it again.
        if logging.getLogger("jsonrpc_amqp.server").isEnabledFor(logging.WARNING):
            sys.exit(TRANSPORT_ERROR)
        raise NoReply(error) from None
    if has_drained is False:  # a subclass may return None
        sys.exit(NOT_DRAINED)


def _check_target(context: click.Context, target: str, url: str, options: Mapping[str, Any]) -> int:
    """Return an exit code: of the failure if TARGET cannot be served. Its workers would fail, one after the other."""
    try:
        make_server(context, target, url, options)
    except Failure as failure:
        failure.show()
        return failure.exit_code
    return 0


def _supervise(
    context: click.Context,
    count: int,
    url: str,
    grace: float | None,
    check: Callable[[], int],
    health_port: int | None,
) -> int:
    supervisor = Supervisor(
        _own_command(context),
        count,
        env=_worker_environment(context, url),
        grace=GRACE if grace is None else grace,
        refused=TRANSPORT_ERROR,
        undrained=NOT_DRAINED,
    )
    with ExitStack() as stack:
        code = supervisor.run(check, lambda: stack.enter_context(_observed(health_port, supervisor.health)))
    if code < 0:
        raise WrongUsage(f"the process that imported {context.params['target']} was ended by signal {-code}")
    return code


def _worker_environment(context: click.Context, url: str) -> Callable[[], Mapping[str, str] | None]:
    """Return what makes the environment of a worker that is about to be started."""
    # Pass the URL in the environment, not on a command line: it may hold a password. Workers cannot read the file
    # themselves where it is a pipe, which this process has already read.
    sources = {context.get_parameter_source(name) for name in ("url", "url_file")}
    if sources <= {click.core.ParameterSource.DEFAULT}:
        return lambda: None
    path = file_of_url(context)
    latest = url

    def environment() -> Mapping[str, str]:
        nonlocal latest
        # A pipe in its place would keep the supervisor waiting.
        if path is not None and (os.path.isfile(path) or not os.path.exists(path)):
            try:
                latest = read_url(path)
            except WrongUsage as error:
                log.warning("%s; the worker gets the URL that was read before", error)
        return {**os.environ, "AMQP_URL": latest}

    return environment


def _own_command(context: click.Context) -> list[str]:
    """Return the command of this process without what is for it alone."""
    own = ("target", "workers", "worker", "url")
    options = [name for name in context.params if name not in own and is_given(context, name)]
    arguments = [_as_option(name, context.params[name]) for name in options]
    return [*this_program(), "serve", context.params["target"], *arguments]


def _as_option(name: str, value: Any) -> str:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option}={value}"
