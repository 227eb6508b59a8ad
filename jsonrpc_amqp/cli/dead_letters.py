"""The command ``dead`` and those below it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from inspect import signature
from typing import Any

import click

from .. import DeadLetter, DeadLetters
from .common import (
    ANSWERED,
    EXIT_CODES,
    WrongUsage,
    as_json,
    errors,
    exchange_option,
    given,
    one_line,
    stacked,
    url_option,
)

# Tables of AMQP headers may nest deeper than Python writes.
_MAX_DEPTH = 20
_LONGEST_CELL = 60


@click.group()
def dead() -> None:
    """
    Look at the dead letters of a service, send them again, or remove them.

    They are requests that its servers could not handle, kept in the queue <service>_dead where the servers were told
    to keep them. Looking removes nothing.
    """


_of_a_service = stacked(
    click.option("--service", required=True, metavar="NAME", help="The service whose dead letters they are."),
    url_option,
    exchange_option,
    click.option("--queue", metavar="NAME", show_default="<service>_dead", help="The queue that keeps them."),
)
_keys = click.argument("keys", metavar="[KEY]...", nargs=-1)
_DEAD_EXIT_CODES = EXIT_CODES.replace(ANSWERED, "").replace("nothing was sent", "nothing was done")


@dead.command("list", epilog=_DEAD_EXIT_CODES)
@_of_a_service
@click.option("--json", "in_json", is_flag=True, help="Print each as one line of JSON, headers and body included.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=signature(DeadLetters.list).parameters["limit"].default,
    show_default=True,
    help="The most that are listed.",
)
def list_dead(in_json: bool, limit: int, **options: Any) -> None:
    """
    List dead letters, the oldest first.

    A line for each: key, time of death, reason, kind, method, user, size.

    \b
    jsonrpc-amqp dead list --service example
    """
    with _dead_letters(**options) as letters:
        for letter in letters.list(limit=limit):
            click.echo(as_json(_as_object(letter)) if in_json else _as_row(letter))


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
    with errors(), DeadLetters(url, service, **given(options)) as letters:
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
    return one_line(text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]}...")


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
        yield f"{name}: ".encode() + as_json(shown[name])
    for name, value in shown["headers"].items():
        yield f"header {one_line(name)}: ".encode() + as_json(value)
    yield f"body, {len(letter.body)} bytes:".encode()
    yield _pretty(letter.body)


def _pretty(body: bytes) -> bytes:
    try:
        return as_json(json.loads(body.decode()), indent=2)
    except (ValueError, RecursionError):
        return one_line(body.decode("utf-8", "surrogateescape")).encode()


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
