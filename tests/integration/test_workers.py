"""``serve`` with and without ``--workers``, and a real broker: how processes end, and what replaces them."""

from __future__ import annotations

import os
import re
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from jsonrpc_amqp import Client, ServerError
from jsonrpc_amqp.cli import NOT_DRAINED, USAGE_ERROR

from ..broker import Broker
from ..cli_tools import one_line
from ..command import PATIENCE, Program, is_alive, run, running
from ..tools import wait_for

SERVED = """
import os, time

def nap(seconds):
    os.write(1, b"napping\\n")
    time.sleep(seconds)
    return os.getpid()

def die():
    os._exit(1)

methods = {"nap": nap, "die": die}
"""
SLOW_IMPORT = "import os, time\nos.write(1, b'importing %d\\n' % os.getpid())\ntime.sleep(60)\n"
TARGET = ("served_here:methods", "--service")


@contextmanager
def serving(folder: Path, service: str, *options: str, workers: int | None, **how: str | None) -> Iterator[Program]:
    """Run ``serve`` during a ``with`` block, which begins when all of its processes consume."""
    (folder / "served_here.py").write_text(SERVED)
    several = [] if workers is None else ["--workers", str(workers)]
    with running("serve", *TARGET, service, *options, *several, cwd=folder, url=how.get("url")) as program:
        program.wait_until_said(": serving '", workers or 1)
        yield program


def workers_of(server: Program) -> list[int]:
    """Return the process ids of all workers so far, the latest last."""
    return [int(pid) for pid in re.findall(r"worker \d+ is process (\d+)", server.output)]


@pytest.fixture
def user(broker: Broker) -> Iterator[str]:
    """A user with all permissions, and the password "first"."""
    name = f"u{secrets.token_hex(4)}"
    broker.ctl("add_user", name, "first")
    broker.ctl("set_permissions", name, ".*", ".*", ".*")
    yield name
    broker.ctl("delete_user", name)


# -- restarts ---------------------------------------------------------------------------------------------


def test_requests_that_kill_workers_do_not_slow_down_their_restarts(url: str, service: str, tmp_path: Path) -> None:
    with serving(tmp_path, service, workers=2, url=url) as server, Client(url, service) as client:

        def ended() -> tuple[int, int]:
            return server.output.count("another one in"), server.output.count("is not run again")

        def has_ended_more(before: tuple[int, int]) -> bool:
            return ended() > before

        while (before := ended())[0] < 5:
            client.notify("die")
            # One that a worker had received when it ended is redelivered, and ends no other worker.
            wait_for(partial(has_ended_more, before), PATIENCE)
        assert set(re.findall(r"another one in (.*) s", server.output)) <= {"0.0", "0.1"}
        # What a worker had received when it ended runs in a process of its own.
        wait_for(lambda: client.call("nap", [0], timeout=60) in workers_of(server), PATIENCE)
        assert server.terminate() == 0


def test_a_password_that_was_changed_is_read_again(
    broker: Broker, user: str, url: str, service: str, tmp_path: Path
) -> None:
    file = tmp_path / "url"
    file.write_text(url.replace("guest:guest", f"{user}:first"))
    with serving(tmp_path, service, "--url-file", "url", workers=2) as server:
        first, second = workers_of(server)
        broker.ctl("change_password", user, "second")
        os.kill(first, signal.SIGKILL)
        server.wait_until_said("the broker refused it")
        file.write_text(url.replace("guest:guest", f"{user}:second"))
        server.wait_until_said(": serving '", 3)
        # A file that is missing for a moment: the latest content counts.
        file.unlink()
        os.kill(workers_of(server)[-1], signal.SIGKILL)
        server.wait_until_said(": serving '", 4)
        assert "cannot be read" in server.output
        assert is_alive(second)
        assert server.terminate() == 0
        assert f"{user}:" not in server.output


def test_a_refusal_that_passes_does_not_end_those_that_serve(
    broker: Broker, user: str, url: str, service: str, tmp_path: Path
) -> None:
    mine = url.replace("guest:guest", f"{user}:first")
    with serving(tmp_path, service, workers=2, url=mine) as server, Client(url, service) as client:
        first, second = workers_of(server)
        broker.ctl("change_password", user, "second")
        os.kill(first, signal.SIGKILL)
        server.wait_until_said("the broker refused it", 2)
        assert client.call("nap", [0]) == second
        broker.ctl("change_password", user, "first")
        server.wait_until_said(": serving '", 3)
        assert is_alive(second)
        assert server.terminate() == 0


# -- how they are started ---------------------------------------------------------------------------------

# As those that Nix, Bazel, buildout and Debian install: the path is set by the script alone.
SCRIPT = """
import sys
sys.path[0] = {path!r}
from jsonrpc_amqp.cli import main
main(prog_name="jsonrpc-amqp")
"""


