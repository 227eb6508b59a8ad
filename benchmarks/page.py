"""Writes docs/performance.md from the results of a run and the prose in performance.md.in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from .optimizations import optimization_table
from .samples import Results
from .tables import goal_table, missed, suite_tables

TITLES = {
    "latency": "Latency, one call at a time",
    "cpu": "CPU time of a call, 256 in flight",
    "inflight": "Throughput against calls in flight",
    "clients": "Client processes",
    "services": "Services that one client calls",
    "bodies": "Size of bodies",
    "backlog": "Calls waiting in the queue",
    "pending": "Other pending calls of the client",
}
"""Titles of the plots, by the names of their files."""

TEMPLATE = Path(__file__).with_name("performance.md.in")
# The goals are for this many; after a shorter run the page says that its figures are rough.
_ROUNDS, _SECONDS = 3, 3.0


def write(results: Results, page: Path) -> None:
    """
    Write the page, its plots and the raw results.

    Args:
        results: The run.
        page: The file; plots and JSON go to the folder of the same name beside it.
    """
    from . import plots  # imported here since it needs matplotlib

    folder = page.with_suffix("")
    made = plots.write(results, folder)
    results.write(folder / "results.json")
    page.write_text(document(results, [path.stem for path in made], folder.name), encoding="utf-8")


def document(results: Results, made: list[str], folder: str) -> str:
    """
    Return the text of the page.

    Args:
        results: The run.
        made: The names of the plots.
        folder: Their folder, relative to the page.
    """
    about = results.about
    pictures = [f"### {TITLES[name]}\n\n![{TITLES[name]}]({folder}/{name}.svg)" for name in made]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        warning=_warning(results),
        others=_others(results),
        apart=_apart(results),
        goals=goal_table(results),
        missed=missed(results),
        plots="\n\n".join(pictures),
        optimizations=optimization_table(results),
        tables=suite_tables(results),
        raw=f"{folder}/results.json",
        commit=_commit(about),
        date=about["date"],
        machine=about["machine"],
        versions=", ".join(f"{name} {version}" for name, version in about["versions"].items()),
        peers=", ".join(about["peers"]),
        rounds=about["rounds"],
        seconds=f"{about['seconds']:g}",
    )


def _commit(about: Mapping[str, Any]) -> str:
    return f"{about['commit']}{' with changes' if about['changed'] else ''}"


def _apart(results: Results) -> str:
    """Return a sentence for each suite that another run measured, with a space before it."""
    return "".join(
        f" The suite `{suite}` was measured apart from the others, at {_commit(run)} on {run['date']}, in "
        f"{run['rounds']} rounds of {run['seconds']:g} s; others kept {_others(results, suite)} cores busy meanwhile."
        for suite, run in results.apart.items()
    )


def _others(results: Results, suite: str | None = None) -> str:
    of = results.other_cores(suite)
    return "an unknown number of" if of is None else f"{of.median:.1f} (at most {of.high:.1f})"


def _warning(results: Results) -> str:
    about = results.about
    if "note" in about:
        return f"> {about['note']}\n"
    if about["rounds"] >= _ROUNDS and about["seconds"] >= _SECONDS:
        return ""
    return (
        f"> **A short run**: {about['rounds']} round(s) of {about['seconds']:g} s. It shows that the harness works; "
        f"the goals are for {_ROUNDS} rounds of {_SECONDS:g} s.\n"
    )
