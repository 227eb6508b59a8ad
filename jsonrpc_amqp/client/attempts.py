"""What a call knows of its attempts that failed, and which errors another attempt may follow (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..errors import (
    AccessRefused,
    ClientClosed,
    ConnectionLost,
    JsonRpcAmqpError,
    MaybeRejected,
    MessageRejected,
    MessageTooLarge,
    TooManyPending,
    TransportError,
)

Retry = Literal["safe", "idempotent"]
"""Which errors another attempt may follow; see ``may_retry``."""
# Another attempt would end in the same way, or might take the calls of others with it.
_FINAL = (AccessRefused, ClientClosed, MaybeRejected, MessageRejected, MessageTooLarge, TooManyPending)


def may_retry(retry: Retry | None, error: JsonRpcAmqpError) -> bool:
    """
    Return whether another attempt may follow an error: it may succeed, and the caller accepts what it risks.

    With "safe" the method did not run; with "idempotent" it may run a second time.
    """
    if retry is None or not isinstance(error, TransportError):
        return False
    if isinstance(error, _FINAL):
        return False
    return not error.may_have_run or (retry == "idempotent" and isinstance(error, ConnectionLost))


@dataclass(slots=True, eq=False, repr=False)
class Attempts:
    """
    The attempts of one call that failed.

    Attributes:
        failures: How many there were.
    """

    failures: int = field(default=0, init=False)
    _last_error: TransportError | None = field(default=None, init=False)
    _may_have_run: bool = field(default=False, init=False)

    def note_failure(self, error: JsonRpcAmqpError) -> None:
        """Remember an error that another attempt follows."""
        assert isinstance(error, TransportError)
        self.failures += 1
        self._last_error = error
        self._may_have_run = self._may_have_run or error.may_have_run

    @property
    def last_error(self) -> TransportError:
        """The error of the last attempt, as the end of a call that failed, with what earlier attempts add to it."""
        error = self._last_error
        assert error is not None
        return error.reworded(f"{error} (attempt {self.failures})", may_have_run=self._may_have_run)

    def with_attempts(self, error: JsonRpcAmqpError) -> JsonRpcAmqpError:
        """Return a final error, with what earlier attempts add to it."""
        if self._last_error is None or not isinstance(error, TransportError):
            return error
        return error.reworded(
            f"{error} (attempt {self.failures + 1}; the one before: {self._last_error})",
            may_have_run=error.may_have_run or self._may_have_run,
        )
