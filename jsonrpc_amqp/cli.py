"""
The command ``jsonrpc-amqp``: serve, call, notify, dead, conformance, demo.

Results go to standard output, everything else to standard error. What came over the wire is written such that it
cannot steer a terminal.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from inspect import signature
from operator import attrgetter
from types import ModuleType
from typing import Any, NoReturn, TypeVar

import click

from . import (
    Client,
    DeadLetter,
    DeadLetters,
    JsonRpcAmqpError,
    RemoteError,
    Server,
    TransportError,
    __version__,
    conformance,
    demo,
    global_methods,
)
from .workers import Workers, stop_with_parent

REMOTE_ERROR = 1
USAGE_ERROR = 2
TRANSPORT_ERROR = 3
# As of a program that SIGINT ended: 1 would say that the server answered with an error.
INTERRUPTED = 130

# The longest that a message can be told to live: 2**32 - 1 ms.
MAX_TIMEOUT = 4294967.0

# What may steer a terminal, or turn the direction of its text, and may stand in a JSON string unescaped; and
# surrogates, which have no form in UTF-8.
_UNSAFE = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Tables of AMQP headers may nest deeper than Python writes.
_MAX_DEPTH = 20
_LONGEST_CELL = 60

_ANSWERED = f"  {REMOTE_ERROR}    the server answered with an error, which is on standard error as JSON\n"
_EXIT_CODES = f"""\b
Exit codes:
  0    done
{_ANSWERED}  {USAGE_ERROR}    wrong usage; nothing was sent
  {TRANSPORT_ERROR}    there is no answer; one line on standard error says why
  {INTERRUPTED}  interrupted"""

_OF_A_SERVER = (
    "concurrency",
    "prefetch",
    "exchange",
    "queue",
    "queue_type",
    "delivery_limit",
    "dead_letters",
    "redelivery",
    "ack",
    "dialect",
    "recipe_method",
)
_CLIENT = signature(Client).parameters
_SERVER = signature(Server).parameters

F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger("jsonrpc_amqp.cli")


class Failure(click.ClickException):
    """Ends the command with one line on standard error."""

    def __init__(self, message: object) -> None:
        super().__init__(_one_line(str(message)))


class WrongUsage(Failure):
    """The user can mend it."""

    exit_code = USAGE_ERROR


class NoAnswer(Failure):
    """There is no broker, no service, or no answer in time."""

    exit_code = TRANSPORT_ERROR


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _as_json(value: Any, *, indent: int | None = None) -> bytes:
    # Bytes: JSON is UTF-8, whatever the terminal's encoding.
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()


def _timeout(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    if not 0 < value <= MAX_TIMEOUT:
        raise click.BadParameter(f"{value:g} is not in the range 0 < seconds <= {MAX_TIMEOUT:.0f}")
    return value


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Stack decorators; help shows them in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_url = click.option(
    "--url",
    envvar="AMQP_URL",
    default="amqp://localhost",
    show_default=True,
    show_envvar=True,
    help="The broker: amqp://user:password@host:port/vhost, amqps:// for TLS, several joined by ';' for failover. "
    "Other users of this machine can read a command line: better put a password into the environment.",
)
_exchange = click.option(
    "--exchange",
    metavar="NAME",
    default=_SERVER["exchange"].default,
    show_default=True,
    help="The topic exchange.",
)
_calling = _options(
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
    click.option(
        "--timeout",
        type=float,
        callback=_timeout,
        default=_CLIENT["timeout"].default,
        show_default=True,
        metavar="SECONDS",
        help="Seconds for all of it, connecting included.",
    ),
    _url,
    _exchange,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jsonrpc-amqp")
def main() -> None:
    """JSON-RPC 2.0 over RabbitMQ: serve methods, and call them."""


@main.command(epilog=_EXIT_CODES)
@_calling
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
    click.echo(_as_json(result))


@main.command(epilog=_EXIT_CODES.replace(_ANSWERED, ""))
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


@main.command("demo", epilog=_EXIT_CODES)
@click.option("--url", default="memory://", show_default=True, help="The broker; memory:// needs none.")
def show(url: str) -> None:
    """Run a server and a client; print what each sees of one notification and of one call."""
    with _errors():
        demo.run(url, echo=lambda line: click.echo(_one_line(line)))


@contextmanager
def _client(**options: Any) -> Iterator[Client]:
    if not (options["service"] or options["queue"]):
        raise WrongUsage("whom to call? Give --service or --queue")
    with _errors():
        # The first attempt is the only one: a person waits, and a script can loop.
        client = Client(reconnect=False, **_given(options))
        try:
            yield client
        finally:
            client.close()


@contextmanager
def _errors() -> Iterator[None]:
    """Tell what went wrong, and end with the exit code for it."""
    # What a client logs on its way to an error is in the error.
    logging.basicConfig(handlers=[logging.NullHandler()])
    try:
        yield
    except RemoteError as error:
        click.echo(_as_json(_error_object(error)), err=True)
        sys.exit(REMOTE_ERROR)
    except TransportError as error:
        raise NoAnswer(error) from None
    except (JsonRpcAmqpError, ValueError) as error:
        raise WrongUsage(error) from None
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _error_object(error: RemoteError) -> dict[str, Any]:
    shown = {"code": error.code, "message": error.message}
    return shown if error.data is None else {**shown, "data": error.data}


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


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


@main.command(
    "conformance",
    epilog=f"""\b
