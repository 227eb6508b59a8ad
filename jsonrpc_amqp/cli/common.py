"""What the commands share: exit codes, failures, options, and text that cannot control a terminal."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

import click

from .. import Client, JsonRpcAmqpError, MissingExtra, RemoteError, TransportError
from .log_lines import LogFormat, formatter
from .streams import StandardStreams, read_standard_input

REMOTE_ERROR = 1
USAGE_ERROR = 2
TRANSPORT_ERROR = 3
STREAM_ERROR = 4
# A signal ended a server before all that ran had finished; the broker delivers it again.
NOT_DRAINED = 5
# What a shell reports of a program that SIGINT ended. 1 would mean an error from the server.
INTERRUPTED = 130

# The encoding of what is read. Programs of Windows write a byte order mark.
TEXT = "utf-8-sig"
# Seconds. AMQP's ``expiration`` is at most 2**32 - 1 ms.
MAX_TIMEOUT = 4294967.0

# Everything but printable ASCII and the line breaks of indented JSON. In JSON it is always inside of strings, where it
# can be escaped.
_NOT_PLAIN = re.compile("[^\n -~]")

REMOTE_ERROR_LINE = f"  {REMOTE_ERROR}    the server replied with an error, which is on standard error as JSON\n"
EXIT_CODES = f"""\b
Exit codes:
  0    done
{REMOTE_ERROR_LINE}  {USAGE_ERROR}    wrong usage; nothing was sent
  {TRANSPORT_ERROR}    there is no reply; one line on standard error says why
  {STREAM_ERROR}    standard input cannot be read, or standard output cannot be written
  {INTERRUPTED}  interrupted"""

DEFAULT_EXCHANGE: str = signature(Client).parameters["exchange"].default

F = TypeVar("F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """Ends the command with one line on standard error."""

    def __init__(self, message: object) -> None:
        super().__init__(one_line(str(message)))


class WrongUsage(Failure):
    """Usage error."""

    exit_code = USAGE_ERROR


class NoReply(Failure):
    """There is no broker, no service, or no reply in time."""

    exit_code = TRANSPORT_ERROR


class StreamFailure(Failure):
    """A standard stream cannot be read or written."""

    exit_code = STREAM_ERROR


class RemoteFailure(click.ClickException):
    """The server replied with an error, which is shown as JSON."""

    exit_code = REMOTE_ERROR

    def __init__(self, error: RemoteError) -> None:
        super().__init__(str(error))
        self._error = error

    def show(self, file: Any = None) -> None:
        """Print the error object to standard error, whatever ``file`` is."""
        click.echo(as_json(_error_object(self._error)), err=True)


def one_line(text: str) -> str:
    """Return text with everything unprintable escaped, line breaks included."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def as_json(value: Any, *, indent: int | None = None, most: int | None = None) -> bytes:
    """
    Return JSON in UTF-8, with everything escaped that may control a terminal, reverse its text, or be invisible.

    Args:
        indent: As for ``json.dumps``.
        most: No more is made once there are more characters than this; None: all is.
    """
    encoder = json.JSONEncoder(ensure_ascii=False, indent=indent)
    text = encoder.encode(value) if most is None else _begin(encoder.iterencode(value), most)
    if not text.isprintable():
        text = _NOT_PLAIN.sub(_escape_unprintable, text)
    # Bytes, since JSON is UTF-8 whatever the terminal's encoding is.
    return text.encode()


def _begin(parts: Iterable[str], most: int) -> str:
    """Join parts until there are more characters than ``most``."""
    taken: list[str] = []
    length = 0
    for part in parts:
        taken.append(part)
        length += len(part)
        if length > most:
            break
    return "".join(taken)


def _escape_unprintable(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]