def test_workers_are_what_their_parent_is(url: str, service: str, tmp_path: Path) -> None:
    """The options of Python, the path of modules, and what files of the working directory stand for."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/only_here.py").write_text("")
    (tmp_path / "script.py").write_text(SCRIPT.format(path=str(tmp_path / "elsewhere")))
    (tmp_path / "queue.py").write_text("raise SystemExit('queue.py of the working directory')")
    (tmp_path / "served_here.py").write_text(
        "import os, sys, only_here\nmethods = {'optimized': lambda: sys.flags.optimize, 'die': lambda: os._exit(1)}"
    )
    program = [sys.executable, "-O", str(tmp_path / "script.py")]
    with (
        running("serve", *TARGET, service, "--workers", "1", url=url, cwd=tmp_path, program=program) as server,
        Client(url, service) as client,
    ):
        server.wait_until_said(": serving '")
        assert client.call("optimized") == 1
        with pytest.raises(ServerError):  # by a worker, then in two processes of their own
            client.call("die")
        assert server.output.count("while it ran a redelivered request") == 2
        assert server.terminate() == 0


# -- signals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("workers", [None, 2])
def test_a_hangup_drains(url: str, service: str, tmp_path: Path, workers: int | None, group: bool) -> None:
    with serving(tmp_path, service, workers=workers, url=url) as server, Client(url, service) as client:
        calls = [client.submit("nap", [1]) for _ in range(6)]
        server.wait_until_said("napping", 6)
        for pid in [server.pid, *(workers_of(server) if group else [])]:
            os.kill(pid, signal.SIGHUP)
        assert {call.result() for call in calls} == set(workers_of(server) if workers else [server.pid])
        assert server.wait() == 0


def test_a_worker_that_is_hung_up_alone_drains_and_is_replaced(url: str, service: str, tmp_path: Path) -> None:
    with serving(tmp_path, service, workers=1, url=url) as server, Client(url, service) as client:
        call = client.submit("nap", [1])
        server.wait_until_said("napping")
        (pid,) = workers_of(server)
        os.kill(pid, signal.SIGHUP)
        assert call.result() == pid
        server.wait_until_said(": serving '", 2)
        assert "worker 1 ended with exit code 0; another one in 0.0 s" in server.output
        assert server.terminate() == 0


@pytest.mark.parametrize("workers", [None, 2])
def test_the_exit_code_says_that_a_handler_was_left_running(
    url: str, service: str, tmp_path: Path, workers: int | None
) -> None:
    with (
        serving(tmp_path, service, "--grace", "0.5", workers=workers, url=url) as server,
        Client(url, service) as client,
    ):
        client.notify("nap", [60])
        server.wait_until_said("napping")
        assert server.terminate() == NOT_DRAINED
        assert "1 handlers still run after 0.5 s" in server.output, server.output
        assert ("not all workers have drained" in server.output) == (workers is not None)


# -- while TARGET is imported -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_while_the_target_is_checked(url: str, service: str, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "served_here.py").write_text(SLOW_IMPORT)
    with running("serve", *TARGET, service, "--workers", "2", url=url, cwd=tmp_path) as server:
        server.wait_until_said("importing")
        server.process.send_signal(number)
        assert server.wait() == (-number if number == signal.SIGKILL else 0)
        (child,) = re.findall(r"importing (\d+)", server.output)
        wait_for(lambda: not is_alive(int(child)), PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_that_hang_in_their_import_end(url: str, service: str, tmp_path: Path, number: signal.Signals) -> None:
    only_workers = f"import sys\nif '--worker' in sys.argv:\n    {SLOW_IMPORT.replace(chr(10), '; ')}\n{SERVED}"
    (tmp_path / "served_here.py").write_text(only_workers)
    with running("serve", *TARGET, service, "--workers", "2", url=url, cwd=tmp_path) as server:
        server.wait_until_said("importing", 2)
        server.process.send_signal(number)
        assert server.wait() == (0 if number == signal.SIGTERM else -number)
        wait_for(lambda: not any(map(is_alive, workers_of(server))), PATIENCE)


@pytest.mark.parametrize(
    ("source", "says"),
    [("import sys\nsys.exit(0)\n", "SystemExit: 0 ("), ("import os\nos.abort()\n", "ended by signal 6")],
)
def test_a_module_that_ends_the_process(source: str, says: str, service: str, tmp_path: Path) -> None:
    (tmp_path / "served_here.py").write_text(source)
    done = run("serve", *TARGET, service, "--workers", "2", cwd=tmp_path)
    assert done.returncode == USAGE_ERROR
    assert says in one_line(done.stderr)
