"""Runs the command ``jsonrpc-amqp`` as its users do: in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .tools import wait_for

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "jsonrpc_amqp"]
# What takes a second or two on an idle machine must be done by then.
PATIENCE = 25.0


def run(
    *args: str,
    url: str | None = None,
    stdin: bytes = b"",
    program: list[str] = COMMAND,
    cwd: Path = ROOT,
) -> subprocess.CompletedProcess[str]:
    """Run it to its end; output is decoded as UTF-8."""
    done = subprocess.run(
        [*program, *args],
        input=stdin,
        env=_environment(url, {}),
        cwd=cwd,
        capture_output=True,
        timeout=PATIENCE,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class Program:
    """A running program, and its output so far."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._output = output

    @property
    def output(self) -> str:
        """Standard output and standard error, in order."""
        return self._output.read_text()

    def wait_until_said(self, text: str, times: int = 1) -> None:
        """Wait until its output contains a text ``times`` times."""

        def is_said() -> bool:
            assert self.process.poll() is None or self.output.count(text) >= times, self.output
            return self.output.count(text) >= times

        wait_for(is_said, PATIENCE, told=lambda: self.output)

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        return self.process.wait(PATIENCE)

    def terminate(self) -> int:
        """Send SIGTERM, wait for the end, and return the exit code."""
        self.process.terminate()
        return self.wait()


@contextmanager
def running(
    *args: str,
    url: str | None = None,
    program: list[str] = COMMAND,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    stdin: Path = Path(os.devnull),
) -> Iterator[Program]:
    """Run it during a ``with`` block; after that, end it unless it has ended."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "output")
        with output.open("ab") as file, stdin.open("rb") as given:
            process = subprocess.Popen(
                [*program, *args],
                env=_environment(url, env or {}),
                cwd=cwd,
                stdin=given,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Program(process, output)
        finally:
            _end(process)


@contextmanager
def serving(*args: str, url: str, processes: int = 1, env: Mapping[str, str] | None = None) -> Iterator[Program]:
    """Run ``serve`` during a ``with`` block, which begins when all of its processes consume."""
    with running("serve", *args, url=url, env=env) as program:
        program.wait_until_said(": serving '", processes)
        yield program


def is_alive(pid: int) -> bool:
    """Return whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(url: str | None, more: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "AMQP_URL"}
    return {**inherited, "PYTHONPATH": str(ROOT), **({} if url is None else {"AMQP_URL": url}), **more}
