"""How a process of this program starts another one: with its options of Python, and its path of modules."""

from __future__ import annotations

import subprocess
import sys

# As it is before TARGET is imported, for which the working directory comes first: a file there may have the name of a
# module that this program imports.
_PATH = tuple(sys.path)


def this_program() -> list[str]:
    """
    Return the command ``jsonrpc-amqp`` without its arguments.

    Not ``-m jsonrpc_amqp``: that may find another copy, or none, where a script has set the path (Nix, Bazel, buildout,
    Debian's), and puts the working directory before the standard library.
    """
    # What multiprocessing starts its processes with: -O, -W, -X, -I and others. typeshed omits private functions.
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    if getattr(sys.__stdout__, "write_through", False):
        options.append("-u")
    # sys is built in, so that no file can take its place.
    start = f"import sys; sys.path[:] = {_PATH!r}; from jsonrpc_amqp.cli import main; main(prog_name='jsonrpc-amqp')"
    return [sys.executable, *options, "-c", start]
