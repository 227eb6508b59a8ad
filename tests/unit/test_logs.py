"""Repeated faults fill no disk, and what is logged steers no terminal."""

from __future__ import annotations

import logging
import pkgutil
import re
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import jsonrpc_amqp
from jsonrpc_amqp.logs import (
    _MOST_DEFERRED,
    _MOST_KINDS,
    LINE_FILTER,
    LINES_PER_SECOND,
    LOGGERS,
    LineFilter,
    contain_handlers,
    contained_handlers,
    deferred_lines,
    on_own_thread,
)


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def line_filter(clock: Clock) -> LineFilter:
    return LineFilter(3, clock)


@pytest.fixture
def logger(line_filter: LineFilter) -> logging.Logger:
    logger = logging.Logger("of a test", logging.DEBUG)
    logger.addFilter(line_filter)
    logger.addHandler(Lines())
    return logger


def lines(logger: logging.Logger) -> list[str]:
    [handler] = logger.handlers
    assert isinstance(handler, Lines)
    return handler.lines


def test_similar_lines_in_a_second_are_limited(logger: logging.Logger, line_filter: LineFilter, clock: Clock) -> None:
    for number in range(10):
        logger.warning("fault %d", number)
    assert lines(logger) == ["fault 0", "fault 1", "fault 2 [more like it are left out for a second]"]
    clock.now = 1.5
    logger.warning("fault %d", 10)
    logger.warning("fault %d", 11)
    assert lines(logger)[3:] == ["fault 10 [7 like it were left out]", "fault 11"]
    assert line_filter.left_out == 7


def test_other_kinds_are_not_limited(logger: logging.Logger) -> None:
    for number in range(10):
        logger.warning("one %d", number)
    logger.warning("other %d", 1)
    logger.error("one %d", 1)
    try:
        raise KeyError("x")
    except KeyError:
        logger.warning("one %d", 2, exc_info=True)
    assert len(lines(logger)) == 3 + 3


def test_debug_passes(logger: logging.Logger) -> None:
    for number in range(10):
        logger.debug("detail %d", number)
    assert len(lines(logger)) == 10


def test_memory_is_bounded(logger: logging.Logger, line_filter: LineFilter, clock: Clock) -> None:
    for number in range(5 * _MOST_KINDS):
        clock.now += 0.0001
        logger.warning(f"kind {number}")
    assert len(line_filter._kinds) <= _MOST_KINDS


def test_characters_that_control_a_terminal(logger: logging.Logger) -> None:
    logger.warning("name %s", "\x1b[2J\r\nroot: all well\u202e\x9b")
    assert lines(logger) == ["name \\x1b[2J\\r\\nroot: all well\\u202e\\x9b"]
    logger.warning("plain %s", "Jürgen 日本")
    assert lines(logger)[1] == "plain Jürgen 日本"


def test_characters_in_the_text_of_an_exception(logger: logging.Logger) -> None:
    for text in ("\x1b]0;title\x07", "plain"):
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("it failed")
    steering, plain = lines(logger)
    assert "ValueError: \\x1b]0;title\\x07" in steering
    assert plain.endswith("ValueError: plain")
    assert all(sign.isprintable() or sign == "\n" for sign in steering)


def test_every_logger_has_it() -> None:
    for module in pkgutil.walk_packages(jsonrpc_amqp.__path__, "jsonrpc_amqp."):
        # Adapters want libraries of their own; what loggers they name can be read.
        if not module.name.endswith("__main__") and ".adapters." not in module.name:
            import_module(module.name)
    adapters = (Path(jsonrpc_amqp.__file__).parent / "adapters").glob("*.py")
    named = {name for path in adapters for name in re.findall(r'getLogger\("(.*?)"\)', path.read_text())}
    assert named <= {f"jsonrpc_amqp.{name}" for name in LOGGERS}
    used = {name for name in logging.root.manager.loggerDict if name.startswith(f"{jsonrpc_amqp.__name__}.")}
    assert used <= {f"jsonrpc_amqp.{name}" for name in LOGGERS}
    for name in LOGGERS:
        filters = [each for each in logging.getLogger(f"jsonrpc_amqp.{name}").filters if isinstance(each, LineFilter)]
        assert filters == [LINE_FILTER]
    assert LINE_FILTER._most == LINES_PER_SECOND


# -- handlers -------------------------------------------------------------------------------------------------------


class Raises(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise ValueError("a bug of this handler")


@pytest.fixture
def contained() -> logging.Logger:
    logger = logging.Logger("of a test", logging.DEBUG)
    contain_handlers(logger)
    return logger


def elsewhere(target: Callable[[], None]) -> None:
    thread = threading.Thread(target=target)
    thread.start()
    thread.join(10)


def test_an_exception_of_a_handler_ends_in_the_logger_on_a_thread_of_ours(
    contained: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    ends: list[str] = []

    def log() -> None:
        contained.warning("line")
        ends.append("went on")

    contained.addHandler(Raises())
    elsewhere(on_own_thread(log))
    assert ends == ["went on"]
    assert "a bug of this handler" in capsys.readouterr().err
    with pytest.raises(ValueError, match="a bug"):
        contained.warning("line")


def test_an_exception_of_a_handler_ends_in_the_logger_within_a_block(
    contained: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    contained.addHandler(Raises())
    with contained_handlers():
        contained.warning("line")
        with contained_handlers():
            contained.warning("line")
        contained.warning("line")
    assert capsys.readouterr().err.count("a logging handler raised") == 3
    with pytest.raises(ValueError, match="a bug"):
        contained.warning("line")


def test_lines_are_passed_on_at_the_end_of_the_block(contained: logging.Logger) -> None:
    handler = Lines()
    contained.addHandler(handler)
    with deferred_lines():
        contained.warning("one")
        contained.warning("two")
        elsewhere(lambda: contained.warning("of another thread"))
        assert handler.lines == ["of another thread"]
    contained.warning("three")
    assert handler.lines == ["of another thread", "one", "two", "three"]


def test_deferred_lines_are_bounded(contained: logging.Logger) -> None:
    handler = Lines()
    contained.addHandler(handler)
    with deferred_lines():
        for number in range(_MOST_DEFERRED + 5):
            contained.warning("%d", number)
    assert (len(handler.lines), handler.lines[0]) == (_MOST_DEFERRED, "5")


def test_every_logger_contains_its_handlers_and_so_does_that_of_py_amqp() -> None:
    import_module("jsonrpc_amqp.amqp.py_amqp")
    for name in [*(f"jsonrpc_amqp.{each}" for each in LOGGERS), "amqp"]:
        assert "callHandlers" in vars(logging.getLogger(name)), name
