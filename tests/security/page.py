"""
Makes docs/security.md from the prose in security.md.in and the figures in figures.json, which the tests record.

``SECURITY_WRITE=1 pytest tests/security tests/abuse`` records the figures, and writes the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

from .attacks import ATTACKS
from .budget import CASES, MOST_BYTES, MOST_NANOSECONDS
from .disruptions import DISRUPTIONS, WAYS
from .http_attacks import HTTP_ATTACKS

TEMPLATE = Path(__file__).with_name("security.md.in")
PAGE = Path(__file__).parents[2] / "docs" / "security.md"
COLUMNS = ("without", "permissions", "checks", "both")
HTTP_COLUMNS = ("without", "with")
MIXED_COLUMNS = ("resident, MiB", "by Python, blocks", "by the C library, MiB")
# Memory growth varies between runs: cases below this, in bytes, are not named.
_LEAST = 1_000_000


def document(figures: dict[str, Any]) -> str:
    """Return the text of docs/security.md."""
    fuzz, abuse, mixed = figures["fuzz"], figures["abuse"], figures["mixed"]
    return Template(TEMPLATE.read_text("utf-8")).substitute(
        version=figures["version"],
        attacks=_table(("attack", "Eve needs to know", *COLUMNS), _attacks(figures["attacks"])),
        disruptions=_table(("attack", "without", *WAYS), _disruptions(figures["disruptions"])),
        http=_table(("attack", *HTTP_COLUMNS), _http_attacks(figures["http"])),
        tls=_table(("what was tried", "how it ends"), (figures["tls"].values())),
        budget=_table(("input", "CPU, ns", "memory, bytes"), _budget(figures["budget"])),
        most_microseconds=f"{MOST_NANOSECONDS / 1000:g}",
        most_bytes=MOST_BYTES,
        requests=abuse["server"]["cases"],
        answers=abuse["client"]["cases"],
        server_growth=f"{abuse['server']['growth'] / 1e6:.1f}",
        server_worst=abuse["server"]["worst"],
        client_growth=f"{abuse['client']['growth'] / 1e6:.1f}",
        client_worst=abuse["client"]["worst"],
        server_slowest=f"{abuse['server']['slowest']:.2g}",
        server_slowest_case=abuse["server"]["slowest_case"],
        client_slowest=f"{abuse['client']['slowest']:.2g}",
        client_slowest_case=abuse["client"]["slowest_case"],
        mixed_messages=f"{mixed['messages']:,}",
        mixed=_table(("process", *MIXED_COLUMNS), _mixed(mixed["processes"])),
        engine=fuzz["engine"],
        minutes=f"{fuzz['minutes']:g}",
        executions=f"{sum(fuzz['executions'].values()):,}",
        found=fuzz["found"],
        fuzz=_table(("target", "executions"), ((f"`{name}`", f"{n:,}") for name, n in fuzz["executions"].items())),
    )


def _attacks(seen: dict[str, dict[str, str]]) -> Iterable[Sequence[str]]:
    for key, attack in ATTACKS.items():
        yield (attack.what, attack.knows, *(seen[key][column] for column in COLUMNS))


def _disruptions(seen: dict[str, dict[str, str]]) -> Iterable[Sequence[str]]:
    for key, disruption in DISRUPTIONS.items():
        yield (disruption.what, *(seen[key][column] for column in ("without", *WAYS)))


def _budget(spent: dict[str, list[float]]) -> Iterable[Sequence[str]]:
    for key, case in CASES.items():
        nanoseconds, size = spent[key]
        yield (case.what, f"{nanoseconds:.0f}", f"{size:.0f}")


def _mixed(processes: dict[str, dict[str, list[float]]]) -> Iterable[Sequence[str]]:
    for name, each in processes.items():
        (resident, blocks, used) = (each[what] for what in ("resident", "blocks", "used"))
        yield (
            name,
            f"{resident[0]:.1f}, {resident[1]:.1f}",
            f"{blocks[0]:,.0f}, {blocks[1]:,.0f}",
            f"{used[0]:.1f}, {used[1]:.1f}",
        )


def _http_attacks(seen: dict[str, dict[str, str]]) -> Iterable[Sequence[str]]:
    for key, attack in HTTP_ATTACKS.items():
        yield (attack.what, *(seen[key][column] for column in HTTP_COLUMNS))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def abused(growth: dict[str, int], slowest: dict[str, float]) -> dict[str, Any]:
    """
    Return the figures of a corpus.

    They are the number of cases, the largest growth of memory, in bytes, and the slowest call of the neighbour, in
    seconds.
    """
    worst = max(growth, key=lambda case: growth[case])
    slowest_case = max(slowest, key=lambda case: slowest[case])
    return {
        "cases": len(growth),
        "growth": growth[worst],
        "worst": worst if growth[worst] >= _LEAST else "no case more",
        "slowest": round(slowest[slowest_case], 3),
        "slowest_case": slowest_case,
    }
