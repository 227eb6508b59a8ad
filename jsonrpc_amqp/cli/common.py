"""What the commands share: exit codes, failures, options, and text that cannot steer a terminal."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

import click

from .. import Client, JsonRpcAmqpError, RemoteError, Server, TransportError

REMOTE_ERROR = 1
USAGE_ERROR = 2
TRANSPORT_ERROR = 3
# As of a program that SIGINT ended: 1 would say that the server answered with an error.
INTERRUPTED = 130

# The longest that a message can be told to live: 2**32 - 1 ms.
MAX_TIMEOUT = 4294967.0

# All but printable ASCII and the line breaks of the layout; in JSON it is inside of strings, where it can be escaped.
_DOUBTFUL = re.compile("[^\n -~]")

ANSWERED = f"  {REMOTE_ERROR}    the server answered with an error, which is on standard error as JSON\n"
EXIT_CODES = f"""\b
Exit codes:
  0    done
{ANSWERED}  {USAGE_ERROR}    wrong usage; nothing was sent
  {TRANSPORT_ERROR}    there is no answer; one line on standard error says why
  {INTERRUPTED}  interrupted"""

CLIENT = signature(Client).parameters
SERVER = signature(Server).parameters

F = TypeVar("F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """Ends the command with one line on standard error."""

    def __init__(self, message: object) -> None:
        super().__init__(one_line(str(message)))


class WrongUsage(Failure):
    """The user can mend it."""

    exit_code = USAGE_ERROR


class NoAnswer(Failure):
    """There is no broker, no service, or no answer in time."""

    exit_code = TRANSPORT_ERROR


def one_line(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def as_json(value: Any, *, indent: int | None = None) -> bytes:
    """Give JSON in which everything is escaped that may steer a terminal, turn its text, or not be seen at all."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if not text.isprintable():
        text = _DOUBTFUL.sub(_escape_unprintable, text)
    # Bytes: JSON is UTF-8, whatever the terminal's encoding.
    return text.encode()


def _escape_unprintable(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]


def _seconds(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    if not 0 < value <= MAX_TIMEOUT:
        raise click.BadParameter(f"{value:g} is not in the range 0 < seconds <= {MAX_TIMEOUT:.0f}")
    return value


def seconds_option(name: str, *, default: float, help: str) -> Callable[[F], F]:
    return click.option(
        name, type=float, callback=_seconds, default=default, show_default=True, metavar="SECONDS", help=help
    )


def stacked(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Stack decorators; help shows them in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _choose_url(context: click.Context, parameter: click.Parameter, url: str) -> str:
    """Give what stands nearest: the command line before the environment, there AMQP_URL before AMQP_URL_FILE."""
    path = context.meta.get(_URL_FILE)
    by_option = context.get_parameter_source("url_file") is _COMMAND_LINE
    if by_option and context.get_parameter_source("url") is _COMMAND_LINE:
        raise WrongUsage("give one of --url and --url-file")
    told = context.get_parameter_source("url") is not click.core.ParameterSource.DEFAULT
    # A file that is not needed need not be there.
    return url if path is None or (told and not by_option) else _read_url(path)


def _read_url(path: str) -> str:
    """
    Give the URL that a file has.

    Raises:
        WrongUsage: It cannot be read, or is empty.
    """
    try:
        text = (sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsage(f"the file with the URL cannot be read: {error}") from None
    if not text or not text.isprintable():
        # What is in there is not shown: it may be a secret, in the wrong file.
        raise WrongUsage(f"the file {path} is to have one line, the URL of the broker")
    return text


def _note_url_file(context: click.Context, parameter: click.Parameter, path: str | None) -> None:
    context.meta[_URL_FILE] = path


_COMMAND_LINE = click.core.ParameterSource.COMMANDLINE
_URL_FILE = "jsonrpc_amqp.url_file"

url_option = stacked(
    click.option(
        "--url",
        envvar="AMQP_URL",
        default="amqp://localhost",
        show_default=True,
        show_envvar=True,
        callback=_choose_url,
        help="The broker: amqp://user:password@host:port/vhost, amqps:// for TLS, several joined by ';' for failover. "
        "Other users of this machine can read a command line: better put a password into the environment, or a file.",
    ),
    click.option(
        "--url-file",
        envvar="AMQP_URL_FILE",
        show_envvar=True,
        metavar="FILE",
        # Before --url, which asks for it.
        is_eager=True,
        expose_value=False,
        callback=_note_url_file,
        help='A file that has the URL of the broker on its one line; "-" is standard input.',
    ),
)
declare_option = click.option(
    "--declare/--no-declare",
    default=None,
    show_default="declare",
    help="Declare what is missing, or only check that it is there: for users without the right to configure.",
)
user_option = click.option(
    "--user",
    metavar="NAME",
    help="The AMQP user, where the URL does not tell (certificates), such as 'CN=alice,O=ACME'.",
)
server_user_option = click.option(
    "--server-user",
    metavar="NAME",
    multiple=True,
    callback=lambda _context, _parameter, names: names or None,
    help="Believe an answer only if it comes from this AMQP user; may be repeated.",
)
log_level_option = click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
    help="The least that is logged, on standard error.",
)
exchange_option = click.option(
    "--exchange",
    metavar="NAME",
    default=SERVER["exchange"].default,
    show_default=True,
    help="The topic exchange.",
)


def start_logging(level: str, who: str = "") -> None:
    """Log to standard error; ``who`` is this process, where there are several."""
    logging.basicConfig(level=level.upper(), format=f"%(asctime)s %(levelname)s{who} %(name)s: %(message)s")


@contextmanager
def errors() -> Iterator[None]:
    """Tell what went wrong, and end with the exit code for it."""
    # What a client logs on its way to an error is in the error.
    logging.basicConfig(handlers=[logging.NullHandler()])
    try:
        yield
    except RemoteError as error:
        click.echo(as_json(_error_object(error)), err=True)
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


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
