"""
A process with a server of each kind: ``python -m tests.faults.worker URL SERVICE FOLDER OPTIONS``, options as JSON.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

from jsonrpc_amqp import current_request

from .ends import Service, as_coroutine


class Worker(Service):
    """Records what it runs in a file, since the process may be killed."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._runs = os.open(folder / "runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.methods |= {"slow": self.slow, "hold": self.hold, "innocent": self.innocent, "poison": self.poison}
        self.coroutines |= {
            "slow": self.slow_on_loop,
            "hold": as_coroutine(self.hold),
            "innocent": self.innocent_on_loop,
            "poison": as_coroutine(self.poison),
        }

    def note(self, number: int) -> None:
        self._write("note", number)

    def slow(self, number: int, seconds: float) -> int:
        """Sleep, unless the request is redelivered; return the process id."""
        self._write("slow", number)
        if not current_request().redelivered:
            time.sleep(seconds)
        return os.getpid()

    async def slow_on_loop(self, number: int, seconds: float) -> int:
        self._write("slow", number)
        if not current_request().redelivered:
            await asyncio.sleep(seconds)
        return os.getpid()

    def hold(self, number: int, seconds: int) -> int:
        """Sleep with the interpreter lock, unless the request is redelivered; return the process id."""
        self._write("hold", number)
        if not current_request().redelivered:
            ctypes.PyDLL(None).sleep(seconds)
        return os.getpid()

    def innocent(self, number: int) -> int:
        self._write("innocent", number)
        time.sleep(0.05)
        return number

    async def innocent_on_loop(self, number: int) -> int:
        self._write("innocent", number)
        await asyncio.sleep(0.05)
        return number

    def poison(self) -> None:
        self._write("poison", 0)
        os.kill(os.getpid(), signal.SIGKILL)

    def _write(self, method: str, number: int) -> None:
        os.write(self._runs, f"{method} {number} {os.getpid()}\n".encode())


def main(url: str, service: str, folder: Path, options: str) -> None:
    servers = Worker(folder).servers(url, service, **json.loads(options))
    servers.start()
    (folder / f"ready-{os.getpid()}").touch()
    try:
        next(iter(servers.of.values())).serve_forever()
        servers.stop()
    finally:
        stats = {kind: server.stats() for kind, server in servers.of.items()}
        (folder / f"stats-{os.getpid()}").write_text(json.dumps(stats))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4])
