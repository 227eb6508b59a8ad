"""Standard streams of every command: closed, full, without a reader; and commands that are interrupted."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import click
import pytest

from examples.conformance_service import methods
from jsonrpc_amqp import Client, DeadLetters, Server
from jsonrpc_amqp.cli import INTERRUPTED, STREAM_ERROR, TRANSPORT_ERROR, USAGE_ERROR, main

from ...broker import HOST
from ...cli_tools import one_line
from ...command import COMMAND, PATIENCE, ROOT, run, running
from ...tools import wait_for

# As pip writes it.
SCRIPT = """
import sys
from jsonrpc_amqp.cli import main
if __name__ == '__main__':
    sys.exit(main())
"""


def verbs(group: click.Command = main, *names: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command."""
    if not isinstance(group, click.Group):
        yield names
        return
    for name, command in group.commands.items():
        yield from verbs(command, *names, name)


VERBS = list(verbs())
HELP = [("--version",), ("--help",), *((*words, "--help") for words in VERBS)]
PERMISSIONS = ("permissions", "--service", "s", "--server-user", "a", "--client-user", "b")
WITH_OUTPUT = [*HELP, ("demo",), PERMISSIONS]
# One of each kind: where a command is found and what it imports, each has shown when its output was lost.
KINDS = [("--version",), ("--help",), ("dead", "list", "--help"), ("demo",), PERMISSIONS]


