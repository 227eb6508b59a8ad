"""
A filter for this package's loggers: limits similar lines per second, and escapes what could control a terminal.

Without a limit, any sender could have one line logged for each message. The filter counts the lines that it drops;
``stats()`` of the client or server counts the events themselves, logged or not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

LOGGERS = ("bridge", "cli", "client", "dispatch", "gateway", "server", "transport", "transport.memory", "workers")
LINES_PER_SECOND = 20
# Bounds the memory of the filter: messages that are formatted before they are logged are all different kinds.
_MOST_KINDS = 256


@dataclass(slots=True)
class _Second:
    """The lines of one kind within a second that began at this time."""

    began: float
    lines: int = 0
    left_out: int = 0


class LineFilter(logging.Filter):
    """
    Passes at most ``most`` lines of one kind in a second, with control characters escaped.

    Lines are of one kind if logger, level, message without arguments, and type of exception are the same. Lines below
    INFO always pass: they appear only if an operator enabled them.

    Args:
        most: Lines of one kind in a second.
        clock: Returns monotonic seconds.

    Attributes:
        left_out: Lines that were dropped so far.
    """

    def __init__(self, most: int = LINES_PER_SECOND, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[tuple[object, ...], _Second] = {}
        self.left_out = 0

    def reset(self) -> None:
        """Start as if nothing had been logged yet."""
        with self._lock:
            self._kinds.clear()

    def filter(self, record: logging.LogRecord) -> bool:
        note = "" if record.levelno < logging.INFO else self._note(record)
        if note is None:
            return False
        _clean(record, note)
        return True

    def _note(self, record: logging.LogRecord) -> str | None:
        """Return what to append to a line, or None to drop it."""
        raised = record.exc_info[0] if record.exc_info else None
        kind = (record.name, record.levelno, record.msg if isinstance(record.msg, str) else None, raised)
        now = self._clock()
        with self._lock:
            second = self._kinds.get(kind)
            missed = 0
            if second is None or not 0 <= now - second.began < 1:
                missed = 0 if second is None else second.left_out
                second = self._begin(kind, now)
            second.lines += 1
            if second.lines > self._most:
                second.left_out += 1
                self.left_out += 1
                return None
            if second.lines == self._most:
                return " [more like it are left out for a second]"
            return f" [{missed} like it were left out]" if missed else ""

    def _begin(self, kind: tuple[object, ...], now: float) -> _Second:
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds = {each: second for each, second in self._kinds.items() if now - second.began < 1}
            if len(self._kinds) >= _MOST_KINDS:
                self._kinds.clear()
        second = self._kinds[kind] = _Second(now)
        return second


LINE_FILTER = LineFilter()
"""The filter of all loggers of this package."""


def install() -> None:
    """Add the filter to all loggers of this package. A filter of a parent logger would not see their lines."""
    for name in LOGGERS:
        logging.getLogger(f"jsonrpc_amqp.{name}").addFilter(LINE_FILTER)


def _clean(record: logging.LogRecord, note: str) -> None:
    text = record.getMessage()
    if note or not text.isprintable():
        record.msg, record.args = _escaped(text, keep="") + note, None
    if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
        # The text of an exception may quote data from the wire.
        trace = logging.Formatter().formatException(record.exc_info)
        if (escaped := _escaped(trace, keep="\n\t")) != trace:
            record.exc_text = escaped


def _escaped(text: str, *, keep: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text)
