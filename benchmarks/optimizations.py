"""
Whether each optimisation of the threads runtime earns its place: the same calls with it on and off.

*Caller-driven*: a lone synchronous caller drives the client's connection itself. *Inline*: the server runs handlers
that have been quick on the thread that reads. One that gains less than 5 % everywhere is not worth its code.
"""

from __future__ import annotations

from typing import NamedTuple

from .cases import CASES
from .lab import Experiment, Lab, Taken, calls_in_flight, measure
from .markdown import table
from .samples import Figure, Results

SUITE = "optimizations"
IN_FLIGHT = (1, 32, 256)


class Handler(NamedTuple):
    """
    What the method of the server does.

    Attributes:
        sleep_us: Microseconds that it sleeps.
        burn_us: Microseconds of CPU time that it takes.
    """

    sleep_us: int
    burn_us: int

    def __str__(self) -> str:
        if self.burn_us:
            return f"computes {self.burn_us / 1000:g} ms"
        return f"sleeps {self.sleep_us / 1000:g} ms" if self.sleep_us else "returns at once"


HANDLERS = (Handler(0, 0), Handler(200, 0), Handler(0, 200), Handler(1_000, 0), Handler(10_000, 0))

# Both on; one of them off; both off.
BASE = "ours"
NO_CALLER_DRIVEN = "ours_no_caller_driven"
NO_INLINE = "ours_no_inline"
NEITHER = "ours_neither"
_COMPARED = {NO_CALLER_DRIVEN: "caller-driven", NO_INLINE: "inline", NEITHER: "both"}


def optimizations(lab: Lab) -> list[Experiment]:
    """Caller-driven mode and inline handlers on and off, with handlers of 0 to 10 ms."""

    def experiment(name: str, handler: Handler) -> Experiment:
        def take(lab: Lab) -> Taken:
            env = {"BENCH_SLEEP_MS": handler.sleep_us / 1000, "BENCH_BURN_MS": handler.burn_us / 1000}
            with lab.running(CASES[name], lab.new_name(), **env) as start:
                servers, clients = start.servers(), start.clients()
                for in_flight in IN_FLIGHT:
                    figures = measure(lab, clients, servers, calls_in_flight(in_flight), least=in_flight)
                    cpu = figures["client_cpu_us"] + figures["server_cpu_us"]
                    yield {**handler._asdict(), "in_flight": in_flight}, {**figures, "both_cpu_us": cpu}

        return Experiment(name, take)

    cases = lab.wants(BASE, *_COMPARED)
    # The cases of a handler one after the other, so that they share the state of the machine.
    return [experiment(case.name, handler) for handler in HANDLERS for case in cases]


class _Measure(NamedTuple):
    """A figure that is compared; ``sign`` is 1 where more is better, and -1 where less is."""

    value: str
    head: str
    sign: int


_MEASURES = (
    _Measure("p50_us", "p50 µs", -1),
    _Measure("both_cpu_us", "CPU µs a call", -1),
    _Measure("rate", "calls/s", 1),
)


def optimization_table(results: Results) -> str:
    """
    Return a table: a row for each optimisation, handler and number in flight, with each figure on, off, and the gain.

    A gain is taken within a round, as a share of the figure without the optimisation; above 0 is better.
    """
    heads = [head for measure in _MEASURES for head in (f"{measure.head}, on", "off", "gain")]
    rows: list[tuple[str, ...]] = [("optimisation", "handler", "in flight", *heads)]
    for case, title in _COMPARED.items():
        for handler in HANDLERS:
            for in_flight in IN_FLIGHT:
                params = {**handler._asdict(), "in_flight": in_flight}
                cells = [cell for measure in _MEASURES for cell in _compare(results, case, measure, params)]
                if any(cells):
                    rows.append((title, str(handler), str(in_flight), *cells))
    return table(rows) if len(rows) > 1 else "Not measured in this run."


def _compare(results: Results, case: str, measure: _Measure, params: dict[str, int]) -> tuple[str, str, str]:
    on = results.by_round(SUITE, BASE, measure.value, **params)
    off = results.by_round(SUITE, case, measure.value, **params)
    change = results.ratio(on, off)
    if change is None:
        return "", "", ""
    medians = (results.get(SUITE, name, measure.value, **params) for name in (BASE, case))
    shown = [f"{each.median:,.0f}" for each in medians if each is not None]
    return shown[0], shown[1], _gain(change, measure.sign)


def _gain(ratio: Figure, sign: int) -> str:
    # Adding 0.0 turns -0.0 into 0.0.
    middle, *ends = (sign * (value - 1) + 0.0 for value in ratio[:3])
    return f"{middle:+.0%} ({min(ends):+.0%}..{max(ends):+.0%})" if ratio.rounds > 1 else f"{middle:+.0%}"
