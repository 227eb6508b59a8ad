"""The time of the last death, in a file that processes share."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from jsonrpc_amqp.server.last_death import LastDeath


def test_it_begins_with_its_making_and_moves_on() -> None:
    before = time.monotonic()
    written = LastDeath()
    read = LastDeath(written.descriptor)
    made = read.read()
    assert before <= made <= time.monotonic()
    written.note()
    assert made < read.read() <= time.monotonic()
    os.close(written.descriptor)


def test_another_process_reads_it() -> None:
    written = LastDeath()
    program = (
        "import sys; from jsonrpc_amqp.server.last_death import LastDeath; print(LastDeath(int(sys.argv[1])).read())"
    )
    said = subprocess.check_output(
        [sys.executable, "-c", program, str(written.descriptor)], pass_fds=[written.descriptor]
    )
    assert float(said) == written.read()
    os.close(written.descriptor)


def test_it_needs_no_folder_to_write_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of a container may all be read-only."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    written = LastDeath()
    assert written.read() <= time.monotonic()
    os.close(written.descriptor)


def test_it_is_a_file_where_the_system_has_none_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    written = LastDeath()
    assert written.read() <= time.monotonic()
    assert not os.get_inheritable(written.descriptor)
    os.close(written.descriptor)
