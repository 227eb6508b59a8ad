"""The command ``dead`` and those below it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from inspect import signature
from typing import Any

import click

from .. import DeadLetter, DeadLetters
from .common import (
    EXIT_CODES,
    REMOTE_ERROR_LINE,
    WrongUsage,
    as_json,
    count_option,
    exchange_option,
    given,
    one_line,
    reported_errors,
    stacked,
    url_option,
)

# AMQP tables may nest deeper than Python's recursion limit, which json.dumps would reach.
_MAX_DEPTH = 20
_LONGEST_CELL = 60
# Characters of a body, and of any other line, that are shown. Indented, a body takes a hundred times its size.
_LONGEST_BODY, _LONGEST_LINE = 100_000, 10_000


@click.group("dead")
def command() -> None:
    """
    Look at the dead letters of a service, send them again, or remove them.

    They are requests that its servers could not handle, kept in the queue <service>_dead if the servers run with dead
    letters on. Looking removes nothing.
    """


_of_a_service = stacked(
    click.option("--service", required=True, metavar="NAME", help="The service whose dead letters they are."),
    url_option,
    exchange_option,
    click.option("--queue", metavar="NAME", show_default="<service>_dead", help="The queue that keeps them."),
    click.option("--request-queue", metavar="NAME", show_default="<service>_req", help="The queue of the servers."),
)
_keys = click.argument("keys", metavar="[KEY]...", nargs=-1)
_DEAD_EXIT_CODES = EXIT_CODES.replace(REMOTE_ERROR_LINE, "").replace("nothing was sent", "nothing was done")


@command.command("list", epilog=_DEAD_EXIT_CODES)
@_of_a_service
@click.option("--json", "in_json", is_flag=True, help="Print each as one line of JSON, headers and body included.")
@count_option(
    "--limit", default=signature(DeadLetters.list).parameters["limit"].default, help="The most that are listed."
)
def list_dead(in_json: bool, limit: int, **options: Any) -> None:
    """
    List dead letters, the oldest first.

    A line for each: key, time of death, reason, kind, method, user, size; at the end "unchecked", if no server has
    checked that this user may call this method. The broker has verified the user; "-" is one that is not known. Spaces
    within a column are shown as \\x20.

    \b
    jsonrpc-amqp dead list --service example
    """
    with _dead_letters(**options) as letters:
        for letter in letters.list(limit=limit, bodies=in_json):
            click.echo(as_json(_as_object(letter)) if in_json else _as_row(letter))


@command.command("show", epilog=_DEAD_EXIT_CODES)
@click.argument("key")
@click.option("--raw", is_flag=True, help="Print the body only, all of it, as it was sent.")
@_of_a_service
def show_dead(key: str, raw: bool, **options: Any) -> None:
    """
    Show one dead letter; what is very long is cut.

    KEY is the first column of list, or its first digits: at least four, and enough to be unambiguous.

    On a terminal, --raw escapes what may control it.

    \b
    jsonrpc-amqp dead show 3fa9 --service example
    jsonrpc-amqp dead show 3fa9 --service example --raw > body.json
    """
    with _dead_letters(**options) as letters:
        letter = letters.get(key)
    if raw:
        click.echo(_one_line(letter.body) if sys.stdout.isatty() else letter.body, nl=False)
        return
    for line in _described(letter):
        click.echo(line)


@command.command("requeue", epilog=_DEAD_EXIT_CODES)
@_keys
@click.option("--all", is_flag=True, help="All dead letters that are checked, and no calls.")
@click.option("--unchecked", is_flag=True, help="Send those with these KEYs even if no server has checked them.")
@_of_a_service
def requeue_dead(keys: tuple[str, ...], all: bool, unchecked: bool, **options: Any) -> None:
    """
    Send notifications again, as yourself; each is removed once the broker has confirmed it.

    Calls are not sent again: their callers have got an error, or are gone. KEYs as for show.

    Nor are those that no server has checked ("unchecked" in list): that the broker moved here itself, or that a user
    put here. You may call what their senders may not, so look at each of them before you send it with --unchecked.

    \b
    jsonrpc-amqp dead requeue 3fa9 91bc --service example
    jsonrpc-amqp dead requeue --all --service example
    """
    _check_keys_or_all(keys, all)
    if all and unchecked:
        raise WrongUsage("give --unchecked with KEYs only: look at each dead letter first")
    with _dead_letters(**options) as letters:
        done = letters.requeue(*keys, all=all, unchecked=unchecked)
    click.echo(f"sent again: {done.sent}")
    if all:
        click.echo(f"left, since they are calls, unchecked, or cannot be read: {done.left}")


@command.command("purge", epilog=_DEAD_EXIT_CODES)
@_keys
@click.option("--all", is_flag=True, help="All dead letters.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_of_a_service
def purge_dead(keys: tuple[str, ...], all: bool, yes: bool, **options: Any) -> None:
    """
    Remove dead letters for good. KEYs as for show.

    \b
    jsonrpc-amqp dead purge 3fa9 --service example
    jsonrpc-amqp dead purge --all --service example
    """
    _check_keys_or_all(keys, all)
    with _dead_letters(**options) as letters:
        if all and not yes:
            _confirm(f"Remove all dead letters of {letters.service}?")
        count = letters.purge(*keys, all=all)
    click.echo(f"removed: {count}")


@contextmanager
def _dead_letters(url: str, service: str, **options: Any) -> Iterator[DeadLetters]:
    with reported_errors(), DeadLetters(url, service, **given(options)) as letters:
        yield letters


def _check_keys_or_all(keys: tuple[str, ...], all: bool) -> None:
    if all == bool(keys):
        raise WrongUsage("name dead letters by their KEYs, or give --all")


def _confirm(question: str) -> None:
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort as abort:
        if isinstance(abort.__context__, KeyboardInterrupt):
            raise
        agreed = False  # no terminal to ask on
    except OSError:
        agreed = False  # nor any standard input
    if not agreed:
        raise WrongUsage("nothing was removed; --yes does not ask")


def _as_row(letter: DeadLetter) -> bytes:
    kind = "notification" if letter.is_notification else "call"
    method = letter.method and letter.method.replace(", ", ",")
    cells = (letter.key, _time(letter.died), letter.reason, kind, method, letter.user_id)
    widths = (12, 20, 14, 12, 20, 12)
    row = "  ".join(f"{_cell(cell):{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{row}  {letter.size} bytes{'' if letter.checked else '  unchecked'}".encode()


def _cell(text: str | None) -> str:
    if not text:
        return "-"
    # A space would begin the next column: the sender of a letter could have it list another user.
    return _word(text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]}...")


def _word(text: str) -> str:
    return one_line(text).replace(" ", r"\x20")


def _time(died: datetime | None) -> str | None:
    return None if died is None else died.isoformat().replace("+00:00", "Z")


def _as_object(letter: DeadLetter) -> dict[str, Any]:
    shown = {name: getattr(letter, name) for name in _SHOWN}
    body = letter.body.decode("utf-8", "surrogateescape")
    return {**shown, "died": _time(letter.died), "headers": _as_json_value(letter.headers), "body": body}


_SHOWN = (
    "key",
    "died",
    "reason",
    "count",
    "checked",
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
        yield _cut(f"{name}: ".encode() + as_json(shown[name]), _LONGEST_LINE)
    for name, value in shown["headers"].items():
        yield _cut(f"header {_word(name)}: ".encode() + as_json(value), _LONGEST_LINE)
    yield f"body, {len(letter.body)} bytes:".encode()
    yield _cut(_pretty(letter.body), _LONGEST_BODY, " (--raw prints all of it)")


def _pretty(body: bytes) -> bytes:
    """Return a body, indented if it is JSON; a little more than the beginning, where it is too long to be shown."""
    if len(body) > _LONGEST_BODY:
        return _one_line(body[: _LONGEST_BODY + 1])
    try:
        return as_json(json.loads(body.decode()), indent=2, most=_LONGEST_BODY)
    except (ValueError, RecursionError):
        return _one_line(body)


def _one_line(body: bytes) -> bytes:
    return one_line(body.decode("utf-8", "surrogateescape")).encode()


def _cut(line: bytes, most: int, hint: str = "") -> bytes:
    if len(line) <= most:
        return line
    return line[:most].decode("utf-8", "ignore").encode() + f"... cut{hint}".encode()


def _as_json_value(value: Any, depth: int = 0) -> Any:
    """Return a value of AMQP headers as one of JSON's types."""
    if depth > _MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return {str(_as_json_value(name)): _as_json_value(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_json_value(each, depth + 1) for each in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, datetime):
        return f"{value.isoformat()}Z"
    return value if isinstance(value, (str, int, float, type(None))) else str(value)
