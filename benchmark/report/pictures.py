"""The main charts as PNG, one picture per k, by matplotlib (the extra `bench`).

At the size with most methods, the largest of several: recall against speed, total time, build time
and memory, and the growth of the total time. Without matplotlib there are none. Refuses
interactivity.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmark.report.curves import Curve
from benchmark.report.points import charted, fullest, unbeaten
from benchmark.results.outcome import Outcome
from nearfield.files import atomic_path

COLOURS = ("#0072b2", "#c24e00", "#00785a", "#a03c82", "#806400", "#505860")
MARKERS = ("o", "s", "^", "D", "v", "P", "*")
"""As in the page: six colours and seven shapes, so that neither tells methods apart alone."""
SHORT, LONG = 4.0, 1000.0
"""Ratio of an axis' ends up to which ticks are even, and from which they are powers of ten."""
Value = Callable[[Outcome], float | None]
PANELS: tuple[tuple[str, str, int | None, Value], ...] = (
    ("queries per second, one by one", "queries", 1, lambda one: one.qps),
    ("total time for all, s", "all", None, lambda one: one.total_s),
    ("build time, s", "all", None, lambda one: one.build_s),
    (
        "peak memory, MiB",
        "all",
        None,
        lambda one: max(one.peak_bytes or 0, one.build_peak_bytes or 0) / 2**20,
    ),
)


def picture_name(k: int) -> str:
    """The file of the picture for k, beside the page."""
    return f"report-k{k}.png"


def write_pictures(
    directory: Path, outcomes: Sequence[Outcome], lines: Sequence[Curve], full: int
) -> list[str]:
    """Write a picture per k into `directory`; returns their names, none without matplotlib."""
    try:
        import matplotlib.figure  # noqa: F401  (only whether it is there)
    except ImportError:
        return []
    shown = charted(outcomes)
    methods = sorted({one.method for one in shown})
    styles = {
        method: {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place % len(MARKERS)],
            "markersize": 5,
        }
        for place, method in enumerate(methods)
    }
    names = []
    for k in sorted({one.k for one in shown}):
        n = fullest([one for one in shown if one.k == k])
        figure = _figure([one for one in shown if (one.n, one.k) == (n, k)], styles)
        _growth(figure, [one for one in lines if (one.k, one.cost) == (k, "total")], styles, full)
        figure.suptitle(f"{shown[0].dataset}: {n:,} rows, k = {k:,}".replace("$", r"\$"))
        with atomic_path(directory / picture_name(k)) as temporary:
            figure.savefig(temporary, format="png", dpi=110)
        names.append(picture_name(k))
    return names


def _figure(here: Sequence[Outcome], styles: dict[str, dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(13, 7.5), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    for axes, (title, workload, batch, value) in zip(panels, PANELS, strict=False):
        fitting = [one for one in here if one.workload == workload and batch in (None, one.batch)]
        for method, style in styles.items():
            mine = unbeaten([one for one in fitting if one.method == method and value(one)])
            mine.sort(key=lambda one: one.recall or 0)
            axes.plot([one.recall for one in mine], [value(one) for one in mine], **style)
        axes.set(xlabel="recall", ylabel=title)
        if any(value(one) for one in fitting):
            least = min(one.recall or 0.0 for one in fitting)
            axes.set(yscale="log", xlim=(least - 0.02, 1.005))
            _plain_ticks(axes.yaxis)
        axes.grid(alpha=0.3)
    panels[5].axis("off")
    handles = [Line2D([], [], label=_plain(method), **style) for method, style in styles.items()]
    panels[5].legend(handles=handles, loc="center", ncols=2, frameon=False)
    return figure


def _growth(
    figure: Any, lines: Sequence[Curve], styles: dict[str, dict[str, Any]], full: int
) -> None:
    axes = figure.axes[4]
    for line in lines:
        style = styles[line.method]
        axes.plot(*zip(*line.points, strict=True), linestyle="", **style)
        steps = line.line(full)
        axes.plot([s.n for s in steps], [s.value for s in steps], "--", color=style["color"])
    axes.set(xlabel="rows", ylabel="total time for all at recall 0.95, s")
    axes.axvline(full, color="grey", linewidth=0.8, linestyle=":")
    if lines:
        axes.set(xscale="log", yscale="log")
        _plain_ticks(axes.yaxis)
        _plain_ticks(axes.xaxis)
    axes.grid(alpha=0.3)


def _plain_ticks(axis: Any) -> None:
    """Few ticks of a logarithmic axis, with numbers that are written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    low, high = sorted(axis.get_view_interval())
    if high / low < SHORT:
        axis.set_major_locator(MaxNLocator(3))
    elif high / low < LONG:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _plain(method: str) -> str:
    """A label that matplotlib neither hides (underscore) nor takes for mathematics (dollar)."""
    return method.replace("$", r"\$").lstrip("_")
