"""How commands that run until they are stopped write their log: as text, or as an object of JSON in each line."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]

# What each record has, beside what ``extra`` adds to it.
_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def formatter(form: LogFormat, process: Mapping[str, Any]) -> logging.Formatter:
    """
    Return what formats the lines of this process.

    Args:
        form: "text", for people, or "json", for programs.
        process: Identifies this process, where there are several; such as its worker's number.
    """
    if form == "json":
        return JsonLines(process)
    label = ", ".join(name if value is True else f"{name} {value}" for name, value in process.items())
    text = f" [{label}]" if label else ""
    return logging.Formatter(f"%(asctime)s %(levelname)s{text.replace('%', '%%')} %(name)s: %(message)s")


class JsonLines(logging.Formatter):
    """
    Formats a record as one line of JSON: ``time`` (UTC), ``level``, ``logger``, ``message``, ``process``, ``thread``,
    what ``extra`` has added, and with an exception ``error`` and ``traceback``.

    Args:
        process: Members of each line.
    """

    def __init__(self, process: Mapping[str, Any]) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": when.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            "thread": record.threadName,
            **self._process,
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OWN and name not in line}
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__qualname__
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
