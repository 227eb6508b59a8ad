"""Tests in tests/unit fail when they wait, connect or ask for a broker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..command import ROOT
from ..unit import conftest

CASES = {
    "slept": ("", "import time; time.sleep(0.011)", "a unit test slept 0.011 s"),
    "connected": ("", "import socket; socket.create_connection(('127.0.0.1', 9))", "a unit test connected to"),
    "url": ("url", "pass", "unit tests run without a broker"),
    "second_broker": ("second_broker", "pass", "unit tests run without a broker"),
    "fragile": ("fragile", "pass", "unit tests run without a broker"),
}
ALLOWED = """
import asyncio, time, socket

def test_short_sleep():
    time.sleep(0.01)

def test_local_sockets():
    near, far = socket.socketpair()
    near.close(), far.close()
    asyncio.run(asyncio.sleep(0))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The output of pytest for a file of such tests, with the fixtures of tests/unit."""
    folder = tmp_path_factory.mktemp("unit")
    (folder / "conftest.py").write_text(Path(conftest.__file__).read_text("utf-8"))
    tests = (f"def test_{name}({argument}):\n    {line}\n" for name, (argument, line, _) in CASES.items())
    (folder / "test_it.py").write_text(ALLOWED + "\n".join(tests))
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "setup.cfg"), "--rootdir", str(folder)]
    command += ["-p", "no:cacheprovider", "-p", "tests.conftest", str(folder)]
    # Lines of the summary are cut to the width of the terminal.
    env = {**os.environ, "COLUMNS": "500"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.parametrize("name", CASES)
def test_what_needs_more_fails_and_says_why(report: str, name: str) -> None:
    assert re.search(rf"test_it\.py::test_{name} - Failed: {CASES[name][2]}", report)


def test_all_else_passes(report: str) -> None:
    assert "2 passed" in report
