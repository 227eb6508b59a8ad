"""One target with hypothesis: ``python -m tests.fuzz.with_hypothesis TARGET SECONDS CORPUS PREFIX``."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .resident import Resident
from .targets import TARGETS

_leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_values = st.recursive(_leaves, lambda each: st.lists(each) | st.dictionaries(st.text(max_size=8), each), max_leaves=20)
_MEMBERS = ("jsonrpc", "method", "params", "id", "result", "error", "code", "message", "data", "q", "qid", "version")
_objects = st.dictionaries(
    st.sampled_from(_MEMBERS), _values | st.sampled_from(["2.0", "1.1", "two", "a.b", "fail"]), max_size=6
)
_texts = (_objects | st.lists(_objects, max_size=4)).map(lambda value: json.dumps(value).encode())


def inputs(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Return a strategy for inputs: arbitrary bytes, plausible JSON, and seeds with a part replaced."""
    cut = st.tuples(st.sampled_from(seeds), st.integers(0, 400), st.integers(0, 8), st.binary(max_size=16))
    changed = cut.map(lambda each: each[0][: each[1]] + each[3] + each[0][each[1] + each[2] :])
    return st.binary(max_size=400) | _texts | changed


def main(name: str, seconds: str, corpus: str, prefix: str) -> None:
    logging.disable()
    strategy = inputs([path.read_bytes() for path in Path(corpus).iterdir()])
    until = time.monotonic() + float(seconds)
    executions, resident = 0, Resident()

    @settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def once(data: bytes) -> None:
        nonlocal executions
        if time.monotonic() >= until:
            return  # within a round, which may take minutes where inputs are slow
        executions += 1
        try:
            TARGETS[name](data)
            resident.look(os.getpid())
        except BaseException:
            Path(f"{prefix}last").write_bytes(data)
            raise

    try:
        while time.monotonic() < until:
            once()
    finally:
        print(f"stat::number_of_executed_units: {executions}; grown by {resident.grown >> 20} MiB", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
