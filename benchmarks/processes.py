"""Programs under load, from the side of the harness: start, control over the line protocol, read CPU time, stop."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]

_STAT = Path("/proc/stat")
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 5.0


class Failed(Exception):
    """A program ended, reported an error, or did not respond; the text has its last line of output."""


def cpu_seconds(pid: int) -> float:
    """
    Return the CPU time that a process has used so far; 0 if it is gone.

    Linux only: exact to the nanosecond for threads that are alive, to the kernel's ticks of 10 ms for those that ended.
    """
    living = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            living += int(task.read_text().split()[0])
        except OSError:
            continue  # the thread ended just now
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    all_threads = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    # The two clocks differ by some ticks: use the coarse one only where threads have ended.
    return all_threads if all_threads > living / 1e9 * 1.05 + 0.05 else living / 1e9


def machine_cpu_seconds() -> float:
    """Return the CPU time that the whole machine has used so far, the kernel's own work included."""
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, _STAT.read_text().split(maxsplit=9)[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Program:
    """
    One server or client.

    Args:
        command: The command line.
        env: Is added to the environment.
        log: A file for its standard error.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: IO[bytes]) -> None:
        self._log = Path(log.name)
        self._log_start = log.tell()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env={**os.environ, **env},
            start_new_session=True,  # a process group of its own, so that its children can be stopped with it
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin
        self._output = self._process.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)
        self._unread = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def cpu(self) -> float:
        """CPU seconds that it has used so far."""
        return cpu_seconds(self.pid)

    def wait_until_ready(self) -> None:
        """
        Wait for "READY".

        Raises:
            Failed: It ended, or printed something else, or nothing in time.
        """
        if (line := self._line(_START_TIMEOUT)) != "READY":
            raise Failed(f"said {line!r}, not READY")

    def send(self, *words: object) -> None:
        """Send a command to a client."""
        try:
            self._input.write(f"{' '.join(map(str, words))}\n".encode())
            self._input.flush()
        except BrokenPipeError as exc:
            raise Failed(f"ended: {self._last_line()}") from exc

    def figures(self, timeout: float) -> dict[str, Any]:
        """
        Return the result of a client's command.

        Raises:
            Failed: It reported an error, ended, or did not respond.
        """
        figures: dict[str, Any] = json.loads(self._line(timeout))
        if "error" in figures:
            raise Failed(figures["error"])
        return figures

    def ask(self, *words: object, timeout: float = 120.0) -> dict[str, Any]:
        """Send a command to a client, and return its result; raises as ``figures`` does."""
        self.send(*words)
        return self.figures(timeout)

    def stop(self) -> None:
        """Stop it and its children: with SIGTERM, then with SIGKILL."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                os.killpg(self.pid, number)
            try:
                self._process.wait(_STOP_TIMEOUT)
                break
            except subprocess.TimeoutExpired:
                continue
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()

    def _line(self, timeout: float) -> str:
        deadline = time.monotonic() + timeout
        while True:
            while b"\n" in self._unread:
                line, _, self._unread = self._unread.partition(b"\n")
                if line.startswith(b"@@"):
                    return line[2:].decode()
            left = deadline - time.monotonic()
            if left <= 0 or not self._selector.select(left):
                raise Failed(f"no output in {timeout:.0f} s: {self._last_line()}")
            data = os.read(self._output, 65536)
            if not data:
                self._process.wait(_STOP_TIMEOUT)
                raise Failed(f"ended with status {self._process.returncode}: {self._last_line()}")
            self._unread += data

    def _last_line(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "without output")
