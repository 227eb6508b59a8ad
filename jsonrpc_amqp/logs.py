"""
This package's loggers: similar lines per second are limited, what could control a terminal is escaped, and handlers
cannot harm the threads that log.

Without a limit, any sender could have one line logged for each message. The filter counts the lines that it drops;
``stats()`` of the client or server counts the events themselves, logged or not.

Handlers are the program's: they may raise, and call through the client whose thread logs. So on a thread of this
package an exception of a handler ends in the logger, and a thread that connects hands its lines on when it has done so.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

LOGGERS = ("bridge", "cli", "client", "dispatch", "gateway", "server", "transport", "transport.memory", "workers")
LINES_PER_SECOND = 20
# Most lines that are kept while a thread connects; a broker could have any number logged.
_MOST_DEFERRED = 1000
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
        logger = logging.getLogger(f"jsonrpc_amqp.{name}")
        logger.addFilter(LINE_FILTER)
        contain_handlers(logger)


# -- handlers, and the threads that log ---------------------------------------------------------------------------


class _Thread(threading.local):
    """What is so on one thread."""

    is_own = False
    """The thread is one of this package, or does what must not be broken off."""
    deferred: deque[Callable[[], None]] | None = None
    """Takes the lines of this thread; None: they are passed to the handlers."""


_thread = _Thread()


def on_own_thread(target: Callable[[], None]) -> Callable[[], None]:
    """Return what runs ``target`` on a new thread, so that no handler's exception ends it."""

    def run() -> None:
        _thread.is_own = True
        target()

    return run


def contained(step: Callable[[], None]) -> Callable[[], None]:
    """Return what does a step on a thread of the program, so that no handler's exception breaks it off."""

    def run() -> None:
        before, _thread.is_own = _thread.is_own, True
        try:
            step()
        finally:
            _thread.is_own = before

    return run


@contextmanager
def contained_handlers() -> Iterator[None]:
    """Have no handler's exception break off what the calling thread, one of the program, does in the block."""
    before, _thread.is_own = _thread.is_own, True
    try:
        yield
    finally:
        _thread.is_own = before


@contextmanager
def deferred_lines() -> Iterator[None]:
    """
    Pass the lines of this thread to the handlers at the end of the block.

    A handler may wait for what the block does: because it calls through the client that connects here, or because
    another thread does so within the same handler, and holds the handler's lock meanwhile.
    """
    lines = _thread.deferred = deque(maxlen=_MOST_DEFERRED)
    try:
        yield
    finally:
        _thread.deferred = None
        for emit in lines:
            emit()


def contain_handlers(logger: logging.Logger) -> None:
    """Have a logger obey ``on_own_thread`` and what is beside it; lines of other threads are passed as ever."""
    call_handlers = logger.callHandlers

    def emit(record: logging.LogRecord) -> None:
        if not _thread.is_own:
            call_handlers(record)
            return
        try:
            call_handlers(record)
        except Exception:
            _report_handler(record)

    def call(record: logging.LogRecord) -> None:
        if _thread.deferred is None:
            emit(record)
        else:
            _thread.deferred.append(lambda: emit(record))

    logger.callHandlers = call  # type: ignore[method-assign]  # of this logger alone, not of its class


def _report_handler(record: logging.LogRecord) -> None:
    """Print an exception as ``logging.Handler.handleError`` does; to log it would only raise it again."""
    if logging.raiseExceptions and sys.stderr:
        sys.stderr.write(f"--- a logging handler raised at a line of {record.name} ---\n{traceback.format_exc()}")


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