Exit codes:
  0  every check passed
  {REMOTE_ERROR}  some did not
  {USAGE_ERROR}  wrong usage
  {TRANSPORT_ERROR}  there is no broker, or nobody answers""",
)
@click.option("--service", required=True, metavar="NAME", help="The service to check.")
@click.option(
    "--timeout",
    type=float,
    callback=_timeout,
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long an answer may take.",
)
@_url
@_exchange
@click.option("--failed", is_flag=True, help="Print only what failed.")
@click.option("--only", metavar="TEXT", default="", help="Run the checks that have TEXT in their name.")
def check_conformance(failed: bool, **options: Any) -> None:
    """
    Check whether a server keeps the contract of docs/protocol.md, whatever it is written in.

    It must have the methods of the JSON-RPC 2.0 specification's examples: subtract(minuend, subtrahend), sum(...),
    get_data() -> ["hello", 5], update(...) and notify_hello(...). Nothing else may read its queue meanwhile.

    \b
    python examples/conformance_service.py &
    jsonrpc-amqp conformance --service conformance
    """
    faults = total = 0
    with _errors():
        for result in conformance.run(**options):
            total += 1
            faults += result.fault is not None
            if result.fault is not None or not failed:
                click.echo(_one_line(_row(result)))
    click.echo(f"{total - faults} of {total} checks passed")
    sys.exit(REMOTE_ERROR if faults else 0)


def _row(result: conformance.Result) -> str:
    ok = result.fault is None
    return f"{'ok  ' if ok else 'FAIL'}  {result.group:<13}  {result.name}" + ("" if ok else f": {result.fault}")


@main.command(
    epilog=f"""\b
