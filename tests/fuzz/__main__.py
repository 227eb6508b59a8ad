"""
Fuzzes every target for a while: ``tox -e fuzz``, or ``python -m tests.fuzz [TARGET ...]``.

``FUZZ_MINUTES`` (10) is the time for all of them together. Uses atheris if it is installed, otherwise hypothesis, which
is not guided by coverage. Prints a table, and exits with 1 if there are findings, whose inputs are kept in ``.fuzz``.
``FUZZ_WRITE=1`` records the figures for docs/security.md.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ..security import figures
from .targets import TARGETS, seeds

LEFT = Path(".fuzz")
MOST_BYTES = 4096


class Done(NamedTuple):
    """The outcome of fuzzing one target."""

    executions: int
    found: list[str]


def main(chosen: list[str]) -> int:
    if unknown := set(chosen) - set(TARGETS):
        sys.exit(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    names = chosen or list(TARGETS)
    engine = "atheris" if importlib.util.find_spec("atheris") else "hypothesis"
    minutes = float(os.environ.get("FUZZ_MINUTES", "10"))
    print(f"{engine}, {minutes:g} minutes for {len(names)} targets", flush=True)
    done = {name: run(engine, name, minutes * 60 / len(names)) for name in names}
    width = max(map(len, names))
    print(f"{'target':{width}}  {'executions':>12}  found")
    for name, each in done.items():
        print(f"{name:{width}}  {each.executions:12,}  {len(each.found)}")
    print(f"{'all':{width}}  {sum(each.executions for each in done.values()):12,}", flush=True)
    for name, each in done.items():
        for text in each.found:
            print(f"\n-- found by {name}:\n{text}")
    if os.environ.get("FUZZ_WRITE") and not chosen:
        executions = {name: each.executions for name, each in done.items()}
        found = sum(len(each.found) for each in done.values())
        figures.note("fuzz", {"engine": engine, "minutes": minutes, "executions": executions, "found": found})
    return any(each.found for each in done.values())


def run(engine: str, name: str, seconds: float) -> Done:
    """Fuzz one target in a process of its own, since engines and findings may end the process."""
    LEFT.mkdir(exist_ok=True)
    with TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds(name)):
            Path(corpus, str(number)).write_bytes(seed)
        command = [sys.executable, "-m", f"tests.fuzz.with_{engine}", name, str(seconds), corpus, f"{LEFT}/{name}-"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    executions = re.findall(r"stat::number_of_executed_units:\s*(\d+)", done.stderr + done.stdout)
    found = [] if done.returncode == 0 else [(done.stdout + done.stderr)[-4000:]]
    return Done(sum(map(int, executions)), found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
