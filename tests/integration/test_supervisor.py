"""The parent of several workers, with workers that are a few lines long."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..command import PATIENCE, ROOT, Program, is_alive, running
from ..tools import missing, need, wait_for

# {0} stands for what a test changes before the supervisor runs.
PARENT = """
import ctypes, logging, os, signal, sys, time
from jsonrpc_amqp.server import supervisor
logging.basicConfig(level="INFO", format="%(message)s")
command, count, check = [sys.executable, "-c", sys.argv[1]], int(sys.argv[2]), None
supervisor.KILL_MARGIN, grace = 1.0, 20.0
{0}
parent = supervisor.Supervisor(command, count, grace=grace, refused=3, undrained=5)
sys.exit(parent.run(check))
"""

# What they say is written at once: print writes piece by piece, and the pieces of two workers mix.
SERVES = """
import os, signal, sys, threading, time
from jsonrpc_amqp.server.last_death import LastDeath
from jsonrpc_amqp.server.worker import DRAINED, SERVING, Parent
_worker, number, *pipes, last_death = sys.argv[1:]
LastDeath(int(last_death))
parent = Parent(int(number), *map(int, pipes))
end = threading.Event()
parent.drain_with(end.set)
parent.tell(SERVING)
os.write(1, f"ready {number}\\n".encode())
"""
DRAINS = f"""
{SERVES}
end.wait(20)
os.write(1, f"drained {{number}} {{end.is_set()}}\\n".encode())
parent.tell(DRAINED)
"""

STUCK = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, b"ready\\n")
time.sleep(20)
"""

DIES = "raise SystemExit(1)"

# One that is still importing: it has told nothing yet.
IMPORTS = """
import os, sys, time
from jsonrpc_amqp.server.worker import Parent
Parent(*map(int, sys.argv[2:5]))
os.write(1, b"ready\\n")
time.sleep(20)
"""

REFUSED = """
import os, sys
if sys.argv[2] == "2":
    sys.exit(3)
os.read(int(sys.argv[3]), 1)
os.write(1, b"drained\\n")
"""

# The second one is refused as soon as the first one serves, which the first one says by a file.
REFUSED_LATER = f"""
import os, sys, time
if sys.argv[2] == "2":
    while not os.path.exists("served"):
        time.sleep(0.01)
    sys.exit(3)
{DRAINS.replace("end.wait", "open('served', 'w').close(); end.wait")}
"""


@contextmanager
def parent(
    worker: str, count: int, more: str = "", *, cwd: Path = ROOT, within: Sequence[str] = ()
) -> Iterator[Program]:
    with running(worker, str(count), program=[*within, sys.executable, "-c", PARENT.format(more)], cwd=cwd) as started:
        yield started


def pids(program: Program) -> list[int]:
    return [int(pid) for pid in re.findall(r"worker \d+ is process (\d+)", program.output)]