Exit codes:
  0  told to end, and drained
  {USAGE_ERROR}  wrong usage, or TARGET cannot be served
  {TRANSPORT_ERROR}  the broker refused the user, or has the queue with other properties"""
)
@click.argument("target")
@click.option("--service", metavar="NAME", help="The service's name. Needed unless TARGET is a Server.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Run so many processes, and restart the dead.")
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    metavar="N",
    default=_SERVER["concurrency"].default,
    show_default=True,
    help="Methods that run at a time, in each process.",
)
@click.option(
    "--prefetch",
    type=click.IntRange(min=1, max=65535),
    metavar="N",
    show_default="64, and at least twice the concurrency",
    help="Most requests that a process holds.",
)
@_url
@_exchange
@click.option("--queue", metavar="NAME", show_default="<service>_req", help="The request queue.")
@click.option(
    "--queue-type",
    type=click.Choice(["classic", "quorum"]),
    show_default="as the virtual host has it",
    help="What the request queue is declared as.",
)
@click.option(
    "--delivery-limit",
    type=click.IntRange(min=1),
    metavar="N",
    show_default=str(_SERVER["delivery_limit"].default),
    help="How often a request may come back to a quorum queue before it is given up.",
)
@click.option(
    "--dialect",
    type=click.Choice(["recipe2011", "rabbitmq-java"]),
    help="Serve clients of another lineage as well; see docs/interop.md.",
)
@click.option("--recipe-method", metavar="METHOD", help="The method that the requests of --dialect recipe2011 are for.")
@click.option("--dead-letters", is_flag=True, default=None, help="Keep in <service>_dead what was given up; see dead.")
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
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
    help="The least that is logged, on standard error.",
)
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
    _start_logging(log_level, None if worker is None else worker[0])
    if workers is not None:
        _check(context, target, url, options)
        sys.exit(_supervise(context, workers, url))
    server = _make_server(context, target, url, options)
    if worker is None:
        _serve(server)
    else:
        _serve_as_worker(server, worker[1])


def _serve_as_worker(server: Server, lifeline: int) -> None:
    stop_with_parent(lifeline, server.stop)
    _serve(server)


def _serve(server: Server) -> None:
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
            _make_server(context, target, url, options)
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
    # Not on a command line: it may hold a password.
    env = {**os.environ, "AMQP_URL": url} if _is_given(context, "url") else None
    return Workers(command, count, env=env, hopeless=TRANSPORT_ERROR).run()


def _same_command(context: click.Context) -> list[str]:
    """Give the arguments that this process was started with, without those that are for the parent alone."""
    options = [name for name in context.params if name not in ("target", "workers", "url") and _is_given(context, name)]
    return ["serve", context.params["target"], *(_as_option(name, context.params[name]) for name in options)]


def _as_option(name: str, value: Any) -> str:
    option = f"--{name.replace('_', '-')}"
    return option if value is True else f"{option}={value}"


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _start_logging(level: str, worker: int | None) -> None:
    who = "" if worker is None else f" [worker {worker}, process {os.getpid()}]"
    logging.basicConfig(level=level.upper(), format=f"%(asctime)s %(levelname)s{who} %(name)s: %(message)s")


# -- TARGET -----------------------------------------------------------------------------------------------


def _make_server(context: click.Context, target: str, url: str, options: Mapping[str, Any]) -> Server:
    """
    Give the server that TARGET and the options describe.

    Raises:
        WrongUsage: There is none, or they contradict each other.
    """
    found = _find(target)
    if isinstance(found, Server):
        _check_agreement(context, target, found)
        if os.environ.get("AMQP_URL"):
            log.warning("%s is a Server, which has its own url: AMQP_URL is not used", target)
        return found
    if not options["service"]:
        raise WrongUsage(f"which service? Give --service: {target} is no Server with a name of its own")
    try:
        return Server(url, methods=found, **_given(options))
    except (TypeError, ValueError) as error:
        raise WrongUsage(error) from None


def _check_agreement(context: click.Context, target: str, server: Server) -> None:
    for name in ("url", *_OF_A_SERVER):
        if _is_given(context, name):
            option = name.replace("_", "-")
            raise WrongUsage(f"{target} is a Server, which has its own {name}: drop --{option}")
    service = context.params["service"]
    if service not in (None, server.service):
        raise WrongUsage(f"{target} is a Server of {server.service!r}, not of {service!r}")


def _find(target: str) -> Server | Mapping[str, Any]:
    module_name, colon, attribute = target.partition(":")
    found: Any = _import(module_name)
    if colon:
        try:
            found = attrgetter(attribute)(found)
        except AttributeError:
            raise WrongUsage(f"{module_name} has no attribute {attribute!r}") from None
    if isinstance(found, ModuleType):
        found = _served_by(found)
    if isinstance(found, (Server, Mapping)):
        return found
    raise WrongUsage(
        f"{target} is a {type(found).__name__}; what can be served is a Server, a dict of methods, or a module"
    )


def _import(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return import_module(name)
    except Exception as error:
        log.debug("cannot import %s", name, exc_info=error)
        hint = f"; a module is named without .py: {name[:-3]}" if name.endswith(".py") else ""
        raise WrongUsage(f"cannot import {name}: {_told(error)}{hint}") from None


def _told(error: Exception) -> str:
    """Say what an import raised, and where, unless that was the import machinery."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = "" if "importlib" in where.filename else f" ({where.filename}, line {where.lineno})"
    return f"{type(error).__name__}: {error}{place}"


