"""Samples, one for each case, size and round; their medians, ratios and spread; their file in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Sample:
    """
    One measurement.

    Attributes:
        suite: The suite.
        case: The case.
        round: The number of the round.
        params: What was varied: ``in_flight``, ``servers``, ``bytes`` ...
        values: What was measured: ``rate`` (calls/s), ``p50_us``, ``client_cpu_us`` (per call) ...
        error: Why there are no values.
    """

    suite: str
    case: str
    round: int
    params: dict[str, int] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    error: str | None = None


class Figure(NamedTuple):
    """A median over rounds, and its spread."""

    median: float
    low: float
    high: float
    rounds: int = 1

    def scaled(self, factor: float) -> Figure:
        """Return the figure in another unit."""
        return Figure(self.median * factor, self.low * factor, self.high * factor, self.rounds)


def figure(values: Iterable[float]) -> Figure | None:
    """Return the figure of values, one for each round; None without values."""
    known = sorted(values)
    return Figure(median(known), known[0], known[-1], len(known)) if known else None


class Results:
    """
    All samples of a run.

    Args:
        about: The commit, the machine, the versions, the options of the run.
        samples: In the order in which they were taken.
    """

    def __init__(self, about: dict[str, Any], samples: Iterable[Sample] = ()) -> None:
        self.about = about
        self.samples = list(samples)

    def by_round(self, suite: str, case: str, value: str, **params: int) -> dict[int, float]:
        """Return one value of a case by round; leave out runs with wrong replies."""
        return {
            sample.round: sample.values[value]
            for sample in self.samples
            if (sample.suite, sample.case) == (suite, case)
            and params.items() <= sample.params.items()
            and value in sample.values
            and not sample.values.get("bad")
        }

    def get(self, suite: str, case: str, value: str, **params: int) -> Figure | None:
        """Return one value of a case over all rounds."""
        return figure(self.by_round(suite, case, value, **params).values())

    def ratio(self, ours: dict[int, float], theirs: dict[int, float]) -> Figure | None:
        """
        Return the ratio of two cases, taken within each round, which other load affects less than a ratio of medians.

        Args:
            ours: Values by round, as ``by_round`` returns them.
            theirs: Likewise; the divisors.
        """
        return figure(ours[each] / theirs[each] for each in ours.keys() & theirs.keys() if theirs[each])

    @property
    def apart(self) -> dict[str, dict[str, Any]]:
        """The suites that other runs measured, and what was noted of each run."""
        apart: dict[str, dict[str, Any]] = self.about.get("apart", {})
        return apart

    def other_cores(self, suite: str | None = None) -> Figure | None:
        """Return how many cores other programs kept busy during a suite, or during all but those that are apart."""
        return figure(
            each.values["other_cores"]
            for each in self.samples
            if "other_cores" in each.values
            and (each.suite == suite if suite is not None else each.suite not in self.apart)
        )

    def cases(self, suite: str) -> list[str]:
        """Return the cases of a suite, in the order of the first round."""
        return list(dict.fromkeys(sample.case for sample in self.samples if sample.suite == suite))

    def sizes(self, suite: str, param: str) -> list[int]:
        """Return all values of a parameter."""
        return sorted({each.params[param] for each in self.samples if each.suite == suite and param in each.params})

    def failures(self) -> list[str]:
        """Return a line for each case that could not be measured, or had wrong replies."""
        lines: dict[str, None] = {}
        for sample in self.samples:
            of = ", ".join(f"{name} {value}" for name, value in sample.params.items())
            where = f"{sample.suite}: {sample.case}{f' ({of})' if of else ''}"
            if sample.error is not None:
                lines[f"{where}: {sample.error}"] = None
            elif sample.values.get("bad"):
                lines[f"{where}: {sample.values['bad']:.0f} wrong or missing replies"] = None
        return list(lines)

    def replace_suites(self, run: Results) -> None:
        """
        Take the samples of another run for the suites that it has; ``about["apart"]`` says for each what run that was.

        Args:
            run: The other run.
        """
        suites = dict.fromkeys(sample.suite for sample in run.samples)
        self.samples = [sample for sample in self.samples if sample.suite not in suites] + run.samples
        about = {name: run.about[name] for name in ("commit", "changed", "date", "rounds", "seconds")}
        self.about = {**self.about, "apart": {**self.apart, **dict.fromkeys(suites, about)}}

    def write(self, path: Path) -> None:
        """Write everything as JSON, a line for each sample."""
        lines = ",\n".join(json.dumps(_short(asdict(sample))) for sample in self.samples)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"about": {json.dumps(self.about, indent=1)},\n"samples": [\n{lines}\n]}}\n')

    @classmethod
    def read(cls, path: Path) -> Results:
        """
        Read a file that ``write`` has written.

        Raises:
            ValueError: It is no such file.
        """
        try:
            data = json.loads(path.read_text())
            return cls(data["about"], (Sample(**each) for each in data["samples"]))
        except (OSError, KeyError, TypeError, json.JSONDecodeError) as exc:
            raise ValueError(f"{path} has no results: {exc!r}") from exc


def _short(sample: dict[str, Any]) -> dict[str, Any]:
    # Six digits are more than any measurement here is exact to.
    values = {name: float(f"{value:.6g}") for name, value in sample["values"].items() if value is not None}
    return {**{name: value for name, value in sample.items() if value is not None}, "values": values}
