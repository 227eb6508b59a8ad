"""The time of the last death, in a file that processes share."""

from __future__ import annotations

import os
import subprocess
import sys
import time

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
