"""The parent of several workers, with workers that are a few lines long."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ..command import Program, is_alive, running
from ..tools import wait_for

PARENT = """
import logging, sys
from jsonrpc_amqp.server.supervisor import Supervisor
logging.basicConfig(level="INFO", format="%(message)s")
sys.exit(Supervisor([sys.executable, "-c", sys.argv[1]], int(sys.argv[2]), hopeless=3).run())
"""

# What they say is written at once: print writes piece by piece, and the pieces of two workers mix.
DRAINS = """
import os, sys, threading
from jsonrpc_amqp.server.supervisor import stop_with_parent
_worker, number, lifeline, _last_death = sys.argv[1:]
end = threading.Event()
stop_with_parent(int(lifeline), end.set)
os.write(1, f"ready {number}\\n".encode())
end.wait(20)
os.write(1, f"drained {number} {end.is_set()}\\n".encode())
"""

STUCK = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, b"ready\\n")
time.sleep(20)
"""

DIES = "raise SystemExit(1)"

HOPELESS = """
import os, sys
if sys.argv[2] == "2":
    sys.exit(3)
os.read(int(sys.argv[3]), 1)
os.write(1, b"drained\\n")
"""


@contextmanager
def parent(worker: str, count: int) -> Iterator[Program]:
    with running(worker, str(count), program=[sys.executable, "-c", PARENT]) as program:
        yield program


def pids(program: Program) -> list[int]:
    return [int(pid) for pid in re.findall(r"worker \d+ is process (\d+)", program.output)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_all(number: signal.Signals) -> None:
    with parent(DRAINS, 3) as program:
        program.wait_until_said("ready", 3)
        program.process.send_signal(number)
        assert program.wait() == 0
        assert all(f"drained {each} True" in program.output for each in (1, 2, 3)), program.output
        assert "another one" not in program.output


def test_the_second_signal_ends_all_at_once() -> None:
    with parent(STUCK, 2) as program:
        program.wait_until_said("ready", 2)
        program.process.terminate()
        program.wait_until_said("the workers drain")
        assert all(map(is_alive, pids(program)))
        program.process.terminate()
        assert program.wait() == -signal.SIGTERM
        assert not any(map(is_alive, pids(program)))


def test_workers_drain_when_the_parent_is_killed() -> None:
    with parent(DRAINS, 2) as program:
        program.wait_until_said("ready", 2)
        program.process.kill()
        program.wait()
        wait_for(lambda: not any(map(is_alive, pids(program))))
        assert program.output.count("drained") == 2


def test_a_worker_that_cannot_live_is_tried_ever_more_rarely() -> None:
    with parent(DIES, 1) as program:
        program.wait_until_said("another one in", 4)
        assert re.findall(r"ended with exit code 1; another one in (.*) s", program.output)[:4] == [
            "0.1",
            "0.2",
            "0.4",
            "0.8",
        ]
        # In the midst of a pause there is nothing to wait for.
        assert program.terminate() == 0


def test_a_killed_worker_is_replaced_and_the_others_stay() -> None:
    with parent(DRAINS, 2) as program:
        program.wait_until_said("ready", 2)
        first, second = pids(program)
        os.kill(first, signal.SIGKILL)
        program.wait_until_said("ready", 3)
        assert "worker 1 was ended by signal 9; another one in 0.1 s" in program.output
        assert is_alive(second)
        assert program.terminate() == 0
        assert program.output.count("drained") == 2


def test_one_without_hope_ends_all_with_its_exit_code() -> None:
    with parent(HOPELESS, 2) as program:
        assert program.wait() == 3
        assert "drained" in program.output
        assert "another one" not in program.output


def test_a_program_that_does_not_start_is_tried_again() -> None:
    script = "import logging, sys\nfrom jsonrpc_amqp.server.supervisor import Supervisor\nlogging.basicConfig()\n"
    script += "Supervisor(['/nonexistent/program'], 1, hopeless=3).run()"
    with running(program=[sys.executable, "-c", script]) as program:
        program.wait_until_said("did not start", 2)
        assert program.terminate() == 0
