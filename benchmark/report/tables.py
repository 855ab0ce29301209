"""The report's tables as rows of text: cheapest ways at a recall, growth, failures, circumstances.

Pure, over the results table and `bench.json`. Refuses HTML: a cell is plain text here.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.report.curves import Curve
from benchmark.report.words import DASH, added, amount, interval, number, seconds, share
from benchmark.results.outcome import Outcome, Status

MORE = "1% more"


@dataclass(frozen=True)
class Table:
    """Head and rows, all plain text. `words`: how many columns from the left hold words."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1


def at_recall(here: Sequence[Outcome], recall: float) -> tuple[Table, Table]:
    """The cheapest configuration per method with that recall: for `all`, and for queries.

    here: outcomes of one size and k. A method that doesn't reach it has dashes.
    """
    every = [one for one in here if one.workload == "all" and one.total_s is not None]
    single = [one for one in here if one.workload == "queries" and one.batch == 1]
    batched = [one for one in here if one.workload == "queries" and one.batch > 1]
    return _of_all(every, recall), _of_queries(single, batched, recall)


def _of_all(here: Sequence[Outcome], recall: float) -> Table:
    rows = []
    for method in sorted({one.method for one in here}):
        good = [one for one in here if one.method == method and (one.recall or 0) >= recall]
        best = min(good, key=lambda one: one.total_s or 0, default=None)
        rows.append((float("inf") if best is None else best.total_s or 0, method, best))
    return Table(
        (
            *("method", "configuration", "recall", "total time", "build", MORE),
            *("peak memory", "index"),
        ),
        tuple(
            (method, *([DASH] * 7))
            if best is None
            else (
                method,
                _parameters(best),
                share(best.recall),
                seconds(best.total_s),
                seconds(best.build_s),
                added(best),
                amount(_peak(best)),
                amount(best.index_bytes),
            )
            for _, method, best in sorted(rows, key=lambda row: row[:2])
        ),
        words=2,
    )


def _of_queries(single: Sequence[Outcome], batched: Sequence[Outcome], recall: float) -> Table:
    rows = []
    for method in sorted({one.method for one in single}):
        good = [one for one in single if one.method == method and (one.recall or 0) >= recall]
        best = max(good, key=lambda one: one.qps or 0, default=None)
        fast = [one for one in batched if one.method == method and (one.recall or 0) >= recall]
        most = max(fast, key=lambda one: one.qps or 0, default=None)
        rows.append((-(best.qps or 0) if best else 0.0, method, best, most))
    head = ("method", "configuration", "recall", "queries/s", "p50", "p95", "p99")
    return Table(
        (*head, "in batches", "build", MORE, "peak", "index"),
        tuple(
            (method, *([DASH] * 11))
            if best is None
            else (
                method,
                _parameters(best),
                share(best.recall),
                number(best.qps),
                _milliseconds(best.p50_ms),
                _milliseconds(best.p95_ms),
                _milliseconds(best.p99_ms),
                number(most.qps) if most else DASH,
                seconds(best.build_s),
                added(best),
                amount(_peak(best)),
                amount(best.index_bytes),
            )
            for _, method, best, most in sorted(rows, key=lambda row: row[:2])
        ),
        words=2,
    )


def growth_table(lines: Sequence[Curve], k: int, cost: str, full: int) -> Table:
    """Exponents, and what all rows will cost with its 95% interval."""
    rows = []
    for line in (one for one in lines if (one.k, one.cost) == (k, cost)):
        words = amount if cost == "memory" else seconds
        sizes = sorted({n for n, _ in line.points})
        foretold = range_ = exponent = DASH
        if line.growth is not None and line.full is not None:
            exponent = f"{line.growth.exponent:.2f}"
            foretold = words(line.full.value)
            known = line.growth.spread is not None
            range_ = f"{words(line.full.low)} to {words(line.full.high)}" if known else "unknown"
        rows.append(
            (
                line.method,
                ", ".join(f"{n:,}" for n in sizes),
                exponent,
                foretold,
                range_,
            )
        )
    head = ("method", "sizes measured", "grows as n to the power")
    return Table((*head, f"at {full:,} rows", "95% interval"), tuple(rows), words=2)


