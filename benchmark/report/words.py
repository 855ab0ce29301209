"""Figures as words for people. An absent figure is a dash. Pure."""

import math

from benchmark.results.outcome import Outcome

DASH = "–"
MINUTE, HOUR = 60.0, 3600.0


def seconds(value: float | None) -> str:
    """A duration with the unit that suits it."""
    if value is None:
        return DASH
    if not math.isfinite(value):
        return "unknown"
    for limit, scale, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (120.0, 1.0, "s")):
        if value < limit:
            return f"{number(value * scale)} {unit}"
    if value < 2 * HOUR:
        return f"{number(value / MINUTE)} min"
    return f"{number(value / HOUR)} h"


def amount(size: float | None) -> str:
    """Bytes in MiB or GiB."""
    if size is None:
        return DASH
    if not math.isfinite(size):
        return "unknown"
    mebibytes = size / 2**20
    return f"{number(mebibytes / 1024)} GiB" if mebibytes >= 1024 else f"{number(mebibytes)} MiB"


def number(value: float | None) -> str:
    """Three significant digits, with thousands."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def share(value: float | None) -> str:
    """A recall."""
    return DASH if value is None else f"{value:.4f}"


def interval(value: float | None, low: float | None, high: float | None) -> str:
    """A recall with its 95% interval, where it has a width."""
    if value is None or low is None or high is None or low == high:
        return share(value)
    return f"{value:.4f} (95% {low:.4f} to {high:.4f})"


def added(outcome: Outcome) -> str:
    """What it takes to have 1% more rows in the index, or as many as there were."""
    if outcome.add_s is None:
        return DASH
    way = " (rebuilt)" if outcome.add_way == "rebuild" else ""
    rows = "" if outcome.adds_enough else f" for {outcome.add_rows:,} rows"
    return f"{seconds(outcome.add_s)}{rows}{way}"
