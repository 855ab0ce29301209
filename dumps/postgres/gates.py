"""Gates before publishing: what the database holds of a run, measured there, against limits.

Each gate is one figure with its limit; all are stored with the run, passed or not, and readers see
them in the view nearfield.run_gates. Refuses to decide what a failed gate leads to.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg2 import sql

from dumps.postgres.partition import leaf

SERVED_ROWS = 1000
"""Smaller runs are trials: what is published over them is compared with them, but not judged."""
SAMPLE = 1000
"""Lists that are compared with those of the published run, or looked at for their ranges."""
COVERAGE_SAMPLE = 10_000
WIDEST: Mapping[str, tuple[float, float]] = {"l2": (0.0, math.inf), "cosine": (0.0, 2.000001)}
"""Range of distances by space; those of ip are bounded by nothing. float32 rounds 2 up a little."""


@dataclass(frozen=True)
class Limits:
    """The least or most that passes, each a share of 0..1; see docs/sql.md, "Gates"."""

    min_coverage: float = 0.9
    max_recall_drop: float = 0.02
    max_changed_rows: float = 1.0
    max_changed_neighbours: float = 0.9


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Gate:
    """One figure and its limit; `against`: the published run that it was compared with."""

    gate: str
    figure: float | None
    passed: bool
    detail: str
    at_least: float | None = None
    at_most: float | None = None
    against: int | None = None


@dataclass(frozen=True)
class Judged:
    """A row of the table of runs, as far as gates need it."""

    run_id: int
    n: int
    space: str
    recall: float | None
    asked: float
    forced: bool


def measure(cursor: Any, run: Judged, current: Judged | None, limits: Limits) -> list[Gate]:
    """Measure every gate of a loaded run, against the published one where there is another.

    Cost: one count of the keys, and samples of fixed size.
    """
    gates = [_rows(cursor, run), _recall(run), _ranges(cursor, run)]
    if current is not None and current.run_id != run.run_id:
        gates += _compared(cursor, run, current, limits)
    return gates


def store(cursor: Any, run_id: int, gates: list[Gate]) -> None:
    """Put the gates of a run in the place of their last measurement."""
    cursor.executemany(
        "INSERT INTO nearfield.gates"
        " (run_id, gate, figure, at_least, at_most, passed, detail, against)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (run_id, gate) DO UPDATE SET"
        " (figure, at_least, at_most, passed, detail, against, measured_at) = (excluded.figure,"
        "  excluded.at_least, excluded.at_most, excluded.passed, excluded.detail,"
        "  excluded.against, excluded.measured_at)",
        [
            (run_id, g.gate, g.figure, g.at_least, g.at_most, g.passed, g.detail, g.against)
            for g in gates
        ],
    )


def _rows(cursor: Any, run: Judged) -> Gate:
    counted = [_counted(cursor, leaf(part, run.run_id)) for part in ("neighbours", "recordings")]
    return Gate(
        "rows",
        counted[0],
        counted == [run.n, run.n],
        f"{counted[0]:,} lists and {counted[1]:,} recordings of {run.n:,}, counted by the database",
        at_least=run.n,
        at_most=run.n,
    )


def _counted(cursor: Any, table: sql.Identifier) -> int:
    cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(table))
    return int(cursor.fetchone()[0])


def _recall(run: Judged) -> Gate:
    said = "by nearfield verify, on a sample"
    if run.recall is None:
        said = "never verified, or not with this matrix"
    elif run.forced:
        said = "verification failed"
    return Gate("recall", run.recall, not run.forced, said, at_least=run.asked)


def _ranges(cursor: Any, run: Judged) -> Gate:
    """Distances of all lists against their space; rows and order in a sample of lists, in SQL."""
    cursor.execute(
        "SELECT min(distance_min), max(distance_max) FROM nearfield.load_chunks WHERE run_id = %s",
        (run.run_id,),
    )
    least, greatest = cursor.fetchone()
    low, high = WIDEST.get(run.space, (-math.inf, math.inf))
    beyond = least is not None and (least < low or greatest > high)
    rows = _sample(cursor, run, SAMPLE)
    cursor.execute(
        sql.SQL(
            'SELECT count(*) FROM {} WHERE "row" = ANY (%s) AND ('
            '  "row" = ANY (neighbours) OR NOT 0 <= ALL (neighbours) OR NOT %s > ALL (neighbours)'
            "  OR distances <> (SELECT array_agg(d ORDER BY d) FROM unnest(distances) AS d))"
        ).format(leaf("neighbours", run.run_id)),
        (rows, _row_range(cursor, run)),
    )
    wrong = int(cursor.fetchone()[0])
    seen = "unknown" if least is None else f"{least:g} to {greatest:g}"
    return Gate(
        "ranges",
        wrong,
        wrong == 0 and not beyond,
        f"lists with rows or order out of range among {len(rows):,}; distances of all lists {seen}"
        + (f", beyond what {run.space} allows" if beyond else ""),
        at_most=0,
    )


def _compared(cursor: Any, run: Judged, current: Judged, limits: Limits) -> Iterator[Gate]:
    served = current.n >= SERVED_ROWS
    trial = "" if served else f"; not judged: run {current.run_id} has under {SERVED_ROWS:,} rows"

    def gate(name: str, figure: float | None, detail: str, **limit: float) -> Gate:
        low, high = limit.get("at_least", -math.inf), limit.get("at_most", math.inf)
        passed = not served or figure is None or low <= figure <= high
        return Gate(name, figure, passed, detail + trial, **limit, against=current.run_id)

    drop = None if None in (run.recall, current.recall) else current.recall - run.recall  # type: ignore[operator]
    yield gate(
        "recall_drop",
        drop,
        "recall of the published run less this one's",
        at_most=limits.max_recall_drop,
    )
    found, asked = _covered(cursor, run, current)
    yield gate(
        "coverage",
        found / asked if asked else None,
        f"recordings of the published run that this one has, of {asked:,} sampled",
        at_least=limits.min_coverage,
    )
    changes = _changes(cursor, run, current)
    said = f"of {len(changes):,} recordings in both, sampled"
    rows = float(np.mean(changes > 0)) if len(changes) else None
    neighbours = float(np.mean(np.minimum(changes, 1))) if len(changes) else None
    yield gate("changed_rows", rows, f"lists with a change {said}", at_most=limits.max_changed_rows)
    yield gate(
        "changed_neighbours",
        neighbours,
        f"neighbours that are new, {said}",
        at_most=limits.max_changed_neighbours,
    )


def _covered(cursor: Any, run: Judged, current: Judged) -> tuple[int, int]:
    rows = _sample(cursor, current, COVERAGE_SAMPLE)
    cursor.execute(
        sql.SQL(
            "SELECT count(new.recording_id), count(*) FROM {} AS old"
            ' LEFT JOIN {} AS new USING (recording_id) WHERE old."row" = ANY (%s)'
        ).format(leaf("recordings", current.run_id), leaf("recordings", run.run_id)),
        (rows,),
    )
    found, asked = cursor.fetchone()
    return int(found), int(asked)


def _changes(cursor: Any, run: Judged, current: Judged) -> Any:
    """float64 per sampled recording in both runs: share of its neighbours that are new.

    A list that names the same in another order counts as changed, by next to nothing.
    """
    rows = _sample(cursor, run, SAMPLE)
    cursor.execute(
        sql.SQL(
            'SELECT recording_id, old."row", new."row" FROM {} AS new JOIN {} AS old'
            ' USING (recording_id) WHERE new."row" = ANY (%s)'
        ).format(leaf("recordings", run.run_id), leaf("recordings", current.run_id)),
        (rows,),
    )
    both = cursor.fetchall()
    before = _named(cursor, current.run_id, [old for _, old, _ in both])
    after = _named(cursor, run.run_id, [new for _, _, new in both])
    return np.array(
        [
            _changed(before[old], after[new])
            for _, old, new in both
            if old in before and new in after
        ]
    )


def _changed(before: list[str], after: list[str]) -> float:
    share = len(set(after).difference(before)) / len(after)
    return share or (0.0 if before == after else 1e-9)


def _named(cursor: Any, run_id: int, rows: list[int]) -> dict[int, list[str]]:
    """Row: ids of its neighbours in order."""
    cursor.execute(
        sql.SQL(
            'SELECT list."row", array_agg(other.recording_id ORDER BY rank)'
            ' FROM {} AS list, unnest(list.neighbours) WITH ORDINALITY AS near ("row", rank)'
            ' JOIN {} AS other ON other."row" = near."row"'
            ' WHERE list."row" = ANY (%s) GROUP BY 1'
        ).format(leaf("neighbours", run_id), leaf("recordings", run_id)),
        (rows,),
    )
    return dict(cursor.fetchall())


def _row_range(cursor: Any, run: Judged) -> int:
    """One past a run's last row: n, and more where rows in between were removed by updates."""
    cursor.execute(
        sql.SQL('SELECT coalesce(max("row") + 1, 0) FROM {}').format(leaf("recordings", run.run_id))
    )
    return int(cursor.fetchone()[0])


def _sample(cursor: Any, run: Judged, size: int) -> list[int]:
    """Random rows of a run, the same each time; a removed one stands for nothing."""
    rows = _row_range(cursor, run)
    picked = np.random.default_rng(run.run_id).choice(rows, min(size, rows), replace=False)
    return [int(row) for row in np.sort(picked)]
