"""The counts of a case, and the checks that they are as promised."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .ends import AnyClient, Target, kind_of
from .traffic import Traffic

# For the notifications that are still in the queue when the callers have stopped.
_PATIENCE = 15.0


@dataclass
class Record:
    """
    One row of docs/guarantees.md.

    Attributes:
        bites: The observed effects of the fault, by kind.
        worst: The longest time of each kind, in seconds, and its promised bound.
        ends: How calls and notifications ended, for each kind of client and of server: "results", "errors",
            "cancelled", "confirmed", "lost".
    """

    key: str
    fault: str
    bound: str
    mechanism: str
    test: str
    rounds: int = 0
    results: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    bites: dict[str, int] = field(default_factory=dict)
    confirmed: int = 0
    lost: int = 0
    hung: int = 0
    late: int = 0
    wrong: int = 0
    worst: dict[str, tuple[float, float]] = field(default_factory=dict)
    environment: str = ""
    ends: dict[str, dict[str, int]] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Append this record as one line of JSON."""
        with path.open("a") as file:
            file.write(json.dumps(asdict(self)) + "\n")


class Case:
    """
    One fault, injected a number of times.

    Args:
        repeats: The number of rounds.
        breath: Seconds without a fault before each round.
    """

    def __init__(self, record: Record, repeats: int, *, breath: float = 0.0) -> None:
        self.record = record
        self.repeats = repeats
        self._breath = breath

    def rounds(self) -> Iterator[int]:
        """Yield the number of each round, and count the rounds that were completed."""
        for number in range(self.repeats):
            time.sleep(self._breath)
            yield number
            self.record.rounds += 1

    def bit(self, what: str, count: int, *, least: int = 1) -> None:
        """Check that the fault had an effect, and count it: a fault without an effect proves nothing."""
        assert count >= least, f"the fault did not bite: {count} {what}"
        self.record.bites[what] = self.record.bites.get(what, 0) + count

    def within(self, what: str, seconds: float, *, bound: float, slack: float) -> None:
        """Check a time against its bound; the slack is for a busy machine."""
        worst = max(seconds, self.record.worst.get(what, (0.0, bound))[0])
        self.record.worst[what] = (round(worst, 2), bound)
        assert seconds <= bound + slack, f"{what}: {seconds:.2f} s, promised are {bound:g} s (slack {slack:g} s)"

    def ended(self, client: AnyClient | str, target: Target | str, outcome: str, *, error: str = "") -> None:
        """Count a call that a case makes itself, by the kinds of its ends; an error by its class, too."""
        self._count(_pair(client, target), outcome)
        if outcome == "results":
            self.record.results += 1
        if error:
            self.record.errors[error] = self.record.errors.get(error, 0) + 1

    def account(self, traffic: Traffic) -> None:
        """Add the counts of traffic that has ended; fail if a call did not end as promised."""
        record, errors = self.record, Counter(self.record.errors)
        record.results += traffic.count("results")
        errors.update(traffic.errors)
        record.errors = dict(errors)
        record.confirmed += len(traffic.confirmed)
        record.late += len(traffic.late)
        record.wrong += len(traffic.wrong)
        record.hung += traffic.hung
        for pair, outcomes in traffic.outcomes.items():
            for outcome, count in outcomes.items():
                self._count(pair, outcome, count)
        assert not traffic.hung, f"{traffic.hung} callers hang"
        assert not traffic.wrong, f"wrong: {traffic.wrong[:5]}"
        assert not traffic.late, f"ended after their deadline: {traffic.late[:5]}"
        idle = [pair for pair, outcomes in traffic.outcomes.items() if not outcomes["results"]]
        assert not idle, f"no call of these succeeded, so that nothing is known about them: {idle}"

    def account_for_lost(self, traffic: Traffic, handled: set[int]) -> None:
        """Check that confirmed notifications are handled eventually, and those reported as not run are not."""
        confirmed = traffic.confirmed
        give_up = time.monotonic() + _PATIENCE
        while not confirmed.keys() <= handled and time.monotonic() < give_up:
            time.sleep(0.01)
        self.account_for_missing(traffic, confirmed.keys() - handled)
        untrue = traffic.not_run & handled
        self.record.wrong += len(untrue)
        assert not untrue, f"said not to have run, and did: {sorted(untrue)[:10]}"

    def account_for_missing(self, traffic: Traffic, lost: set[int]) -> None:
        """Count the confirmed notifications that were not handled, and fail if there are any."""
        self.record.lost += len(lost)
        by_pair = Counter(traffic.confirmed[number] for number in lost)
        for pair, count in by_pair.items():
            self._count(pair, "lost", count)
        assert not lost, (
            f"{len(lost)} of {len(traffic.confirmed)} confirmed notifications are lost: {sorted(lost)[:10]}, {by_pair}"
        )

    def _count(self, pair: tuple[str, str], outcome: str, count: int = 1) -> None:
        outcomes = self.record.ends.setdefault(" to ".join(pair), {})
        outcomes[outcome] = outcomes.get(outcome, 0) + count


def _pair(client: AnyClient | str, target: Target | str) -> tuple[str, str]:
    return (
        client if isinstance(client, str) else kind_of(client),
        target if isinstance(target, str) else target.kind,
    )
