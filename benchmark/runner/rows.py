"""From what a measured process left to the rows of the table and the arrays of the result file.

Owns the evaluation: distances recomputed, recall against the truth, the median repetition. Runs
after the clock has stopped. Refuses processes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.methods.all_rows import finished_lists
from benchmark.results.file import Measured, Result
from benchmark.results.metrics import (
    clean_lists,
    distance_ratio,
    median_repetition,
    percentiles_ms,
    recall_of,
)
from benchmark.results.outcome import Outcome, Status
from benchmark.runner.data import Data
from benchmark.runner.plan import Group, Point
from benchmark.runner.process import Ended
from benchmark.runner.request import noted, repetitions
from nearfield.distances import list_distances, sort_lists
from nearfield.neighbours import NeighbourTable
from nearfield.space import Float32s, Int32s


@dataclass(frozen=True)
class Left:
    """What is known about a point once its process has ended: `out` is what the process left."""

    point: Point
    ended: Ended
    out: Path
    blank: Outcome


def result_of(left: Left, group: Group, data: Data, truth: NeighbourTable) -> Result:
    """Rows and arrays of a point: a row per batch size, with figures or with the reason."""
    outcomes, measured = [], {}
    facts = noted(left.out)
    for batch in left.point.batches:
        blank = replace(left.blank, batch=batch)
        kept = repetitions(left.out, batch)
        if not kept:
            outcomes.append(_without_figures(blank, left.ended))
            continue
        try:
            lists = [_distances(left.point, group, data, truth, found) for _, found in kept]
        except ValueError as error:
            outcomes.append(replace(blank, status=Status.FAILED, reason=str(error)))
            continue
        times = np.stack([seconds for seconds, _ in kept])
        measured[batch] = Measured(
            times, np.stack([near for near, _ in lists]), np.stack([far for _, far in lists])
        )
        known = replace(blank, reason=_cut_short(left.ended))
        outcomes.append(_with_figures(known, measured[batch], facts, truth))
    return Result(tuple(outcomes), truth.rows, measured)


def _without_figures(blank: Outcome, ended: Ended) -> Outcome:
    if ended.status is Status.OK:
        return replace(blank, status=Status.FAILED, reason="the process ended without a result")
    return replace(blank, status=ended.status, reason=ended.reason)


def _cut_short(ended: Ended) -> str:
    """Beside figures: how their process ended, where it didn't come to its own end. What memory it
    took at most isn't known then.
    """
    if ended.status is Status.OK:
        return ""
    return f"measured before its process ended: {ended.status}, {ended.reason}"


def _distances(
    point: Point, group: Group, data: Data, truth: NeighbourTable, found: Int32s
) -> tuple[Int32s, Float32s]:
    """Lists [c, k] sorted by our own distances, without repeats and without the row itself."""
    vectors, cleaned = data.vectors[: group.n], clean_lists(found, group.n)
    if point.workload == "all":
        near, distances = finished_lists(vectors, truth.rows, cleaned, point.k, data.space)
    else:
        queries = np.ascontiguousarray(data.queries)
        near, distances = sort_lists(cleaned, list_distances(queries, vectors, cleaned, data.space))
    return np.ascontiguousarray(near), np.ascontiguousarray(distances)


def _with_figures(
    blank: Outcome,
    measured: Measured,
    facts: Mapping[str, Any],
    truth: NeighbourTable,
) -> Outcome:
    of = blank.n if blank.workload == "all" else 10**9  # queries stand for any to come
    recalls = [recall_of(far, truth.distances, of=of) for far in measured.distances]
    seconds = measured.times.sum(axis=1)
    chosen = median_repetition(seconds.tolist())
    search_s = float(seconds[chosen])
    asked = blank.n if blank.workload == "all" else len(truth.rows)
    figures: dict[str, Any] = {
        "recall": recalls[chosen].mean,
        "recall_low": recalls[chosen].low,
        "recall_high": recalls[chosen].high,
        "distance_ratio": distance_ratio(measured.distances[chosen], truth.distances),
        "qps": asked / search_s if search_s > 0 else None,
        "search_s": search_s,
        "asked": asked,
        "checked": len(truth.rows),
        "repetition": chosen,
        "repetition_seconds": tuple(seconds.tolist()),
        "repetition_recalls": tuple(recall.mean for recall in recalls),
        "load_s": facts.get("load_s"),
        "peak_bytes": facts.get("peak_bytes"),
        "baseline_bytes": facts.get("baseline_bytes"),
    }
    if blank.workload == "all":
        figures["total_s"] = search_s + (blank.build_s or 0.0)
    else:
        calls = percentiles_ms(measured.times[chosen])
        figures |= dict(zip(("p50_ms", "p95_ms", "p99_ms"), calls, strict=True))
    return replace(blank, **figures)
