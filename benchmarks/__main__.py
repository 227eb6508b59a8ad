"""``python -m benchmarks``: see README.md here."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import click

from tests.broker import Broker

from .cases import CASES
from .lab import Lab, listener, note
from .optimizations import SUITE as OPTIMIZATIONS
from .optimizations import optimization_table
from .page import write
from .runner import about, check, run, server_version
from .samples import Results
from .suites import SUITES
from .tables import goal_table, missed, suite_tables


@click.group(help="Measure jsonrpc_amqp, its floors and other libraries.")
def main() -> None: ...


@main.command("run")
@click.argument("suites", nargs=-1, type=click.Choice(list(SUITES)))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Figures are medians over rounds.")
@click.option("--seconds", default=3.0, show_default=True, type=click.FloatRange(0.05), help="For one measurement.")
@click.option("--only", default="", help="Cases, separated by commas; see `cases`.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON with all samples.")
@click.option("--url", default="", help="The broker; by default a private node is started.")
def run_suites(suites: tuple[str, ...], rounds: int, seconds: float, only: str, out: Path, url: str) -> None:
    """Measure SUITES, or all of them. Print the goals, and a table for each suite."""
    with ExitStack() as stack:
        lab = _lab(stack, url, seconds, [each for each in only.split(",") if each])
        try:
            check(lab)
        except ValueError as exc:
            raise click.UsageError(str(exc)) from exc
        results = Results(about(lab, rounds=rounds, broker=server_version(lab)))
        run(lab, suites or list(SUITES), rounds=rounds, results=results, out=out)
    results.write(out)
    _show(results)


@main.command("show")
@click.argument("results", type=click.Path(path_type=Path, exists=True))
def show(results: Path) -> None:
    """Print the tables of a run."""
    _show(_read(results))


@main.command("replace")
@click.argument("results", type=click.Path(path_type=Path, exists=True))
@click.argument("run", type=click.Path(path_type=Path, exists=True))
def replace(results: Path, run: Path) -> None:
    """Take the figures of RUN for the suites that it has into RESULTS, of which the other suites stay."""
    merged = _read(results)
    merged.replace_suites(_read(run))
    merged.write(results)


@main.command("page")
@click.argument("results", type=click.Path(path_type=Path, exists=True))
@click.argument("page", type=click.Path(path_type=Path))
def page(results: Path, page: Path) -> None:
    """Write PAGE (docs/performance.md), and plots and raw results to the folder of the same name."""
    try:
        write(_read(results), page)
    except ImportError as exc:
        raise click.ClickException(f"{exc}: pip install '.[bench]'") from exc
    note(f"wrote {page}, and {page.with_suffix('')}/")


@main.command("cases")
def cases() -> None:
    """List the cases; * marks those that are measured by default."""
    for case in CASES.values():
        click.echo(f"{'*' if case.default else ' '} {case.name:28} {case.kind}")


def _lab(stack: ExitStack, url: str, seconds: float, only: list[str]) -> Lab:
    if url:
        if (pid := listener(url)) is None:
            note("the broker's CPU time is not counted: its process is not visible here")
        return Lab(url, pid, seconds, only)
    broker = stack.enter_context(Broker())
    return Lab(broker.url, broker.pid, seconds, only)


def _read(path: Path) -> Results:
    try:
        return Results.read(path)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc


def _show(results: Results) -> None:
    click.echo(f"{suite_tables(results)}\n\n### Goals\n\n{goal_table(results)}\n\n{missed(results)}")
    if results.cases(OPTIMIZATIONS):
        click.echo(f"\n### Optimisations\n\n{optimization_table(results)}")


if __name__ == "__main__":
    sys.exit(main())
