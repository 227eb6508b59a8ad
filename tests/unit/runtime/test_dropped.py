"""A client or server that is dropped without being closed is noticed."""

from __future__ import annotations

import sys
import warnings

import pytest

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


def test_while_the_interpreter_ends_it_only_warns() -> None:
    warned: list[object] = []
    ended: list[int] = []
    is_open = True
    watch = DropWatch("Client", "close it", lambda: is_open, lambda: ended.append(1))
    watch.__del__(lambda *what, source: warned.append(what), lambda: True)
    assert (ended, warned) == ([], [("unclosed Client: close it", ResourceWarning)])
    is_open = False