def children(pid: int) -> list[int]:
    """Return the children of a process, zombies included."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# -- the end ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_drains_all(number: signal.Signals) -> None:
    with parent(DRAINS, 3) as program:
        program.wait_until_said("ready", 3)
        program.process.send_signal(number)
        assert program.wait() == 0
        assert all(f"drained {each} True" in program.output for each in (1, 2, 3)), program.output
        assert "another one" not in program.output
        assert "all workers have drained" in program.output


def test_the_second_signal_ends_all_at_once() -> None:
    with parent(STUCK, 2) as program:
        program.wait_until_said("ready", 2)
        program.process.terminate()
        program.wait_until_said("the workers drain")
        assert all(map(is_alive, pids(program)))
        program.process.terminate()
        assert program.wait() == -signal.SIGTERM
        assert not any(map(is_alive, pids(program)))


def test_the_second_signal_ends_process_1_of_a_container_as_well() -> None:
    container = [need("unshare"), "--pid", "--fork", "--kill-child"]
    if subprocess.run([*container, "true"], capture_output=True).returncode:
        missing("this user may not make a namespace of processes")
    with parent(STUCK, 2, within=container) as program:
        program.wait_until_said("ready", 2)
        (process_1,) = children(program.pid)
        os.kill(process_1, signal.SIGTERM)
        program.wait_until_said("the workers drain")
        os.kill(process_1, signal.SIGTERM)
        assert program.wait() == 128 + signal.SIGTERM


def test_a_hangup_is_no_second_signal() -> None:
    slow = DRAINS.replace("end.wait(20)", "end.wait(20); os.write(1, b'draining\\n'); time.sleep(1)")
    with parent(slow, 1) as program:
        program.wait_until_said("ready")
        program.process.send_signal(signal.SIGHUP)
        program.wait_until_said("draining")
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            program.process.send_signal(number)
        assert program.wait() == 0
        assert "drained 1 True" in program.output


def test_a_hangup_that_was_ignored_stays_ignored() -> None:
    with parent(DRAINS, 1, "signal.signal(signal.SIGHUP, signal.SIG_IGN)") as program:
        program.wait_until_said("ready")
        for pid in (program.pid, *pids(program)):
            os.kill(pid, signal.SIGHUP)
        os.kill(pids(program)[0], signal.SIGKILL)
        program.wait_until_said("ready", 2)
        assert program.terminate() == 0


def test_workers_drain_when_the_parent_is_killed() -> None:
    with parent(DRAINS, 2) as program:
        program.wait_until_said("ready", 2)
        program.process.kill()
        program.wait()
        wait_for(lambda: not any(map(is_alive, pids(program))), PATIENCE)
        assert program.output.count("drained") == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_that_do_not_serve_yet_end_with_the_parent(number: signal.Signals) -> None:
    with parent(IMPORTS, 2) as program:
        program.wait_until_said("ready", 2)
        program.process.send_signal(number)
        assert program.wait() == (0 if number == signal.SIGTERM else -number)
        wait_for(lambda: not any(map(is_alive, pids(program))), PATIENCE)


def test_workers_that_do_not_end_in_time_are_killed() -> None:
    with parent(DRAINS, 2, "grace = 4") as program:
        program.wait_until_said("ready", 2)
        os.kill(pids(program)[0], signal.SIGSTOP)
        assert program.terminate() == 5
        assert "worker 1 has not ended within 5 s, and is killed" in program.output
        assert "worker 2 ended with exit code 0" in program.output
        assert "not all workers have drained" in program.output
        assert not any(map(is_alive, pids(program)))


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ("sys.exit(5)", 5),
        ("os.kill(os.getpid(), signal.SIGTERM)", 5),
        ("parent.tell(DRAINED); os.kill(os.getpid(), signal.SIGTERM)", 0),
    ],
    ids=["left-a-handler", "killed", "killed-after-it-drained"],
)
def test_the_exit_code_says_whether_all_have_drained(ends: str, code: int) -> None:
    with parent(f"{SERVES}\nend.wait(20)\nif number == '2':\n    {ends}\nparent.tell(DRAINED)", 2) as program:
        program.wait_until_said("ready", 2)
        assert program.terminate() == code
        assert ("and had not drained" in program.output) == (code == 5)


# -- restarts ---------------------------------------------------------------------------------------------


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


def test_a_worker_that_dies_after_it_served_is_replaced_at_once_each_time() -> None:
    with parent(f"{SERVES}\nos._exit(1)", 1) as program:
        program.wait_until_said("another one in", 7)
        assert set(re.findall(r"another one in (.*) s", program.output)) <= {"0.0", "0.1"}
        assert program.terminate() in (0, 5)  # 5: the last one died meanwhile


def test_a_killed_worker_is_replaced_and_the_others_stay() -> None:
    with parent(DRAINS, 2) as program:
        program.wait_until_said("ready", 2)
        first, second = pids(program)
        os.kill(first, signal.SIGKILL)
        program.wait_until_said("ready", 3)
        assert "worker 1 was ended by signal 9; another one in 0.0 s" in program.output
        assert is_alive(second)
        assert program.terminate() == 0
        assert program.output.count("drained") == 3


def test_one_that_is_refused_before_any_has_served_ends_all_with_its_exit_code() -> None:
    with parent(REFUSED, 2) as program:
        assert program.wait() == 3
        assert "drained" in program.output
        assert "another one" not in program.output


def test_one_that_is_refused_later_is_tried_again_and_the_others_stay(tmp_path: Path) -> None:
    with parent(REFUSED_LATER, 2, cwd=tmp_path) as program:
        program.wait_until_said("worker 2 ended with exit code 3", 3)
        delays = re.findall(r"worker 2 .* the broker refused it.*; another one in (.*) s", program.output)
        assert delays[:3] == ["0.1", "0.2", "0.4"]
        assert is_alive(pids(program)[0])
        assert program.terminate() == 0
        assert "drained 1 True" in program.output


def test_a_program_that_does_not_start_is_tried_again() -> None:
    with parent(DIES, 1, "command = ['/nonexistent/program']") as program:
        program.wait_until_said("did not start", 2)
        assert program.terminate() == 0


def test_a_signal_does_not_wait_until_a_large_number_has_been_started(tmp_path: Path) -> None:
    with parent("", 3000, "command = ['sh', '-c', 'echo >>started; read line <&$2']", cwd=tmp_path) as program:
        started = tmp_path / "started"
        wait_for(started.exists, PATIENCE)
        assert program.terminate() == 0
        assert started.stat().st_size < 3000


def test_children_of_processes_that_died_are_reaped() -> None:
    orphan = "if os.fork() == 0:\n    if os.fork() == 0:\n        os.write(1, b'orphan\\n')\n    os._exit(5)"
    # As process 1 of a container it is their parent; PR_SET_CHILD_SUBREAPER is the same without a container.
    with parent(
        f"{SERVES}\n{orphan}\nend.wait(20)\nparent.tell(DRAINED)", 1, "ctypes.CDLL(None).prctl(36, 1)"
    ) as program:
        program.wait_until_said("orphan")
        wait_for(lambda: children(program.pid) == pids(program), PATIENCE)
        assert program.terminate() == 0
        assert "another one" not in program.output


def test_workers_hold_no_descriptors_but_their_pipes() -> None:
    shows = f"{SERVES}\nos.set_inheritable(1, True)\nos.write(1, b'fds %d\\n' % len(os.listdir('/proc/self/fd')))"
    shows += "\nos.system('ls /proc/self/fd | wc -w')\nend.wait(20)\nparent.tell(DRAINED)"
    with parent(shows, 1, "os.set_inheritable(os.open('/dev/null', os.O_RDONLY), True)") as program:
        # Its own three, two pipes, a file, and the folder that is listed; a program that it starts has only its own.
        program.wait_until_said("fds 7\n")
        program.wait_until_said("\n4\n")
        assert program.terminate() == 0


# -- the check --------------------------------------------------------------------------------------------

CHECKS = """
def check():
    os.write(1, b"checking %d\\n" % os.getpid())
    {0}
