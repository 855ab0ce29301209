"""A benchmark's table in short, as Markdown: per size and k what each method takes at a recall.

    python -m benchmark.results.summary DIR

Owns that page. What is best is decided per method over its parameters; a dash means that none of
the measured ones reached the recall.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmark.results.outcome import LEVELS, UNTRIED, Outcome, Status
from benchmark.results.table import read_table

USUAL = 0.95
COLUMNS = (
    "method",
    *(f"all: s at {level:.2f}" for level in LEVELS),
    *(f"queries/s at {level:.2f}" for level in LEVELS),
    *("in batches", "p95 ms", "p99 ms", "build s", "1% more s", "index MiB", "peak MiB"),
)
MIB = 2**20


def summary(directory: Path) -> str:
    """The page of the benchmark in `directory`."""
    outcomes = read_table(directory)
    facts = json.loads((directory / "bench.json").read_bytes())
    measured = [one for one in outcomes if one.measured and not one.memory_limit_bytes]
    parts = [_circumstances(facts, outcomes)]
    for n, k in sorted({(one.n, one.k) for one in measured}):
        parts.append(_section([one for one in measured if (one.n, one.k) == (n, k)]))
    parts += [
        _first_uses(outcomes),
        _limited(outcomes),
        _without_figures(outcomes),
        _left_out(outcomes),
        _dropped(outcomes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _circumstances(facts: dict[str, Any], outcomes: Sequence[Outcome]) -> str:
    data, machine = facts["data"], facts["machines"][0]
    libraries = ", ".join(
        f"{library['name']} {library['version']} ({library['package']})"
        for library in facts["libraries"]
        if library["version"]
    )
    days = sorted({one.measured_at[:10] for one in outcomes if one.measured_at})
    points = sum(one.measured for one in outcomes)
    threads = facts["settings"]["threads"]
    return (
        f"# {data['name']}: {data['whole']:,} x {data['d']}, {data['space']}\n\n"
        f"{machine['processor']['model']}, {threads} {'thread' if threads == 1 else 'threads'}, "
        f"{' to '.join(dict.fromkeys((days[0], days[-1]))) if days else ''}; {libraries}. "
        f"{points:,} points with figures.\n\n"
        "Per method the fastest measured parameters that reach the recall. `all` is build plus "
        "search of every row, `1% more` the time to add so many, or to rebuild where a library "
        f"can't. Batches, percentiles, build, index and peak memory are those at {USUAL}: "
        "of the fastest way for queries, the peak of the process that took more, building or "
        "asking; of the way for `all` where a method answers no queries."
    )


def _section(here: Sequence[Outcome]) -> str:
    cells = [
        _cells(method, [one for one in here if one.method == method])
        for method in sorted({one.method for one in here})
    ]
    return "\n".join(
        [
            f"## {here[0].n:,} rows, k = {here[0].k:,}",
            "",
            _fastest(here),
            "",
            f"| {' | '.join(COLUMNS)} |",
            "|---" * len(COLUMNS) + "|",
            *(f"| {' | '.join(row)} |" for _, row in sorted(cells)),
        ]
    )


def _fastest(here: Sequence[Outcome]) -> str:
    """What is fastest with the usual recall, with its parameters, in a sentence."""
    every, single = _all_at(here, USUAL), _queries_at(here, USUAL)
    said = [
        f"for all `{every.label}` ({_number(every.total_s)} s)" if every.method else "",
        f"for queries `{single.label}` ({_number(single.qps)}/s)" if single.method else "",
    ]
    found = "; ".join(part for part in said if part)
    return f"Fastest at {USUAL}: {found}." if found else f"Nothing measured reaches {USUAL}."


def _cells(method: str, mine: Sequence[Outcome]) -> tuple[float, tuple[str, ...]]:
    """Seconds to sort by, and the cells of a row."""
    every = {level: _all_at(mine, level) for level in LEVELS}
    single = {level: _queries_at(mine, level) for level in LEVELS}
    usual = single[USUAL] if single[USUAL].method else every[USUAL]
    total = every[USUAL].total_s
    return float("inf") if total is None else total, (
        method,
        *(_number(every[level].total_s) for level in LEVELS),
        *(_number(single[level].qps) for level in LEVELS),
        _number(_batched_at(mine, USUAL).qps),
        _number(usual.p95_ms),
        _number(usual.p99_ms),
        _number(usual.build_s),
        _number(usual.add_s if usual.adds_enough else None),
        _number(_mebibytes(usual.index_bytes)),
        _number(_mebibytes(max(usual.peak_bytes or 0, usual.build_peak_bytes or 0) or None)),
    )


NOTHING = Outcome("", "l2", 0, 0, 0, "all", 0, "", "", "", 0)
"""Stands where no parameters reached the recall."""


def _all_at(mine: Sequence[Outcome], recall: float) -> Outcome:
    return _best(mine, recall, lambda one: one.workload == "all", lambda one: -(one.total_s or 0))


def _queries_at(mine: Sequence[Outcome], recall: float) -> Outcome:
    return _best(mine, recall, lambda one: one.batch == 1, lambda one: one.qps or 0)


def _batched_at(mine: Sequence[Outcome], recall: float) -> Outcome:
    return _best(mine, recall, lambda one: one.batch > 1, lambda one: one.qps or 0)


def _best(
    mine: Sequence[Outcome],
    recall: float,
    fits: Callable[[Outcome], bool],
    merit: Callable[[Outcome], float],
) -> Outcome:
    fitting = (one for one in mine if fits(one) and (one.recall or 0) >= recall)
    return max(fitting, key=merit, default=NOTHING)


def _first_uses(outcomes: Sequence[Outcome]) -> str:
    """What libraries took that compile themselves before they were measured."""
    took: dict[str, float] = {}
    for one in outcomes:
        took[one.method] = max(one.cold_s or 0.0, took.get(one.method, 0.0))
    said = [f"{method} {seconds:.0f} s" for method, seconds in sorted(took.items()) if seconds]
    if not said:
        return ""
    return f"First use of what compiles itself, in no figure above: {', '.join(said)}."


def _limited(outcomes: Sequence[Outcome]) -> str:
    """What came of the points under a memory limit below the size of the index."""
    limited = [one for one in outcomes if one.memory_limit_bytes and one.status not in UNTRIED]
    if not limited:
        return ""
    head = ("method", "build", "rows", "index MiB", "limit MiB", "recall", "queries/s", "load s")
    lines = ["## Under half the index' size as memory", "", f"| {' | '.join((*head, 'what'))} |"]
    lines += ["|---" * (len(head) + 1) + "|"]
    for one in sorted(limited, key=lambda one: (one.n, one.method, one.build)):
        cells = (
            *(one.method, one.build, f"{one.n:,}"),
            _number(_mebibytes(one.index_bytes)),
            _number(_mebibytes(one.memory_limit_bytes)),
            *(_number(one.recall), _number(one.qps), _number(one.load_s)),
            str(one.status) if one.measured else f"{one.status}: {one.reason}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
        if one.status not in {Status.OK, *UNTRIED} and not one.memory_limit_bytes
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


def _left_out(outcomes: Sequence[Outcome]) -> str:
    """How many configurations and points of which method weren't worth it, a line per size."""
    left_out = [one for one in outcomes if one.status is Status.LEFT_OUT]
    lines = []
    for n in sorted({one.n for one in left_out}):
        here = [one for one in left_out if one.n == n]
        dear = Counter(one.method for one in here if "foretold" in one.reason)
        more = {(one.method, one.build) for one in here if "for k up to" in one.reason}
        whole = {(one.method, one.build) for one in here if "foretold" not in one.reason} - more
        parts = [
            _listed("configurations of", Counter(method for method, _ in whole)),
            _listed("for larger k configurations of", Counter(method for method, _ in more)),
            _listed("ways to all rows by", dear),
        ]
        lines.append(f"- {n:,} rows: {'; '.join(part for part in parts if part)}")
    if not lines:
        return ""
    head = (
        "## Left out as of no use\n\nConfigurations that a smaller size or smaller k showed to be "
        "no better than others of their method, or far behind all; ways to all rows that were "
        "foretold to take half a minute and five times what the fastest took, or more."
    )
    return "\n".join([head, "", *lines])


def _listed(what: str, counted: Counter[str]) -> str:
    named = ", ".join(f"{method} {count}" for method, count in sorted(counted.items()))
    return f"{what} {named}" if named else ""


def _dropped(outcomes: Sequence[Outcome]) -> str:
    """How many points of which method the budget left out, a line per size."""
    dropped = [one for one in outcomes if one.status is Status.DROPPED]
    lines = []
    for n in sorted({one.n for one in dropped}):
        counted = Counter(one.method for one in dropped if one.n == n)
        methods = ", ".join(f"{method} {count}" for method, count in sorted(counted.items()))
        lines.append(f"- {n:,} rows: {methods}")
    if not lines:
        return ""
    head = (
        "## Left out by the budget\n\nPoints by method, as far as is known; a method of which no "
        "index was built counts one per workload and k."
    )
    return "\n".join([head, "", *lines])


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    print(summary(parser.parse_args().directory), end="")


if __name__ == "__main__":
    main()
