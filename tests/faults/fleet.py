"""Server processes that a test starts, kills and freezes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

from ..tools import wait_for

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0


class Fleet:
    """
    Processes that run ``worker``.

    Args:
        service: Each process has a server of each kind: of ``targets(service)``.
        folder: Where they record what they run.
        options: The options of each server.
    """

    def __init__(self, url: str, service: str, folder: Path, **options: Any) -> None:
        self._command = [sys.executable, "-m", "tests.faults.worker", url, service, str(folder), json.dumps(options)]
        self._folder = folder
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, count: int = 1) -> None:
        """Start more processes, and wait until they serve."""
        started = [subprocess.Popen(self._command, cwd=ROOT, stdin=subprocess.DEVNULL) for _ in range(count)]
        self.processes |= {process.pid: process for process in started}
        for process in started:
            wait_for(lambda pid=process.pid: (self._folder / f"ready-{pid}").exists(), PATIENCE)  # type: ignore[misc]

    def start_unready(self) -> subprocess.Popen[bytes]:
        """Start a process that may be killed before it serves."""
        process = subprocess.Popen(self._command, cwd=ROOT, stdin=subprocess.DEVNULL)
        self.processes[process.pid] = process
        return process

    def kill(self, pid: int) -> None:
        """Kill a process without a warning (SIGKILL)."""
        process = self.processes.pop(pid)
        process.kill()
        process.wait()

    def freeze(self, pid: int) -> None:
        """Suspend a process (SIGSTOP)."""
        self.processes[pid].send_signal(signal.SIGSTOP)

    def thaw(self, pid: int) -> None:
        """Resume a process (SIGCONT)."""
        self.processes[pid].send_signal(signal.SIGCONT)

    def stop(self, pid: int) -> dict[str, dict[str, int]]:
        """Have a process drain and end; return the counters of its servers, by their kinds."""
        process = self.processes.pop(pid)
        process.send_signal(signal.SIGCONT)
        process.terminate()
        assert process.wait(PATIENCE) == 0
        stats: dict[str, dict[str, int]] = json.loads((self._folder / f"stats-{pid}").read_text())
        return stats

    def runs(self, method: str, number: int | None = None, *, above: int = -1) -> list[int]:
        """Return the ids of the processes that ran a method, with this number or numbers above one, in order."""
        lines = [(each, pid) for name, each, pid in self._lines() if name == method]
        return [pid for each, pid in lines if number in (None, each) and each > above]

    def numbers(self, method: str, pid: int) -> list[int]:
        """Return the numbers with which a process ran a method, in order."""
        return [number for name, number, each in self._lines() if (name, each) == (method, pid)]

    def counts(self, method: str) -> Counter[int]:
        """Return how often a method was run with each number."""
        return Counter(number for name, number, _pid in self._lines() if name == method)

    def notes(self, wanted: Collection[int]) -> set[int]:
        """Wait for notifications to be handled; return the numbers of all that were, also if some of these are not."""
        give_up = time.monotonic() + PATIENCE
        while not (found := set(self.counts("note"))).issuperset(wanted) and time.monotonic() < give_up:
            time.sleep(0.05)
        return found

    def wait_for_run(self, method: str, number: int) -> int:
        """Wait until a process runs a method with this number, and return its id."""
        wait_for(lambda: self.runs(method, number))
        return self.runs(method, number)[0]

    def _lines(self) -> list[tuple[str, int, int]]:
        file = self._folder / "runs"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(name, int(number), int(pid)) for name, number, pid in map(str.split, lines)]

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
