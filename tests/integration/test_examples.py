"""Every example runs, and shows what it says."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from ..command import COMMAND, ROOT, run, running

EXAMPLES = ROOT / "examples"
PYTHON = [sys.executable]


def lines(example: str, url: str | None = None) -> list[str]:
    done = run(str(EXAMPLES / example), program=PYTHON, url=url)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "words",
    [
        [str(EXAMPLES / "example_broker.py")],
        [*COMMAND[1:], "serve", "examples.example_broker", "--service", "example", "--workers", "3"],
    ],
    ids=["program", "command"],
)
def test_the_recipes_pair(url: str, words: list[str]) -> None:
    with running(*words, program=PYTHON, url=url) as server:
        # The program does not say when it serves; until then the client is told that nobody does.
        while run("call", "time.now", "--service", "example", "--timeout", "5", url=url).returncode != 0:
            assert server.process.poll() is None, server.output
        (answer,) = lines("example_request.py", url)
        assert abs(time.mktime(time.strptime(answer)) - time.time()) < 10
        server.wait_until_said("example_request asks for the time")
        assert server.terminate() == 0


def test_batch() -> None:
    assert lines("batch.py") == ["server: two sums are coming", "3 3000", "Method not found (-32601): 'divide'"]


def test_threads() -> None:
    last, summary = lines("threads.py")
    assert last == str(99 * 99)
    # One after the other they would take 5 s.
    assert float(summary.split()[-2]) < 4


def test_coroutines() -> None:
    last, summary, late = lines("coroutines.py")
    assert last == str(99 * 99)
    # One after the other they would take 5 s.
    assert float(summary.split()[-2]) < 4
    assert late == "too late; 0 calls are pending"


def test_async_worker() -> None:
    three, total, two, late = lines("async_worker.py")
    assert three.startswith("baskets: 3 prices in ")
    assert total == "7.8"
    assert two.startswith("baskets: 2 prices in ")
    assert late == "too late; it may have run: True"


def test_jsonrpcserver_style() -> None:
    assert lines("jsonrpcserver_style.py") == [
        "0.25",
        "-32602 Invalid params b must not be 0",
        "1 not today {'a': 2, 'b': 3}",
    ]


@pytest.mark.parametrize(("example", "count"), [("test_with_memory.py", 3), ("test_async_with_memory.py", 4)])
def test_a_users_unit_tests(example: str, count: int) -> None:
    done = run("-m", "pytest", "-q", str(EXAMPLES / example), program=PYTHON)
    assert done.returncode == 0, done.stdout
    assert f"{count} passed" in done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("[!_]*.py")), ids=lambda path: path.name)
def test_its_header_says_how_to_run_it(path: Path) -> None:
    header = path.read_text().split('"""')[1]
    assert f"examples/{path.name}" in header