def _served_by(module: ModuleType) -> Server | Mapping[str, Any]:
    servers = {id(value): (name, value) for name, value in vars(module).items() if isinstance(value, Server)}
    if len(servers) > 1:
        names = " or ".join(f"{module.__name__}:{name}" for name, _server in servers.values())
        raise WrongUsage(f"{module.__name__} has several Servers; say which: {names}")
    for _name, server in servers.values():
        return server
    if not global_methods:
        raise WrongUsage(
            f"{module.__name__} has nothing to serve: no Server, and no method registered with jsonrpcserver's @method"
        )
    return global_methods


# -- dead letters -----------------------------------------------------------------------------------------


@main.group()
def dead() -> None:
    """
    Look at the dead letters of a service, send them again, or remove them.

    They are requests that its servers could not handle, kept in the queue <service>_dead where the servers were told
    to keep them. Looking removes nothing.
    """


_of_a_service = _options(
    click.option("--service", required=True, metavar="NAME", help="The service whose dead letters they are."),
    _url,
    _exchange,
    click.option("--queue", metavar="NAME", show_default="<service>_dead", help="The queue that keeps them."),
)
_keys = click.argument("keys", metavar="[KEY]...", nargs=-1)
_DEAD_EXIT_CODES = _EXIT_CODES.replace(_ANSWERED, "").replace("nothing was sent", "nothing was done")


@dead.command("list", epilog=_DEAD_EXIT_CODES)
@_of_a_service
@click.option("--json", "as_json", is_flag=True, help="Print each as one line of JSON, headers and body included.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=signature(DeadLetters.list).parameters["limit"].default,
    show_default=True,
    help="The most that are listed.",
)
def list_dead(as_json: bool, limit: int, **options: Any) -> None:
    """
    List dead letters, the oldest first.

    A line for each: key, time of death, reason, kind, method, user, size.

    \b
    jsonrpc-amqp dead list --service example
    """
    with _dead_letters(**options) as letters:
        for letter in letters.list(limit=limit):
            click.echo(_as_json(_as_object(letter)) if as_json else _as_row(letter))


@dead.command("show", epilog=_DEAD_EXIT_CODES)
@click.argument("key")
@_of_a_service
def show_dead(key: str, **options: Any) -> None:
    """
    Show all there is of one dead letter.

    KEY is what list shows first, or its first digits: four or more that no other begins with.

    \b
    jsonrpc-amqp dead show 3fa9 --service example
    """
    with _dead_letters(**options) as letters:
        letter = letters.get(key)
    for line in _described(letter):
        click.echo(line)


