"""How every command begins and ends: its standard streams, its exit code, and the line that says why."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import click

from .common import INTERRUPTED, Failure, StreamFailure
from .streams import StandardStreams


class CommandGroup(click.Group):
    """The group of all commands, each of which ends the process with a documented exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command, and end this process; in other modes than standalone as click does."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        with StandardStreams() as streams:
            ending = _run(streams, partial(super().main, args, prog_name, complete_var, False, obj=streams, **extra))
            # A failed write may have led to any other failure, such as one of a method that printed.
            lost = streams.output_error
            if lost is not None and lost.errno == errno.EPIPE:
                sys.exit(_end_by_sigpipe())
            if lost is not None:
                ending = StreamFailure(
                    f"standard output cannot be written: {lost.strerror}. What was asked for may be done; what it "
                    "returned is lost"
                )
            if isinstance(ending, click.ClickException):
                ending.show()
                ending = ending.exit_code
        return sys.exit(ending)

    def invoke(self, context: click.Context) -> Any:
        """Run the command that the arguments name."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            # Of no interest to click, which would print an empty line.
            raise click.Abort from None


def _run(streams: StandardStreams, command: Callable[[], Any]) -> int | click.ClickException:
    """Run a command, and return its exit code, or why it failed."""
    try:
        return command() or 0
    except click.ClickException as failure:
        return failure
    except SystemExit as ended:
        code = ended.code or 0
        return code if isinstance(code, int) else Failure(code)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except OSError as error:
        if streams.output_error is None:
            raise
        return StreamFailure(error)


def _end_by_sigpipe() -> int:
    """
    End this process as a write to a pipe without a reader ends other programs. Python ignores the signal, for sockets.

    Returns:
        The exit code, where a thread that may not set signals runs the command.
    """
    try:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    except ValueError:
        return 128 + signal.SIGPIPE
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPIPE])
    signal.raise_signal(signal.SIGPIPE)
    return 128 + signal.SIGPIPE
