"""A benchmark's table in short, as Markdown: per size and k what each method takes at a recall.

    python -m benchmark.results.summary DIR [--recall 0.95]

Owns that page. What is best is decided per method over its parameters; a dash means that none of
them reached the recall.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmark.results.outcome import Outcome, Status
from benchmark.results.table import read_table

COLUMNS = (
    *("method", "all: seconds", "recall", "build s", "queries/s one by one", "p99 ms"),
    *("queries/s in batches", "index MiB", "peak MiB"),
)
MIB = 2**20


def summary(directory: Path, recall: float) -> str:
    """The page of the benchmark in `directory`."""
    outcomes = read_table(directory)
    facts = json.loads((directory / "bench.json").read_bytes())
    measured = [one for one in outcomes if one.measured and not one.memory_limit_bytes]
    parts = [_circumstances(facts, outcomes, recall)]
    for n, k in sorted({(one.n, one.k) for one in measured}):
        parts.append(_section([one for one in measured if (one.n, one.k) == (n, k)], recall))
    parts.append(_without_figures(outcomes))
    return "\n\n".join(part for part in parts if part) + "\n"


def _circumstances(facts: dict[str, Any], outcomes: Sequence[Outcome], recall: float) -> str:
    data, machine = facts["data"], facts["machines"][0]
    libraries = ", ".join(
        f"{library['name']} {library['version']} ({library['package']})"
        for library in facts["libraries"]
        if library["version"]
    )
    days = sorted({one.measured_at[:10] for one in outcomes if one.measured_at})
    return (
        f"# {data['name']}: {data['whole']:,} x {data['d']}, {data['space']}\n\n"
        f"{machine['processor']['model']}, {facts['settings']['threads']} threads, "
        f"{' to '.join(dict.fromkeys((days[0], days[-1]))) if days else ''}; {libraries}.\n\n"
        f"Per method the fastest parameters that reach recall {recall}. `all` is build plus search "
        "of every row; peak memory is that of the process that took more, building or asking."
    )


def _section(here: Sequence[Outcome], recall: float) -> str:
    lines = [
        f"## {here[0].n:,} rows, k = {here[0].k}",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    good = [one for one in here if (one.recall or 0) >= recall]
    rows = [
        _cells(method, [one for one in good if one.method == method])
        for method in sorted({one.method for one in here})
    ]
    lines += [f"| {' | '.join(cells)} |" for _, cells in sorted(rows)]
    return "\n".join(lines)


def _cells(method: str, mine: Sequence[Outcome]) -> tuple[float, tuple[str, ...]]:
    """Seconds to sort by, and the cells of a row."""
    every = _best(mine, "all", lambda one: one.batch == 0, lambda one: -(one.total_s or 0))
    single = _best(mine, "queries", lambda one: one.batch == 1, lambda one: one.qps or 0)
    batched = _best(mine, "queries", lambda one: one.batch > 1, lambda one: one.qps or 0)
    total = float("inf") if every.total_s is None else every.total_s
    peaks = [peak for one in (every, single) for peak in (one.peak_bytes, one.build_peak_bytes)]
    return total, (
        method,
        _number(every.total_s),
        _number(every.recall),
        _number(every.build_s),
        _number(single.qps),
        _number(single.p99_ms),
        _number(batched.qps),
        _number(_mebibytes(every.index_bytes or single.index_bytes)),
        _number(_mebibytes(max((peak for peak in peaks if peak), default=None))),
    )


NOTHING = Outcome("", "l2", 0, 0, 0, "all", 0, "", "", "", 0)
"""Stands where no parameters reached the recall."""


def _best(
    mine: Sequence[Outcome],
    workload: str,
    fits: Callable[[Outcome], bool],
    merit: Callable[[Outcome], float],
) -> Outcome:
    fitting = (one for one in mine if one.workload == workload and fits(one))
    return max(fitting, key=merit, default=NOTHING)


def _mebibytes(amount: int | None) -> float | None:
    return None if amount is None else amount / MIB


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _without_figures(outcomes: Sequence[Outcome]) -> str:
    """How often, and why, there are no figures."""
    counted = Counter(
        (one.method, one.n, str(one.status), one.reason)
        for one in outcomes
        if one.status is not Status.OK
    )
    if not counted:
        return ""
    lines = [
        "## Without figures",
        "",
        "| method | rows | status | why | points |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {method} | {n:,} | {status} | {reason} | {count} |"
        for (method, n, status, reason), count in sorted(counted.items())
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--recall", type=float, default=0.95)
    given = parser.parse_args()
    print(summary(given.directory, given.recall), end="")


if __name__ == "__main__":
    main()