@pytest.fixture(params=["module", "script"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Both ways to start the command."""
    if request.param == "module":
        return COMMAND
    script = tmp_path / "jsonrpc-amqp"
    script.write_text(SCRIPT)
    return [sys.executable, str(script)]


@pytest.fixture
def no_reader() -> Iterator[int]:
    """A pipe whose other end is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def redirected(
    streams: str, *args: str, program: list[str] = COMMAND, url: str = "", stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    """Run it with the redirections of a shell, such as ``<&-``."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {streams}', "sh", *program, *args],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **({"AMQP_URL": url} if url else {})},
        cwd=ROOT,
        timeout=PATIENCE,
    )


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    return one_line(done.stderr.decode())


# -- standard output --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "streams"),
    [*((words, ">/dev/full") for words in WITH_OUTPUT), *((words, ">&-") for words in KINDS)],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_output_that_cannot_be_written(words: tuple[str, ...], streams: str) -> None:
    done = redirected(streams, *words)
    assert done.returncode == STREAM_ERROR
    assert "standard output cannot be written" in said(done)


@pytest.mark.parametrize("words", KINDS, ids=" ".join)
def test_output_without_a_reader_ends_a_command_as_it_ends_others(words: tuple[str, ...], no_reader: int) -> None:
    done = redirected("", *words, stdout=no_reader)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


# With a service and one dead letter, whose key is put for "KEY".
RESULTS = [
    ("call", "subtract", "[3, 2]"),
    ("conformance", "--only", "rpc call of non-existent method"),
    ("dead", "list"),
    ("dead", "show", "KEY"),
    ("dead", "requeue", "KEY", "--unchecked"),
    ("dead", "purge", "KEY"),
]


@pytest.fixture
def key(url: str, service: str) -> Iterator[str]:
    """The key of a dead letter of a service that runs."""
    with (
        Server(url, service, methods=methods, dead_letters=True),
        Client(url, queue=f"{service}_dead") as client,
        DeadLetters(url, service) as letters,
    ):
        client.notify("update", [1])
        yield letters.list()[0].key


@pytest.mark.parametrize("streams", [">/dev/full", ">&-"])
@pytest.mark.parametrize("words", RESULTS, ids=" ".join)
def test_a_result_that_cannot_be_written(
    url: str, service: str, key: str, words: tuple[str, ...], streams: str
) -> None:
    arguments = [key if word == "KEY" else word for word in words]
    done = redirected(streams, *arguments, "--service", service, url=url)
    assert done.returncode == STREAM_ERROR
    assert "What was asked for may be done" in said(done)


@pytest.mark.parametrize("words", RESULTS, ids=" ".join)
def test_a_result_without_a_reader(url: str, service: str, key: str, words: tuple[str, ...], no_reader: int) -> None:
    arguments = [key if word == "KEY" else word for word in words]
    done = redirected("", *arguments, "--service", service, url=url, stdout=no_reader)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


@pytest.mark.parametrize("streams", [">/dev/full", ">&-", "<&- >&- 2>&-"])
def test_what_has_no_output_needs_no_stream(url: str, service: str, key: str, streams: str) -> None:
    done = redirected(streams, "notify", "update", "[1]", "--service", service, url=url)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", [("--version",), ("demo",)], ids=" ".join)
@pytest.mark.parametrize("streams", [">/dev/full", ">&-", "<&- >&-"])
def test_both_ways_to_start_it(program: list[str], words: tuple[str, ...], streams: str) -> None:
    done = redirected(streams, *words, program=program)
    assert done.returncode == STREAM_ERROR
    assert "standard output cannot be written" in said(done)


# -- standard error ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", ["2>/dev/full", "2>&-", "2>&- <&-", ">&- 2>&-", ">/dev/full 2>/dev/full"])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("call", "m", "--service", "s"), TRANSPORT_ERROR),
        (("call", "m"), USAGE_ERROR),
        (("call", "m", "--no-such-option"), USAGE_ERROR),
        (("dead", "purge", "--all", "--service", "s"), USAGE_ERROR),
    ],
    ids=["no broker", "wrong usage", "unknown option", "no terminal"],
)
def test_what_cannot_be_told_still_has_its_exit_code(
    nowhere: str, words: tuple[str, ...], code: int, streams: str
) -> None:
    assert redirected(streams, *words, url=nowhere).returncode == code


@pytest.mark.parametrize("streams", ["2>/dev/full", "2>&-"])
def test_output_is_whole_without_standard_error(streams: str) -> None:
    done = redirected(streams, "demo")
    assert (done.returncode, done.stdout.count(b"\n")) == (0, 5)


# -- standard input ---------------------------------------------------------------------------------------------------

READING = [("call", "m", "-", "--service", "s"), ("call", "m", "--url-file", "-", "--service", "s")]


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A port that accepts connections, and never answers."""
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(PATIENCE)
        yield listener


@pytest.mark.parametrize("streams", ["<&-", "0>/dev/null", "<&- >&-"])
@pytest.mark.parametrize("words", [READING[1], ("notify", *READING[1][1:])], ids=" ".join)
def test_input_that_cannot_be_read(words: tuple[str, ...], streams: str) -> None:
    done = redirected(streams, *words)
    assert done.returncode == STREAM_ERROR
    assert "standard input cannot be read" in said(done)


@pytest.mark.parametrize("data", [b'["\xff"]', b"\xff", b"\0", b""])
@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_input_that_is_not_what_it_should_be(words: tuple[str, ...], data: bytes) -> None:
    done = run(*words, stdin=data, url="memory://")
    assert done.returncode == USAGE_ERROR
    assert one_line(done.stderr)


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_a_terminal_at_its_end(words: tuple[str, ...]) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"\x04")
        done = subprocess.run(
            [*COMMAND, *words],
            stdin=theirs,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "AMQP_URL": "memory://"},
            timeout=PATIENCE,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == USAGE_ERROR
    assert said(done)


# -- an interrupt -----------------------------------------------------------------------------------------------------

SERVE = ("serve", "tests.served:methods", "--service", "s")
CONNECTING = [
    ("call", "m", "--service", "s"),
    ("notify", "m", "--service", "s"),
    ("conformance", "--service", "s"),
    ("dead", "list", "--service", "s"),
    ("dead", "show", "abcd", "--service", "s"),
    ("dead", "requeue", "--all", "--service", "s"),
    ("dead", "purge", "abcd", "--service", "s"),
]


@pytest.mark.parametrize("words", CONNECTING, ids=" ".join)
def test_an_interrupted_command(silent: socket.socket, words: tuple[str, ...]) -> None:
    url = f"amqp://{HOST}:{silent.getsockname()[1]}?connection_timeout=60000"
    with running(*words, url=url) as program:
        connection, _ = silent.accept()
        with connection:
            connection.settimeout(PATIENCE)
            assert connection.recv(8) == b"AMQP\0\0\x09\x01"
            program.process.send_signal(signal.SIGINT)
            assert (program.wait(), program.output) == (INTERRUPTED, "")


def test_a_command_that_reads_is_interrupted() -> None:
    reader, writer = os.pipe()
    with subprocess.Popen(
        [*COMMAND, "call", "m", "--url-file", "-", "--service", "s"], stdin=reader, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        os.close(reader)
        os.write(writer, b"x" * 200_000)
        # It has read all of that, and waits for more: Python may overlook a signal between the two.
        wait_for(lambda: _unread(writer) == 0 and _sleeps(process.pid), PATIENCE)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(PATIENCE) == INTERRUPTED
        finally:
            os.close(writer)
        assert process.stderr is not None
        assert process.stderr.read() == b""


def _unread(pipe: int) -> int:
    """Return how many bytes are in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def _sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_serve_that_is_interrupted_while_it_imports(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("print('importing', flush=True)\nimport time\ntime.sleep(60)\n")
    with running("serve", "slow", "--service", "s", cwd=tmp_path) as program:
        program.wait_until_said("importing\n")
        program.process.send_signal(signal.SIGINT)
        assert (program.wait(), program.output) == (INTERRUPTED, "importing\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (SERVE, "next attempt"),
        (("bridge", "--service", "s", "--to", "http://127.0.0.1:1/"), "next attempt"),
        (("gateway", "--listen", "127.0.0.1:0"), "serving nothing at"),
    ],
    ids=["serve", "bridge", "gateway"],
)
def test_what_serves_drains_at_an_interrupt(nowhere: str, words: tuple[str, ...], said: str) -> None:
    with running(*words, url=nowhere) as program:
        program.wait_until_said(said)
        program.process.send_signal(signal.SIGINT)
        assert program.wait() == 0
        assert "Traceback" not in program.output


# -- what serves ------------------------------------------------------------------------------------------------------

CLOSED = [" ".join(each) for count in range(1, 4) for each in combinations(("<&-", ">&-", "2>&-"), count)]
FULL = ">/dev/full 2>/dev/full"
WORKERS = ["--workers", "2"]


# Workers have the streams of their parent, which has had them as one process has: all closed, and all full.
@pytest.mark.parametrize(
    ("workers", "streams"),
    [*(([], each) for each in (*CLOSED, FULL)), (WORKERS, CLOSED[-1]), (WORKERS, FULL)],
    ids=lambda value: value if isinstance(value, str) else "workers" if value else "one",
)
def test_serve(url: str, service: str, streams: str, workers: list[str]) -> None:
    command = [*COMMAND, "serve", "tests.served:methods", "--service", service, *workers]
    with running("-c", f'exec "$@" {streams}', "sh", *command, program=["sh"], url=url) as program:
        done: list[subprocess.CompletedProcess[str]] = []

        def is_served() -> bool:
            assert program.process.poll() is None, program.output
            done[:] = [run("call", "process", "[1]", "--service", service, "--timeout", "5", url=url)]
            return done[0].returncode == 0

        wait_for(is_served, PATIENCE)
        pid, _number = json.loads(done[0].stdout)
        for each in {pid, program.pid}:
            open_files = {name: os.readlink(f"/proc/{each}/fd/{name}") for name in ("0", "1", "2")}
            assert not [path for path in open_files.values() if path.startswith(("pipe:", "socket:"))], open_files
        assert program.terminate() == 0


def test_a_method_that_prints_without_standard_output(url: str, service: str, tmp_path: Path) -> None:
    (tmp_path / "printing.py").write_text("def hello():\n    print('x' * 100_000)\nmethods = {'hello': hello}\n")
    command = [*COMMAND, "serve", "printing:methods", "--service", service]
    with running("-c", 'exec "$@" >&-', "sh", *command, program=["sh"], url=url, cwd=tmp_path) as program:
        program.wait_until_said(": serving '")
        assert run("call", "hello", "--service", service, url=url).returncode == 0
        assert program.terminate() == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_a_method_prints_is_not_lost(url: str, service: str, tmp_path: Path, unbuffered: str) -> None:
    (tmp_path / "printing.py").write_text("def hello():\n    print('printed', end='')\nmethods = {'hello': hello}\n")
    env = {"PYTHONUNBUFFERED": unbuffered}
    with running("serve", "printing:methods", "--service", service, url=url, cwd=tmp_path, env=env) as program:
        program.wait_until_said(": serving '")
        assert run("call", "hello", "--service", service, url=url).returncode == 0
        assert ("printed" in program.output) is bool(unbuffered)
        assert program.terminate() == 0
        assert "printed" in program.output
