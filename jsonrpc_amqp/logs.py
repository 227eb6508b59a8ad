"""
What our loggers let through: so many lines of one kind in a second, and no sign that could steer a terminal.

Whoever may send can have one line logged for each message. What is left out is counted here, and ``stats()`` of the
client or server counts all that was logged, and left out, as what it is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

LOGGERS = ("bridge", "cli", "client", "dispatch", "gateway", "server", "transport", "transport.memory", "workers")
LINES_PER_SECOND = 20
_MOST_KINDS = 256


@dataclass(slots=True)
class _Second:
    """What was logged of one kind since then."""

    began: float
    lines: int = 0
    left_out: int = 0


class Guard(logging.Filter):
    """
    Lets ``most`` lines of one kind through in a second; a kind is a message without its arguments, and what was raised.

    What is below INFO passes: somebody has asked for it.

    Args:
        most: Lines in a second.
        clock: Gives seconds.

    Attributes:
        left_out: Lines that were not let through, so far.
    """

    def __init__(self, most: int = LINES_PER_SECOND, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[tuple[object, ...], _Second] = {}
        self.left_out = 0

    def forget(self) -> None:
        """Let through as if nothing had been logged yet."""
        with self._lock:
            self._kinds.clear()

    def filter(self, record: logging.LogRecord) -> bool:
        note = "" if record.levelno < logging.INFO else self._note(record)
        if note is None:
            return False
        _clean(record, note)
        return True

    def _note(self, record: logging.LogRecord) -> str | None:
        """Give what is to be said besides; None: this line is left out."""
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


GUARD = Guard()
"""The one that all loggers of this package have."""


def guard() -> None:
    """Set it."""
    for name in LOGGERS:
        logging.getLogger(f"jsonrpc_amqp.{name}").addFilter(GUARD)


def _clean(record: logging.LogRecord, note: str) -> None:
    text = record.getMessage()
    if note or not text.isprintable():
        record.msg, record.args = _escaped(text, keep="") + note, None
    if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
        # The text of an exception may quote what came over the wire.
        trace = logging.Formatter().formatException(record.exc_info)
        if (harmless := _escaped(trace, keep="\n\t")) != trace:
            record.exc_text = harmless


def _escaped(text: str, *, keep: str) -> str:
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in keep else ascii(sign)[1:-1] for sign in text)