def without_figures(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """What has no figures; not what wasn't worth measuring."""
    return [one for one in outcomes if not one.measured and one.status is not Status.LEFT_OUT]


def failures_table(outcomes: Sequence[Outcome]) -> Table:
    """What has no figures and why, equal reasons together."""
    counted: Counter[tuple[str, ...]] = Counter()
    for one in without_figures(outcomes):
        limit = one.memory_limit_bytes
        reason = f"{one.reason} (limit {amount(limit)})" if limit else one.reason
        counted[one.method, _parameters(one), f"{one.n:,}", str(one.status), reason] += 1
    return Table(
        ("method", "configuration", "rows", "what happened", "why", "points"),
        tuple((*key, f"{count:,}") for key, count in sorted(counted.items())),
        words=5,
    )


def left_out_table(outcomes: Sequence[Outcome]) -> Table:
    """What wasn't worth measuring, by what smaller sizes or faster ways had shown."""
    counted: Counter[tuple[str, ...]] = Counter()
    for one in outcomes:
        if one.status is Status.LEFT_OUT:
            counted[f"{one.n:,}", one.method, _parameters(one), one.reason] += 1
    return Table(
        ("rows", "method", "configuration", "why", "points"),
        tuple((*key, f"{count:,}") for key, count in counted.items()),
        words=4,
    )


def limited_table(outcomes: Sequence[Outcome]) -> Table:
    """What was measured under a memory limit below the size of the index."""
    limited = [one for one in outcomes if one.measured and one.memory_limit_bytes]
    head = ("method", "configuration", "rows", "k", "batch", "limit", "index", "recall")
    return Table(
        (*head, "vectors/s", "load"),
        tuple(
            (
                one.method,
                _parameters(one),
                f"{one.n:,}",
                f"{one.k:,}",
                f"{one.batch:,}" if one.batch else "every row",
                amount(one.memory_limit_bytes),
                amount(one.index_bytes),
                interval(one.recall, one.recall_low, one.recall_high),
                number(one.qps),
                seconds(one.load_s),
            )
            for one in limited
        ),
        words=2,
    )


def first_use_table(outcomes: Sequence[Outcome]) -> Table:
    """What libraries take that compile themselves before they answer for the first time."""
    took: dict[str, list[float]] = {}
    for one in outcomes:
        if one.cold_s:
            took.setdefault(one.method, []).append(one.cold_s)
    return Table(
        ("method", "first use"),
        tuple((method, seconds(max(times))) for method, times in sorted(took.items())),
    )


def machine_table(facts: dict[str, Any], outcomes: Sequence[Outcome]) -> Table:
    """Machines, threads, limits, software: what the figures hold for."""
    settings = facts.get("settings", {})
    rows: list[tuple[str, str]] = []
    for machine in facts.get("machines", []):
        processor = machine["processor"]
        rows += [
            ("processor", f"{processor['model']}, {processor['architecture']}"),
            ("instructions", " ".join(processor["features"])),
            ("cores", f"{machine['cores']} of {machine['cores_present']} usable"),
            ("memory", amount(machine["memory_total_bytes"])),
            ("system", machine["system"]),
        ]
    days = sorted({one.measured_at[:10] for one in outcomes if one.measured_at})
    threads = sorted({one.threads for one in outcomes})
    pinned = {one.pinned for one in outcomes if one.measured}
    containers = sorted({one.container for one in outcomes if one.container})
    rows += [("native threads", ", ".join(map(str, threads)))] if threads else []
    rows += [("bound to cores", _all_or_some(pinned))] if pinned else []
    rows += [("containers", ", ".join(containers))] if containers else []
    if settings:
        rows += [
            ("time-out of a process", seconds(settings["timeout_s"])),
            ("memory of a process", amount(settings["memory_bytes"])),
            ("repetitions", f"up to {settings['repeat']}; the median one is shown"),
        ]
    rows += [("measured", " to ".join(dict.fromkeys((days[0], days[-1]))))] if days else []
    rows += [(f"version of {name}", text) for name, text in facts.get("versions", {}).items()]
    return Table(("", ""), tuple(rows), words=2)


def libraries_table(facts: dict[str, Any]) -> Table:
    """Each library's version, where it comes from and how it was built."""
    rows = dict.fromkeys(
        (
            library["name"],
            library["version"] or library["state"],
            " ".join(part for part in (library["distribution"], library["package"]) if part),
            library["built"] or library["error"] or "doesn't say",
        )
        for library in facts.get("libraries", [])
    )
    return Table(("library", "version", "package", "built"), tuple(rows), words=4)


def _all_or_some(states: set[bool]) -> str:
    if len(states) == 2:
        return "some processes"
    return "yes" if True in states else "no"


def _parameters(outcome: Outcome) -> str:
    parts = f"{outcome.build},{outcome.search}".split(",")
    return ", ".join(part for part in parts if part) or "no parameters"


def _milliseconds(value: float | None) -> str:
    return DASH if value is None else seconds(value / 1000)


def _peak(outcome: Outcome) -> int | None:
    return max((b for b in (outcome.peak_bytes, outcome.build_peak_bytes) if b), default=None)
