"""Standard input, output and error of a command, which may be closed, full, non-blocking, or without a reader."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from contextlib import suppress
from types import TracebackType
from typing import Any, TextIO

_IN, _OUT, _ERR = range(3)
_CHUNK = 1 << 16


class StandardStreams:
    """
    Within a ``with`` block, the standard streams of this process are safe to use.

    Descriptors 0 to 2 are open: a socket or a pipe that got one of these numbers would be taken for a standard stream,
    by this process and by those that it starts. A write to standard output that fails is noted in ``output_error``,
    wherever it was made; standard error loses what it cannot take. Streams that a program has replaced, as test
    runners do, are left alone.
    """

    def __init__(self) -> None:
        self._output: _Output | None = None
        self._output_is_result = True
        self._previous: tuple[Any, Any, Any] = (None, None, None)

    def __enter__(self) -> StandardStreams:
        _occupy_descriptors()
        self._previous = sys.stdin, sys.stdout, sys.stderr
        # Python has None for a stream whose descriptor was closed when it started.
        stdin, stdout, stderr = self._previous
        if stdin is None:
            sys.stdin = open(_IN, closefd=False)  # reading it fails, see _occupy_descriptors
        if stdout is sys.__stdout__:
            self._output = _Output(is_missing=stdout is None)
            sys.stdout = _text(self._output, stdout)
        if stderr is sys.__stderr__:
            sys.stderr = _text(_Errors(_ERR, "wb", closefd=False), stderr, "backslashreplace")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._output is not None:
            self._flush()
            self._output.is_over = True
        sys.stdin, sys.stdout, sys.stderr = self._previous

    def disown_output(self) -> None:
        """Let errors of standard output be: what is written there is not the result of this command."""
        self._output_is_result = False

    @property
    def output_error(self) -> OSError | None:
        """Why output of this command is lost; None: it is not."""
        if self._output is None or not self._output_is_result:
            return None
        self._flush()
        return self._output.error

    def _flush(self) -> None:
        with suppress(OSError, ValueError):  # noted; or a method has closed it
            sys.stdout.flush()


def read_standard_input() -> bytes:
    """
    Return standard input up to its end.

    Raises:
        OSError: It cannot be read.
    """
    source: Any = sys.stdin.buffer  # typeshed does not know that ``read`` may return None
    chunks: list[bytes] = []
    while (chunk := source.read(_CHUNK)) != b"":
        if chunk is None:  # non-blocking, as another program may have set the terminal or the pipe
            select.select([source], [], [])
        else:
            chunks.append(chunk)
    return b"".join(chunks)


class _Raw(io.FileIO):
    """A descriptor to write to, whose writes are whole."""

    def write(self, data: Any, /) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            written = super().write(left)
            if written is None:  # non-blocking
                select.select([], [self], [])
            else:
                left = left[written:]
        return size


class _Output(_Raw):
    """
    Standard output.

    Attributes:
        error: The first error of a write.
        is_over: What is still buffered is dropped.
    """

    def __init__(self, *, is_missing: bool) -> None:
        super().__init__(_OUT, "wb", closefd=False)
        self.error: OSError | None = None
        self.is_over = False
        self._is_missing = is_missing

    def write(self, data: Any, /) -> int:
        if self._is_missing and self.error is None:
            # Noted, and not raised: Python's own print() does nothing either where there is no standard output.
            self.error = OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self._is_missing or self.is_over:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            raise


class _Errors(_Raw):
    """Standard error, which cannot be reported to fail."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _text(raw: io.FileIO, like: TextIO | None, errors: str | None = None) -> TextIO:
    """Return a text stream over a descriptor, in place of one; None: there was none."""
    if like is None:
        return io.TextIOWrapper(io.BufferedWriter(raw), errors=errors)
    unbuffered = getattr(like, "write_through", False)  # python -u
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        encoding=like.encoding,
        errors=errors or like.errors,
        line_buffering=bool(like.line_buffering),
        write_through=unbuffered,
    )


def _occupy_descriptors() -> None:
    """Open the null device on those of descriptors 0 to 2 that are closed; for writing, so that reading fails."""
    for descriptor in (_IN, _OUT, _ERR):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free: this one.
            os.set_inheritable(os.open(os.devnull, os.O_WRONLY), True)
