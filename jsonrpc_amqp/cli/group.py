"""Where commands are found, and how each begins and ends: standard streams, exit code, the line that says why."""

from __future__ import annotations

import errno
import signal
import sys
from collections import UserDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import click

from .common import INTERRUPTED, Failure, StreamFailure
from .streams import StandardStreams


class CommandModules(UserDict[str, click.Command]):
    """
    Commands by name. Each is called ``command``, in a module of its name, which is imported when the command is used:
    what serves takes twice as long to import as what calls.
    """

    def __init__(self, *names: str) -> None:
        super().__init__()
        self._names = names

    def __getitem__(self, name: str) -> click.Command:
        if name in self._names and name not in self.data:
            self.data[name] = import_module(f".{name}", __package__).command
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


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
