"""A client or server that is dropped without being closed is noticed."""

from __future__ import annotations

import sys
import warnings
from functools import partial
from typing import Any

import pytest

from jsonrpc_amqp.runtime import dropped
from jsonrpc_amqp.runtime.dropped import DropWatch


def test_what_is_dropped_open_ends_with_a_warning_that_names_it() -> None:
    ended: list[int] = []
    watch = DropWatch("Client of 'S'", "call close()", lambda: True, lambda: ended.append(1))
    with pytest.warns(ResourceWarning, match=r"^unclosed Client of 'S': call close\(\)$"):
        del watch
    assert ended == [1]


def test_what_is_dropped_closed_gives_no_warning() -> None:
    ended: list[int] = []
    watch = DropWatch("Client", "close it", lambda: False, lambda: ended.append(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del watch
    assert ended == []


def test_it_ends_where_warnings_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_type))
    watch = DropWatch("Client", "close it", lambda: True, lambda: ended.append(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del watch
    assert (ended, unraisable) == ([1], [ResourceWarning])


def test_while_the_interpreter_ends_it_does_nothing() -> None:
    ended: list[int] = []
    opened = [True]
    watch = DropWatch("Client", "close it", lambda: bool(opened), lambda: ended.append(1))
    finalize: Any = watch.__del__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finalize(None, lambda: True)
    assert ended == []
    opened.clear()


def test_what_is_open_when_the_program_ends_gives_a_warning() -> None:
    opened = {"a": True, "b": False}
    watches = [DropWatch(name, "close it", partial(opened.__getitem__, name), lambda: None) for name in opened]
    with pytest.warns(ResourceWarning) as caught:
        dropped._end()
    assert [str(each.message) for each in caught] == ["unclosed a: close it"]
    opened.clear()
    opened.update(dict.fromkeys("ab", False))
    watches.clear()


def test_what_gave_up_ends_without_a_warning() -> None:
    ended: list[int] = []
    watch = DropWatch("Client", "close it", lambda: True, lambda: ended.append(1), lambda: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.end()
        del watch
    assert ended == [1]
