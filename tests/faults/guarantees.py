"""
Write docs/guarantees.md from the counts of the cases: ``python -m tests.faults.guarantees TALLY docs/guarantees.md``.

``TALLY`` is the file that ``FAULTS_TALLY`` named: a line of JSON (``tally.Record``) for each case that passed.
The prose is in guarantees.md.in; all figures come from the tally.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import Template

from .tally import Record

TEMPLATE = Path(__file__).with_name("guarantees.md.in")
COLUMNS = (
    "case",
    "fault",
    "what must hold",
    "mechanism",
    "test",
    "rounds",
    "observed effect",
    "calls and notifications",
    "lost",
    "hung, late, wrong",
    "worst time, and bound",
    "by client and server",
)


def read(lines: Iterable[str]) -> list[Record]:
    """Return the last record of each key, by file, and then in the order in which the keys first appear."""
    records = [Record(**json.loads(line)) for line in lines if line.strip()]
    # Several processes write them, each those of its files.
    return sorted({record.key: record for record in records}.values(), key=lambda each: each.test.partition("::")[0])


def document(records: Sequence[Record]) -> str:
    """Return the text of docs/guarantees.md."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(_cells, records)]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        table="\n".join(f"| {' | '.join(row)} |" for row in rows),
        environment="; ".join(sorted({record.environment for record in records})),
        cases=len(records),
        rounds=sum(record.rounds for record in records),
        results=_number(sum(record.results for record in records)),
        errors=_number(sum(sum(record.errors.values()) for record in records)),
        confirmed=_number(sum(record.confirmed for record in records)),
        ends=_all_ends(records),
    )


def _all_ends(records: Sequence[Record]) -> str:
    """Say what was counted of each kind of client and of server, and which cases had only one kind of both."""
    totals: dict[str, Counter[str]] = {}
    for record in records:
        for pair, outcomes in record.ends.items():
            totals.setdefault(pair, Counter()).update(outcomes)
    said = [f"- {line}" for line in _ends(totals)]
    if older := sum(not record.ends for record in records):
        said.append(f"- {older} of the cases were counted with `Client` and methods on threads only.")
    return "\n".join(said)


def _ends(counted: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    for pair, outcomes in sorted(counted.items()):
        counts = [
            f"{_number(outcomes[outcome])} {outcome}"
            for outcome in ("results", "errors", "cancelled")
            if outcomes.get(outcome)
        ]
        if outcomes.get("confirmed"):
            counts.append(f"{_number(outcomes.get('lost', 0))} of {_number(outcomes['confirmed'])} lost")
        yield f"{pair}: {', '.join(counts)}"


def _cells(record: Record) -> tuple[str, ...]:
    lost = f"{record.lost} of {_number(record.confirmed)}" if record.confirmed else "none sent"
    worst = [f"{what} {seconds:g} of {bound:g} s" for what, (seconds, bound) in record.worst.items()]
    cells = (
        f"`{record.key}`",
        record.fault,
        record.bound,
        record.mechanism,
        f"`{record.test}`",
        str(record.rounds),
        _list(f"{_number(count)} {what}" for what, count in record.bites.items()),
        _list([f"{_number(record.results)} results", *_errors(record)]),
        lost,
        f"{record.hung}, {record.late}, {record.wrong}",
        _list(worst),
        _list(_ends(record.ends)),
    )
    return tuple(cell.replace("|", r"\|") for cell in cells)


def _errors(record: Record) -> list[str]:
    # The most frequent first; by name where they are equally frequent.
    errors = sorted(Counter(record.errors).items(), key=lambda each: (-each[1], each[0]))
    return [f"{_number(count)} `{kind}`" for kind, count in errors]


def _list(items: Iterable[str]) -> str:
    return "<br>".join(items)


def _number(count: int) -> str:
    return f"{count:,}"


if __name__ == "__main__":
    tally, target = map(Path, sys.argv[1:])
    target.write_text(document(read(tally.read_text(encoding="utf-8").splitlines())), encoding="utf-8")
