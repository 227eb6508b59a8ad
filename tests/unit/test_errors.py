"""The exceptions: which class stands for which code, and copies for several callers."""

from __future__ import annotations

import pytest

from jsonrpc_amqp import (
    CallTimeout,
    NotConnected,
    RemoteError,
    TransportError,
)
from jsonrpc_amqp.errors import remote_error

from ..error_codes import CLASSES_BY_CODE


@pytest.mark.parametrize(("code", "kind"), CLASSES_BY_CODE)
def test_codes_have_classes(code: int, kind: type[RemoteError]) -> None:
    error = remote_error(code, "why", [1])
    assert type(error) is kind
    assert (error.code, error.message, error.data) == (code, "why", [1])
    assert str(error) == f"why ({code}): [1]"
    assert str(remote_error(code, "why")) == f"why ({code})"


@pytest.mark.parametrize("error", [NotConnected("gone"), CallTimeout("late"), CallTimeout("late", may_have_run=False)])
def test_a_copy_is_another_error_that_says_the_same(error: TransportError) -> None:
    error.__cause__ = OSError("refused")
    copy = error.again()
    assert copy is not error
    assert type(copy) is type(error)
    assert (str(copy), copy.may_have_run, copy.__cause__) == (str(error), error.may_have_run, error.__cause__)
    assert copy.__traceback__ is None
