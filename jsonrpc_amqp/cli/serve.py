"""The command ``serve``: one process, or several under a supervisor."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from .. import Server, TransportError
from ..options import CONCURRENCY, DELIVERY_LIMIT, PREFETCH
from ..server.supervisor import Supervisor, stop_with_parent
from .common import (
    NOT_DRAINED,
    TRANSPORT_ERROR,
    USAGE_ERROR,
    F,
    Failure,
    NoReply,
    count_option,
    declare_option,
    exchange_option,
    log_level_option,
    stacked,
    start_logging,
    url_option,
    user_option,
)
from .targets import is_given, make_server


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
    epilog=f"""\b
Exit codes:
  0  stopped by a signal, and drained
  {USAGE_ERROR}  wrong usage, or TARGET cannot be served
  {TRANSPORT_ERROR}  the broker refused the user, or has the queue with other properties
  {NOT_DRAINED}  stopped by a signal, with handlers that still ran (without --workers)""",
)
@click.argument("target")
@click.option("--service", metavar="NAME", help="The service's name. Needed unless TARGET is a Server.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Run N processes, and restart those that die.")
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
@log_level_option
@click.option("--worker", type=(int, int), hidden=True)
@click.pass_context
def command(
    context: click.Context,
    /,
    target: str,
    workers: int | None,
    worker: tuple[int, int] | None,
    log_level: str,
    url: str,
    **options: Any,
) -> None:
    """
    Serve TARGET until SIGTERM or SIGINT, then finish what runs; a second signal ends at once.

    \b
    TARGET is found from the working directory:
      module            its Server if it has exactly one, else all methods
                        that were registered with jsonrpcserver's @method
      module:attribute  a Server, a dict of methods, or a module

    A Server has its own url, service and numbers: no option may contradict them.

    The command waits for a missing broker.

    \b
    jsonrpc-amqp serve examples.example_broker --service example --workers 3
    """
    start_logging(log_level, "" if worker is None else f" [worker {worker[0]}, process {os.getpid()}]")
    if workers is not None:
        _check_target(context, target, url, options)
        sys.exit(_supervise(context, workers, url))
    server = make_server(context, target, url, options)
    if worker is not None:
        _number, lifeline = worker
        stop_with_parent(lifeline, server.stop)
    serve_until_stopped(server)


def serve_until_stopped(server: Server) -> None:
    """Serve until a signal stops the server; an error of the broker that is final ends the command."""
    try:
        if server.serve_forever() is False:  # a subclass may return None
            sys.exit(NOT_DRAINED)
    except TransportError as error:
        # The server has logged why it gives up; do not print it again.
        if logging.getLogger("jsonrpc_amqp.server").isEnabledFor(logging.WARNING):
            sys.exit(TRANSPORT_ERROR)
        raise NoReply(error) from None


def _check_target(context: click.Context, target: str, url: str, options: Mapping[str, Any]) -> None:
    """End this process if TARGET cannot be served: its workers would fail, one after the other."""
    # In a child process: the supervisor must not hold files and threads that the module opens when it is imported.
    child = os.fork()
    if child == 0:
        code = 0
        try:
            make_server(context, target, url, options)
        except Failure as failure:
            failure.show()
            code = failure.exit_code
        # Exit at once, even if the module has started threads.
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        sys.exit(code)


def _supervise(context: click.Context, count: int, url: str) -> int:
    command = [sys.executable, "-m", "jsonrpc_amqp", *_worker_arguments(context)]
    # Pass the URL in the environment, not on a command line: it may hold a password. Workers cannot read AMQP_URL_FILE
    # themselves where it is a pipe, which this process has already read.
    sources = {context.get_parameter_source(name) for name in ("url", "url_file")}
    env = None if sources <= {click.core.ParameterSource.DEFAULT} else {**os.environ, "AMQP_URL": url}
    return Supervisor(command, count, env=env, hopeless=TRANSPORT_ERROR).run()


def _worker_arguments(context: click.Context) -> list[str]:
    """Return the arguments of this process without those that are for the supervisor alone."""
    options = [name for name in context.params if name not in ("target", "workers", "url") and is_given(context, name)]
    return ["serve", context.params["target"], *(_as_option(name, context.params[name]) for name in options)]


def _as_option(name: str, value: Any) -> str:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option}={value}"