def _check_seconds(_context: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value <= MAX_TIMEOUT:
        raise click.BadParameter(f"{value:g} is not in the range 0 < seconds <= {MAX_TIMEOUT:.0f}")
    return value


def seconds_option(name: str, *, default: float | None, help: str, show_default: bool | str = True) -> Callable[[F], F]:
    """Return an option that takes a number of seconds above 0."""
    return click.option(
        name,
        type=float,
        callback=_check_seconds,
        default=default,
        show_default=show_default,
        metavar="SECONDS",
        help=help,
    )


def count_option(name: str, *, default: int, help: str, metavar: str = "N") -> Callable[[F], F]:
    """Return an option that takes a whole number of at least 1."""
    return click.option(
        name, type=click.IntRange(min=1), default=default, show_default=True, metavar=metavar, help=help
    )


def stacked(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return a decorator that applies these; help shows the options in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _choose_url(context: click.Context, parameter: click.Parameter, url: str) -> str:
    """Return the URL by precedence: command line, AMQP_URL, AMQP_URL_FILE, default."""
    path = context.meta.get(_URL_FILE)
    by_option = context.get_parameter_source("url_file") is _COMMAND_LINE
    if by_option and context.get_parameter_source("url") is _COMMAND_LINE:
        raise WrongUsage("give one of --url and --url-file")
    url_is_set = context.get_parameter_source("url") is not click.core.ParameterSource.DEFAULT
    # A file that is not needed may be missing.
    if path is None or (url_is_set and not by_option):
        return url
    context.meta[_READ_FROM] = path
    url = read_url(path)
    _warn_of_readers(path)
    return url


def _warn_of_readers(path: str) -> None:
    with suppress(OSError):  # it was read, and may be gone
        mode = os.stat(path).st_mode if path != "-" else 0
        if stat.S_ISREG(mode) and mode & stat.S_IROTH:
            told = f"warning: any user of this machine may read {path}, and a password in it: chmod o-r"
            click.echo(one_line(told), err=True)


def file_of_url(context: click.Context) -> str | None:
    """Return the path of the file that the URL was read from; None where it was not, or cannot be read again."""
    path: str | None = context.meta.get(_READ_FROM)
    return path if path not in (None, "-") and os.path.isfile(path) else None


def read_url(path: str) -> str:
    """
    Return the URL in a file; ``-`` is standard input.

    Raises:
        StreamFailure: Standard input cannot be read.
        WrongUsage: The file cannot be read, or has not one line of text.
    """
    try:
        text = (standard_input() if path == "-" else Path(path).read_text(TEXT)).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsage(f"the file with the URL cannot be read: {error}") from None
    if not text or not text.isprintable():
        # Do not show its content: it may be some other secret.
        raise WrongUsage(f"the file {path} is to have one line, the URL of the broker")
    return text


def _store_url_file(context: click.Context, parameter: click.Parameter, path: str | None) -> None:
    context.meta[_URL_FILE] = path


_COMMAND_LINE = click.core.ParameterSource.COMMANDLINE
_URL_FILE = "jsonrpc_amqp.url_file"  # that was given, but need not be used
_READ_FROM = "jsonrpc_amqp.url_read_from"

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
        # Eager, since the callback of --url needs its value.
        is_eager=True,
        expose_value=False,
        callback=_store_url_file,
        help='A file that has the URL of the broker on its one line, and that no other users may read; "-" is '
        "standard input.",
    ),
)
declare_option = click.option(
    "--declare/--no-declare",
    default=None,
    show_default="declare",
    help="Declare what is missing, or only check that it exists: for users without the right to configure.",
)
user_option = click.option(
    "--user",
    metavar="NAME",
    help="The AMQP user, where the URL does not name it (certificates), such as 'CN=alice,O=ACME'.",
)
server_user_option = click.option(
    "--server-user",
    metavar="NAME",
    multiple=True,
    callback=lambda _context, _parameter, names: names or None,
    help="Accept a reply only if it comes from this AMQP user; may be repeated.",
)
no_consumers_option = click.option(
    "--no-consumers",
    type=click.Choice(["wait", "fail"]),
    default="wait",
    show_default=True,
    help="What becomes of a call whose queue no server consumes from: it waits there for one until its deadline, or "
    "fails at once, and is not sent.",
)
log_level_option = click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
    help="The lowest level that is logged, on standard error.",
)
log_format_option = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Log as text, or as an object of JSON in each line.",
)
exchange_option = click.option(
    "--exchange",
    metavar="NAME",
    default=DEFAULT_EXCHANGE,
    show_default=True,
    help="The topic exchange.",
)


def standard_input() -> str:
    """
    Return standard input, which is UTF-8, up to its end.

    Raises:
        StreamFailure: It cannot be read.
        UnicodeDecodeError: It is not UTF-8.
    """
    try:
        return read_standard_input().decode(TEXT)
    except OSError as error:
        raise StreamFailure(f"standard input cannot be read: {error.strerror}. Nothing was sent") from None


def start_logging(level: str, form: LogFormat, process: Mapping[str, Any] | None = None) -> None:
    """
    Log to standard error, for a command that runs until it is stopped, and has no result to print.

    Args:
        level: Of any case.
        form: Of the lines.
        process: Identifies this process in each line, where there are several.
    """
    context = click.get_current_context(silent=True)
    streams = context.find_object(StandardStreams) if context is not None else None
    if streams is not None:
        streams.disown_output()  # what methods print
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(form, process or {}))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # Else they would be lines that are no JSON.
    logging.captureWarnings(form == "json")


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn errors of the block into failures, which are printed to standard error and have exit codes."""
    # A client also logs what leads to an error; the error itself has it all.
    logging.basicConfig(handlers=[logging.NullHandler()])
    try:
        yield
    except RemoteError as error:
        raise RemoteFailure(error) from None
    except TransportError as error:
        raise NoReply(error) from None
    except (JsonRpcAmqpError, ValueError) as error:
        raise WrongUsage(error) from None


@contextmanager
def usage_errors() -> Iterator[None]:
    """Report errors in what the user gave as usage errors, in one line."""
    try:
        yield
    except (MissingExtra, ValueError) as error:
        raise WrongUsage(error) from None


def _error_object(error: RemoteError) -> dict[str, Any]:
    shown = {"code": error.code, "message": error.message}
    return shown if error.data is None else {**shown, "data": error.data}


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that have a value; the others keep the defaults of what they are passed to."""
    return {name: value for name, value in options.items() if value is not None}
