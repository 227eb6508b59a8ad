"""Draws results as plots: small SVGs on white, with text as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter

from .samples import Results

# The markers distinguish lines without colour, too.
_LINES = {
    "floor_c_topic": ("#444444", "s", "C floor, topic"),
    "floor_c_direct": ("#999999", "s", "C floor, direct"),
    "floor_pyamqp_topic_tuned": ("#b8860b", "D", "bare py-amqp, tuned"),
    "ours": ("#1f5fa8", "o", "ours, topic"),
    "ours_direct": ("#2a9d8f", "^", "ours, direct reply"),
    "ours_queue": ("#c1403d", "v", "ours, queue route"),
}
_STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    # Makes the file the same for the same figures.
    "svg.hashsalt": "jsonrpc_amqp",
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_ALL = ("client", "server", "broker")
_THOUSANDS = FuncFormatter(lambda value, _position: f"{value:,.0f}" if value >= 1 else f"{value:g}")


def write(results: Results, folder: Path) -> list[Path]:
    """Write all plots for which there are results, and return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with matplotlib.rc_context(_STYLE):
        for name, plot in PLOTS.items():
            figure = plot(results)
            if figure is not None:
                path = folder / f"{name}.svg"
                figure.savefig(path, bbox_inches="tight", metadata={"Date": None, "Creator": None})
                pyplot.close(figure)
                made.append(path)
    return made


def _latency(results: Results) -> Any:
    """Plot the percentiles of each case, one call at a time."""
    cases = _by("main", "p50_us", results, in_flight=1)
    if not cases:
        return None
    figure, axes = pyplot.subplots(figsize=(6.4, 0.6 + 0.26 * len(cases)))
    marks = (("p50_us", "o", "#1f5fa8", "p50"), ("p90_us", "|", "#1f5fa8", "p90"), ("p99_us", "D", "#c1403d", "p99"))
    for value, marker, colour, label in marks:
        found = [results.get("main", case, value, in_flight=1) for case in cases]
        medians = [each.median / 1000 if each else float("nan") for each in found]
        axes.plot(medians, range(len(cases)), marker, color=colour, markersize=5, label=label)
    for row, case in enumerate(cases):
        ends = [results.get("main", case, value, in_flight=1) for value in ("p50_us", "p99_us")]
        if all(ends):
            axes.plot([each.median / 1000 for each in ends if each], [row, row], color="#bbbbbb", linewidth=1, zorder=1)
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_THOUSANDS)
    axes.set_xlabel("milliseconds, one call at a time")
    axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def _cpu(results: Results) -> Any:
    """Plot the CPU time of a call, stacked by program."""
    cases = _by("main", "client_cpu_us", results, in_flight=256)
    if not cases:
        return None
    cases = sorted(cases, key=lambda case: sum(_used(results, "main", case, {"in_flight": 256}, _ALL)))
    figure, axes = pyplot.subplots(figsize=(6.4, 0.6 + 0.26 * len(cases)))
    left = [0.0] * len(cases)
    for who, colour in (("client", "#1f5fa8"), ("server", "#2a9d8f"), ("broker", "#bbbbbb")):
        found = [results.get("main", case, f"{who}_cpu_us", in_flight=256) for case in cases]
        widths = [each.median if each else 0.0 for each in found]
        axes.barh(range(len(cases)), widths, left=left, color=colour, label=who, height=0.7)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, total in enumerate(left):
        axes.text(total, row, f" {total:,.0f}", va="center", fontsize=8)
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.set_xlabel("CPU microseconds a call, 256 in flight")
    axes.grid(axis="y", visible=False)
    axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def _growth(
    suite: str,
    param: str,
    label: str,
    value: str = "rate",
    unit: str = "calls/s",
    factor: float = 1,
    scale: str = "linear",
) -> Callable[[Results], Any]:
    """Return a function that plots throughput and our CPU time against one parameter."""

    def plot(results: Results) -> Any:
        sizes = results.sizes(suite, param)
        cases = [case for case in _LINES if case in results.cases(suite)]
        if not sizes or not cases:
            return None
        figure, (rate, cpu) = pyplot.subplots(1, 2, figsize=(7.2, 2.6))
        # A logarithmic axis has no 0; put it one step before the other sizes.
        places = {size: size or min(filter(None, sizes)) / 10 for size in sizes}
        for case in cases:
            colour, marker, name = _LINES[case]
            known = {size: each for size in sizes if (each := results.get(suite, case, value, **{param: size}))}
            where = [places[size] for size in known]
            line = {"color": colour, "marker": marker, "markersize": 4}
            rate.plot(where, [each.median * factor for each in known.values()], label=name, **line)
            ends = ([getattr(each, end) * factor for each in known.values()] for end in ("low", "high"))
            rate.fill_between(where, *ends, color=colour, alpha=0.15, linewidth=0)
            costs = {size: sum(_used(results, suite, case, {param: size}, _ALL[:2])) for size in known}
            cpu.plot(where, list(costs.values()), **line)
        for axes in (rate, cpu):
            axes.set_xscale("log")
            axes.set_xticks(list(places.values()), [_size(param, size) for size in sizes])
            axes.set_xlabel(label)
            axes.set_yscale(scale)
            axes.minorticks_off()
            if scale == "linear":
                axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(_THOUSANDS)
        rate.set_ylabel(unit)
        cpu.set_ylabel("client + server CPU µs a call")
        figure.legend(*rate.get_legend_handles_labels(), ncols=3, loc="lower center", bbox_to_anchor=(0.5, 0.96))
        figure.tight_layout()
        return figure

    return plot


def _used(results: Results, suite: str, case: str, params: dict[str, int], who: Sequence[str]) -> list[float]:
    found = [results.get(suite, case, f"{each}_cpu_us", **params) for each in who]
    return [each.median for each in found if each]


def _size(param: str, size: int) -> str:
    if param != "bytes":
        return f"{size // 1000}k" if size >= 1000 and size % 1000 == 0 else str(size)
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def _by(suite: str, value: str, results: Results, **params: int) -> Sequence[str]:
    """Return the cases of a suite, in ascending order of a value."""
    found = {case: results.get(suite, case, value, **params) for case in results.cases(suite)}
    known = {case: each.median for case, each in found.items() if each}
    return sorted(known, key=known.__getitem__)


PLOTS: dict[str, Callable[[Results], Any]] = {
    "latency": _latency,
    "cpu": _cpu,
    "inflight": _growth("inflight", "in_flight", "calls in flight"),
    "clients": _growth("clients", "clients", "client processes, 8 in flight each"),
    "services": _growth("services", "services", "services, 64 in flight"),
    "bodies": _growth("bodies", "bytes", "body", "bytes_rate", "MB/s each way", 1e-6, "log"),
    "backlog": _growth("backlog", "depth", "calls waiting in the queue"),
    "pending": _growth("pending", "pending", "other pending calls of the client"),
}
"""File name: function that draws it."""
