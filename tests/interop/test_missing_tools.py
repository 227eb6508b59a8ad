"""If a tool is missing, its tests are skipped, but fail with ``INTEROP_REQUIRED=1``, as in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..command import ROOT

TESTS = ["tests/interop/test_examples.py::test_go", "tests/interop/test_other_peers.py::test_amqp_tools"]


@pytest.mark.parametrize(("required", "outcome"), [("1", "2 errors"), ("0", "2 skipped"), (None, "2 skipped")])
def test_a_missing_tool(tmp_path: Path, required: str | None, outcome: str) -> None:
    # An empty folder, so that no tool is found.
    env = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    env.pop("INTEROP_REQUIRED", None)
    if required is not None:
        env["INTEROP_REQUIRED"] = required
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=150)
    assert outcome in done.stdout, f"{done.stdout}\n{done.stderr}"
    assert (done.returncode == 0) == ("skipped" in outcome)
    assert "go is not installed" in done.stdout
