"""When a worker last died: written by the supervisor, read by its workers, in a file without a name."""

from __future__ import annotations

import os
import struct
import tempfile
import time

# Monotonic seconds: one clock for all processes of a machine. Eight bytes are written and read in one system call.
_TIME = struct.Struct("=d")


class LastDeath:
    """
    The time of the last death of a worker; that of its own making before there is one.

    A supervisor may itself be a restart, of a container that ended with all of its processes.

    Args:
        descriptor: Of the file, in a worker, which inherited it. None: make the file.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is not None:
            os.set_inheritable(descriptor, False)  # programs that a handler starts must not hold it
            self.descriptor = descriptor
            return
        self.descriptor = _file_without_a_name()
        self.note()

    def note(self) -> None:
        """A worker has died now."""
        os.pwrite(self.descriptor, _TIME.pack(time.monotonic()), 0)

    def read(self) -> float:
        """Return when that was, in monotonic seconds."""
        (seconds,) = _TIME.unpack(os.pread(self.descriptor, _TIME.size, 0))
        return float(seconds)


def _file_without_a_name() -> int:
    """Return the descriptor of a new file."""
    # In memory, where the system has that: a container may have no file system that can be written to.
    if hasattr(os, "memfd_create"):
        return os.memfd_create("jsonrpc-amqp")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
