"""The command ``serve``: one process, or several under a parent."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from .. import Server, TransportError
from ..server.supervisor import Workers, stop_with_parent
from .common import (
    SERVER,
    TRANSPORT_ERROR,
    USAGE_ERROR,
    F,
    Failure,
    NoAnswer,
    declare_option,
    exchange_option,
    log_level_option,
    stacked,
    start_logging,
    url_option,
    user_option,
)
from .targets import is_given, make_server


def queue_options(concurrency: int = SERVER["concurrency"].default) -> Callable[[F], F]:
    """Decorate a command that serves with what it may say of its queue, and of how it reads it."""
    return stacked(
        click.option(
            "--concurrency",
            type=click.IntRange(min=1),
            metavar="N",
            default=concurrency,
            show_default=True,
            help="Methods that run at a time, in each process.",
        ),
        click.option(
            "--prefetch",
            type=click.IntRange(min=1, max=65535),
            metavar="N",
            show_default="64, and at least twice the concurrency",
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
            help="Serve only requests whose sender the broker vouches for; see docs/security.md.",
        ),
        click.option("--queue", metavar="NAME", show_default="<service>_req", help="The request queue."),
        click.option(
            "--queue-type",
            type=click.Choice(["classic", "quorum"]),
            show_default="as the virtual host has it",
            help="What the request queue is declared as.",
        ),
        click.option(
            "--delivery-limit",
            type=click.IntRange(min=1),
            metavar="N",
            show_default=str(SERVER["delivery_limit"].default),
            help="How often a request may come back to a quorum queue before it is given up.",
        ),
        click.option(
            "--dead-letters",
            is_flag=True,
            default=None,
            help="Keep in <service>_dead what was given up; see dead.",
        ),
    )


@click.command(
    epilog=f"""\b
Exit codes:
  0  told to end, and drained
  {USAGE_ERROR}  wrong usage, or TARGET cannot be served
  {TRANSPORT_ERROR}  the broker refused the user, or has the queue with other properties"""
)
@click.argument("target")
@click.option("--service", metavar="NAME", help="The service's name. Needed unless TARGET is a Server.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Run so many processes, and restart the dead.")
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
    help="What becomes of a request that a server may have had before.",
)
@click.option(
    "--ack",
    type=click.Choice(["late", "early"]),
    show_default="late",
    help="Acknowledge a request after its answer, or before its method runs.",
)
@log_level_option
@click.option("--worker", type=(int, int), hidden=True)
@click.pass_context
def serve(
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

    A Server has its own url, service and numbers: no option may say otherwise.

    A missing broker is waited for.

    \b
    jsonrpc-amqp serve examples.example_broker --service example --workers 3
    """
    start_logging(log_level, "" if worker is None else f" [worker {worker[0]}, process {os.getpid()}]")
    if workers is not None:
        _check(context, target, url, options)
        sys.exit(_supervise(context, workers, url))
    server = make_server(context, target, url, options)
    if worker is None:
        run(server)
    else:
        _serve_as_worker(server, worker[1])


def _serve_as_worker(server: Server, lifeline: int) -> None:
    stop_with_parent(lifeline, server.stop)
    run(server)


def run(server: Server) -> None:
    """Serve until told to end; a broker that says no ends the command."""
    try:
        server.serve_forever()
    except TransportError as error:
        # The server logs why it gives up; once is enough.
        if logging.getLogger("jsonrpc_amqp.server").isEnabledFor(logging.WARNING):
            sys.exit(TRANSPORT_ERROR)
        raise NoAnswer(error) from None


def _check(context: click.Context, target: str, url: str, options: Mapping[str, Any]) -> None:
    """End this process if TARGET cannot be served: no worker could."""
    # In a child: what the module opens and starts when it is imported is no business of the workers' parent.
    child = os.fork()
    if child == 0:
        code = 0
        try:
            make_server(context, target, url, options)
        except Failure as failure:
            failure.show()
            code = failure.exit_code
        # Nothing that the module started may keep it alive.
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        sys.exit(code)


def _supervise(context: click.Context, count: int, url: str) -> int:
    command = [sys.executable, "-m", "jsonrpc_amqp", *_same_command(context)]
    # Not on a command line: it may hold a password. And they need not look into AMQP_URL_FILE, which may be a pipe that
    # has been read.
    sources = {context.get_parameter_source(name) for name in ("url", "url_file")}
    env = None if sources <= {click.core.ParameterSource.DEFAULT} else {**os.environ, "AMQP_URL": url}
    return Workers(command, count, env=env, hopeless=TRANSPORT_ERROR).run()


def _same_command(context: click.Context) -> list[str]:
    """Give the arguments that this process was started with, without those that are for the parent alone."""
    options = [name for name in context.params if name not in ("target", "workers", "url") and is_given(context, name)]
    return ["serve", context.params["target"], *(_as_option(name, context.params[name]) for name in options)]


def _as_option(name: str, value: Any) -> str:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option}={value}"