@dead.command(epilog=_DEAD_EXIT_CODES)
@_keys
@click.option("--all", is_flag=True, help="All that are there and are no calls.")
@_of_a_service
def requeue(keys: tuple[str, ...], all: bool, **options: Any) -> None:
    """
    Send notifications again, as yourself; each is removed once the broker has confirmed it.

    Calls are not sent again: their callers have been told, or are gone. KEYs as for show.

    \b
    jsonrpc-amqp dead requeue 3fa9 91bc --service example
    jsonrpc-amqp dead requeue --all --service example
    """
    _check_choice(keys, all)
    with _dead_letters(**options) as letters:
        done = letters.requeue(*keys, all=all)
    click.echo(f"sent again: {done.sent}")
    if all:
        click.echo(f"left, since they are calls or cannot be read: {done.left}")


@dead.command(epilog=_DEAD_EXIT_CODES)
@_keys
@click.option("--all", is_flag=True, help="All that are there.")
@click.option("--yes", is_flag=True, help="Do not ask before all are removed.")
@_of_a_service
def purge(keys: tuple[str, ...], all: bool, yes: bool, **options: Any) -> None:
    """
    Remove dead letters for good. KEYs as for show.

    \b
    jsonrpc-amqp dead purge 3fa9 --service example
    jsonrpc-amqp dead purge --all --service example
    """
    _check_choice(keys, all)
    with _dead_letters(**options) as letters:
        if all and not yes:
            _confirm(f"Remove all dead letters of {letters.service}?")
        count = letters.purge(*keys, all=all)
    click.echo(f"removed: {count}")


@contextmanager
def _dead_letters(url: str, service: str, **options: Any) -> Iterator[DeadLetters]:
    with _errors(), DeadLetters(url, service, **_given(options)) as letters:
        yield letters


def _check_choice(keys: tuple[str, ...], all: bool) -> None:
    if all == bool(keys):
        raise WrongUsage("name dead letters by their KEYs, or give --all")


def _confirm(question: str) -> None:
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        agreed = False  # there is nobody to ask
    if not agreed:
        raise WrongUsage("nothing was removed; --yes does not ask")


def _as_row(letter: DeadLetter) -> bytes:
    kind = "notification" if letter.is_notification else "call"
    cells = (letter.key, _time(letter.died), letter.reason, kind, letter.method, letter.user_id)
    widths = (12, 20, 14, 12, 20, 12)
    row = "  ".join(f"{_cell(cell):{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{row}  {len(letter.body)} bytes".encode()


def _cell(text: str | None) -> str:
    if text is None:
        return "-"
    return _one_line(text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]}...")


def _time(died: datetime | None) -> str | None:
    return None if died is None else died.isoformat().replace("+00:00", "Z")


def _as_object(letter: DeadLetter) -> dict[str, Any]:
    shown = {name: getattr(letter, name) for name in _SHOWN}
    body = letter.body.decode("utf-8", "surrogateescape")
    return {**shown, "died": _time(letter.died), "headers": _plain(letter.headers), "body": body}


_SHOWN = (
    "key",
    "died",
    "reason",
    "count",
    "is_notification",
    "method",
    "user_id",
    "message_id",
    "correlation_id",
    "routing_key",
)


def _described(letter: DeadLetter) -> Iterator[bytes]:
    shown = _as_object(letter)
    for name in _SHOWN:
        yield f"{name}: ".encode() + _as_json(shown[name])
    for name, value in shown["headers"].items():
        yield f"header {_one_line(name)}: ".encode() + _as_json(value)
    yield f"body, {len(letter.body)} bytes:".encode()
    yield _pretty(letter.body)


def _pretty(body: bytes) -> bytes:
    try:
        return _as_json(json.loads(body.decode()), indent=2)
    except (ValueError, RecursionError):
        return _one_line(body.decode("utf-8", "surrogateescape")).encode()


def _plain(value: Any, depth: int = 0) -> Any:
    """Give a value of AMQP headers as one that JSON has."""
    if depth > _MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return {str(_plain(name)): _plain(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, datetime):
        return f"{value.isoformat()}Z"
    return value if isinstance(value, (str, int, float, type(None))) else str(value)