"""


def checking(program: Program) -> int:
    program.wait_until_said("checking")
    return int(re.findall(r"checking (\d+)", program.output)[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_while_the_target_is_checked_ends_the_check_as_well(number: signal.Signals) -> None:
    with parent(DRAINS, 1, CHECKS.format("time.sleep(20)")) as program:
        child = checking(program)
        program.process.send_signal(number)
        assert program.wait() == (-number if number == signal.SIGKILL else 0)
        wait_for(lambda: not is_alive(child), PATIENCE)
        assert "is process" not in program.output


@pytest.mark.parametrize(
    ("what", "code"),
    [("return 2", 2), ("os._exit(0)", 0), ("os.abort()", -signal.SIGABRT & 0xFF), ("1 / 0", 1), ("sys.exit(7)", 1)],
)
def test_workers_start_only_if_the_check_succeeds(what: str, code: int) -> None:
    with parent(DRAINS, 1, CHECKS.format(what)) as program:
        if code == 0:
            program.wait_until_said("ready")
            program.process.terminate()
        assert program.wait() == code
        assert ("is process" in program.output) == (code == 0)
        assert program.output.count("checking") == 1


def test_a_check_that_cannot_be_started_is_left_out() -> None:
    fails = "def fork():\n    raise BlockingIOError(11, 'no process left')\nos.fork = fork"
    with parent(DRAINS, 1, CHECKS.format("return 2") + fails) as program:
        program.wait_until_said("ready")
        assert "there is no check" in program.output
        assert program.terminate() == 0
