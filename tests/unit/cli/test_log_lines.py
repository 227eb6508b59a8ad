"""The lines of a log, as text and as JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

import pytest

from jsonrpc_amqp.cli.log_lines import LogFormat, formatter


def record(message: str = "served %s", *args: Any, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("jsonrpc_amqp.server", logging.WARNING, __file__, 1, message, args, None)
    vars(made).update(extra)
    made.created = 1_764_412_245.25
    return made


def as_json(made: logging.LogRecord, **process: Any) -> dict[str, Any]:
    text = formatter("json", process).format(made)
    assert "\n" not in text
    assert text.isascii()
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize(
    ("process", "label"),
    [
        ({}, ""),
        ({"worker": 2, "process": 17}, " [worker 2, process 17]"),
        ({"isolated": True, "process": 17}, " [isolated, process 17]"),
        ({"odd": "%s"}, " [odd %s]"),
    ],
)
def test_text(process: dict[str, Any], label: str) -> None:
    assert formatter("text", process).format(record("a %d", 5)).endswith(f" WARNING{label} jsonrpc_amqp.server: a 5")


def test_an_object_in_each_line() -> None:
    assert as_json(record("a\n%s", "\x1b[31mü")) == {
        "time": "2025-11-29T10:30:45.250Z",
        "level": "WARNING",
        "logger": "jsonrpc_amqp.server",
        "message": "a\n\x1b[31mü",
        "process": os.getpid(),
        "thread": "MainThread",
    }


def test_extra_and_the_process_are_members() -> None:
    line = as_json(record("x", service="calc", method=object, level=5), worker=2, process=17)
    assert (line["service"], line["method"], line["worker"], line["process"]) == ("calc", "<class 'object'>", 2, 17)
    assert line["level"] == "WARNING"


def test_an_exception() -> None:
    made = record("failed")
    try:
        raise KeyError("a")
    except KeyError:
        made.exc_info = sys.exc_info()
    line = as_json(made)
    assert line["error"] == "KeyError"
    assert line["traceback"].splitlines()[-1] == "KeyError: 'a'"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_message_that_cannot_be_made_raises_as_logging_expects(form: LogFormat) -> None:
    with pytest.raises(TypeError):
        formatter(form, {}).format(record("%s %s", 1))
