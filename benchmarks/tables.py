"""Writes results as Markdown: the goals, and a table for each suite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .goals import WHY_MISSED, goals
from .markdown import table as markdown_table
from .samples import Figure, Results

_VERDICTS = {"stretch": "**reached**, stretch too", "reached": "**reached**", "missed": "**missed**"}


class Column(NamedTuple):
    """
    A column of a suite's table.

    Attributes:
        head: Its heading.
        value: The name of the value that it shows.
        form: A format string.
        over: Show multiples of this case's value; empty: show the value.
        spread: Also show the least and the most of all rounds.
    """

    head: str
    value: str
    form: str = "{:,.0f}"
    over: str = ""
    spread: bool = False


_CPU = tuple(Column(f"{who} CPU", f"{who}_cpu_us") for who in ("client", "server", "broker"))
_TIMES = (Column("p50 µs", "p50_us"), Column("p99 µs", "p99_us"))
_RATE = Column("calls/s", "rate", spread=True)
_OF_FLOOR = Column("of C topic", "rate", "{:.2f}x", over="floor_c_topic", spread=True)


class Table(NamedTuple):
    """
    How to show a suite.

    Attributes:
        suite: Its name.
        title: The heading of its table.
        params: The parameters that identify a row, and the headings of their columns.
        columns: The other columns.
    """

    suite: str
    title: str
    params: dict[str, str]
    columns: tuple[Column, ...]


TABLES = (
    Table("servers", "Several server processes", {"servers": "servers", "in_flight": "in flight"}, ()),
    Table("batch", "Batches", {"batch": "calls in a message", "in_flight": "calls in flight"}, (_RATE, *_TIMES, *_CPU)),
    Table("notify", "Notifications, confirmed", {"in_flight": "in flight"}, (_RATE, *_TIMES, *_CPU)),
    Table(
        "bodies",
        "Bodies",
        {"bytes": "bytes", "in_flight": "in flight"},
        (
            Column("MB/s each way", "bytes_rate", "{:.1f}", spread=True),
            Column("of C topic", "bytes_rate", "{:.2f}x", over="floor_c_topic", spread=True),
            *_TIMES,
            *_CPU,
        ),
    ),
    Table("inflight", "Calls in flight", {"in_flight": "in flight"}, (_RATE, _OF_FLOOR, *_TIMES, *_CPU)),
    Table("clients", "Client processes", {"clients": "clients"}, (_RATE, _OF_FLOOR, *_TIMES, *_CPU)),
    Table("services", "Services called by one client in turn", {"services": "services"}, (_RATE, *_TIMES, *_CPU)),
    Table("backlog", "Calls waiting in the queue", {"depth": "waiting"}, (_RATE, *_CPU)),
    Table(
        "pending",
        "Other pending calls of the client",
        {"pending": "pending"},
        (_RATE, *_TIMES, *_CPU, Column("bytes for each", "call_bytes")),
    ),
    Table(
        "memory",
        "Memory of idle clients, beyond imports",
        {},
        (Column("KiB, the first", "first_bytes", "{:,.0f}"), Column("KiB, each more", "more_bytes", "{:,.0f}")),
    ),
    Table(
        "asyncio",
        "On asyncio",
        {"sleep_ms": "handlers sleep, ms", "in_flight": "in flight"},
        (),
    ),
    Table(
        "http",
        "A call over RabbitMQ (0), through a gateway (1), and through gateway, bridge and an HTTP server (2)",
        {"hops": "through"},
        (
            Column("p50 µs, one at a time", "p50_us"),
            Column("calls/s, 256 in flight", "rate", spread=True),
            Column("gateway CPU", "gateway_cpu_us"),
            Column("bridge CPU", "bridge_cpu_us"),
        ),
    ),
    Table(
        "imports",
        "Imports",
        {},
        (
            Column("nothing, ms", "nothing_ms", "{:.0f}"),
            Column("kombu and its transport, ms", "kombu_ms", "{:.0f}", spread=True),
            Column("jsonrpc_amqp, ms", "package_ms", "{:.0f}", spread=True),
            Column("with what connecting imports, ms", "connecting_ms", "{:.0f}", spread=True),
            *(
                Column(f"{head}, CPU ms", f"{name}_cpu_ms", "{:.0f}")
                for head, name in (("kombu", "kombu"), ("jsonrpc_amqp", "package"), ("with all", "connecting"))
            ),
        ),
    ),
)
# To convert values to the units of their columns.
_FACTORS = {"bytes_rate": 1e-6, "first_bytes": 1 / 1024, "more_bytes": 1 / 1024}


def goal_table(results: Results) -> str:
    """Return the goals: goal, stretch, measured, reached or not."""
    rows = [("measure", "against", "goal", "stretch", "measured", "")]
    for goal in goals(results):
        several = len(goal.parts) > 1
        measured = "<br>".join(
            f"{part.label}: {part.measured()}" if several else part.measured() for part in goal.parts
        )
        verdict = _VERDICTS.get(goal.verdict, "not measured")
        if goal.verdict == "missed" and several:
            verdict += f": {', '.join(part.label for part in goal.parts if part.verdict == 'missed')}"
        if goal.unmeasured:
            verdict += f"; not measured: {', '.join(goal.unmeasured)}"
        rows.append(
            (
                goal.measure,
                goal.against,
                "<br>".join(dict.fromkeys(part.bound(part.goal) for part in goal.parts)),
                "<br>".join(dict.fromkeys(filter(None, (part.bound(part.stretch) for part in goal.parts)))),
                measured,
                verdict,
            )
        )
    return markdown_table(rows)


def missed(results: Results) -> str:
    """Return the goals that were missed, with the reason where it is known."""
    names = [goal.measure for goal in goals(results) if goal.verdict == "missed"]
    if not names:
        return "None of the goals that were measured was missed."
    return "Missed:\n\n" + "\n".join(f"- {name}. {WHY_MISSED.get(name, 'Not yet explained.')}" for name in names)


def suite_tables(results: Results) -> str:
    """Return a table for each suite that was run."""
    parts = [_main(results), *(_suite(results, table) for table in TABLES)]
    failures = results.failures()
    if failures:
        parts.append("### What could not be measured\n\n" + "\n".join(f"- {line}" for line in failures))
    return "\n\n".join(filter(None, parts))


def _main(results: Results) -> str:
    columns = (_RATE, _OF_FLOOR, *_TIMES, *_CPU)
    parts = []
    for in_flight in results.sizes("main", "in_flight"):
        cases = [case for case in results.cases("main") if results.get("main", case, "rate", in_flight=in_flight)]
        rates = {case: results.get("main", case, "rate", in_flight=in_flight) for case in cases}
        cases.sort(key=lambda case: -_median(rates[case]))
        rows = [("", *(column.head for column in columns))]
        rows += [(case, *_cells(results, "main", case, columns, {"in_flight": in_flight})) for case in cases]
        parts.append(f"### {in_flight} in flight\n\n{markdown_table(rows)}")
    return "\n\n".join(parts)


def _suite(results: Results, table: Table) -> str:
    columns = table.columns or (_RATE, *_TIMES, *_CPU, Column("cores used", "cores", "{:.1f}"))
    rows = [("", *table.params.values(), *(column.head for column in columns))]
    seen: dict[tuple[str, tuple[int, ...]], dict[str, int]] = {}
    for sample in results.samples:
        if sample.suite == table.suite and sample.values:
            key = tuple(sample.params.get(name, 0) for name in table.params)
            seen.setdefault((sample.case, key), sample.params)
    for (case, key), params in sorted(seen.items(), key=lambda each: (_order(results, table, each[0][0]), each[0][1])):
        rows.append((case, *(f"{each:,}" for each in key), *_cells(results, table.suite, case, columns, params)))
    return f"### {table.title}\n\n{markdown_table(rows)}" if seen else ""


def _order(results: Results, table: Table, case: str) -> int:
    return results.cases(table.suite).index(case)


def _cells(
    results: Results, suite: str, case: str, columns: Iterable[Column], params: dict[str, int]
) -> tuple[str, ...]:
    return tuple(_cell(results, suite, case, column, params) for column in columns)


def _cell(results: Results, suite: str, case: str, column: Column, params: dict[str, int]) -> str:
    values = results.by_round(suite, case, column.value, **params)
    if column.over:
        of = results.ratio(values, results.by_round(suite, column.over, column.value, **params))
    else:
        of = results.get(suite, case, column.value, **params)
    if of is None:
        return ""
    of = of.scaled(_FACTORS.get(column.value, 1) if not column.over else 1)
    text = column.form.format(of.median)
    if column.spread and of.rounds > 1:
        text += f" ({column.form.format(of.low)}..{column.form.format(of.high)})"
    return text


def _median(of: Figure | None) -> float:
    return 0.0 if of is None else of.median
