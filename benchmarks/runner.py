"""Runs rounds: each suite in turn, every other round backwards. Also describes the machine and the versions."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .cases import CASES, REQUIREMENTS, Missing, java_version
from .lab import Experiment, Lab, note
from .processes import ROOT
from .samples import Results, Sample
from .suites import SUITES

_OURS = ("jsonrpc-amqp", "kombu", "amqp", "msgspec", "jsonrpcserver", "jsonrpcclient")


def run(lab: Lab, suites: Sequence[str], *, rounds: int, results: Results, out: Path | None = None) -> None:
    """
    Measure.

    Args:
        lab: The broker and the options.
        suites: Names of suites.
        rounds: Each round runs all suites, so that a change in other load affects all cases alike.
        results: Takes the samples.
        out: A file that is rewritten after each case, so that an interrupted run is not lost.
    """
    missing: set[str] = set()
    for number in range(rounds):
        for suite in suites:
            experiments = SUITES[suite](lab)
            for experiment in experiments if number % 2 == 0 else reversed(experiments):
                if experiment.case in missing:
                    continue
                for sample in _take(lab, suite, experiment, number):
                    results.samples.append(sample)
                    if sample.error is not None and sample.error.startswith(_MISSING):
                        missing.add(experiment.case)
                if out is not None:
                    results.write(out)


_MISSING = "not measured: "


def _take(lab: Lab, suite: str, experiment: Experiment, number: int) -> Iterator[Sample]:
    began = time.monotonic()
    params: dict[str, int] = {}
    case = experiment.case
    try:
        for params, values in experiment.take(lab):
            yield Sample(suite, case, number, params, values)
            what = " ".join(f"{name}={value}" for name, value in params.items())
            rate = f"{values['rate']:,.0f}/s" if "rate" in values else ""
            note(f"round {number} {suite} {case} {what} {rate}")
    except Missing as exc:
        note(f"round {number} {suite} {case}: {exc}")
        yield Sample(suite, case, number, error=f"{_MISSING}{exc}")
    except Exception as exc:  # measure the other cases all the same; the page says what is missing and why
        after = f"after {' '.join(f'{name}={value}' for name, value in params.items())}: " if params else ""
        note(f"round {number} {suite} {case}: {exc!r} after {time.monotonic() - began:.0f} s")
        yield Sample(suite, case, number, error=f"{after}{exc}")


def about(lab: Lab, *, rounds: int, broker: str) -> dict[str, Any]:
    """
    Return the commit, the options, the machine and the versions, for ``Results``.

    Args:
        lab: The broker and the options.
        rounds: The number of rounds.
        broker: The version of RabbitMQ.
    """
    return {
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "changed": bool(_git("status", "--porcelain", "--", "jsonrpc_amqp", "benchmarks")),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "rounds": rounds,
        "seconds": lab.seconds,
        "cores": os.cpu_count(),
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB, {platform.system()} "
        f"{platform.release()}",
        "versions": {"RabbitMQ": broker, platform.python_implementation(): platform.python_version(), **_libraries()},
        "peers": [*sorted(each for pins in REQUIREMENTS.values() for each in pins), f"amqp-client=={java_version()}"],
    }


def server_version(lab: Lab) -> str:
    """Return the version of the broker."""
    with lab.channel() as channel:
        properties = channel.connection.server_properties
        return f"{properties.get('version', 'of some version')}"


def check(lab: Lab) -> None:
    """
    Check that the cases exist.

    Raises:
        ValueError: There is no such case.
    """
    unknown = [name for name in lab.only if name not in CASES]
    if unknown:
        raise ValueError(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")


def _libraries() -> dict[str, str]:
    found = {}
    for name in _OURS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
