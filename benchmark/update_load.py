"""Three ways to bring an updated run into Postgres, where the run before is loaded.

    python -m benchmark.update_load --work FOLDER --run RUN --updated RUN2

whole: all lists are sent, as for any run. delta: unchanged lists are copied inside the server and
the changed ones sent (what `nearfield load` does). in place: changed lists are updated and new ones
inserted in the tables of the run before, in one transaction; this way isn't part of the product.
Each begins with the run loaded and published, and ends with a way back to it: moving the pointer,
or the inverse of the update. A reader in a process of its own looks up ten neighbours a hundred
times a second. Prints Markdown. Owns this measurement; the embedded server lies in FOLDER.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
from psycopg2 import sql

from benchmark.publish_latency import LOOK
from dumps.postgres.delta import changed_blocks, loaded_base
from dumps.postgres.encode import recordings_csv
from dumps.postgres.gates import Limits
from dumps.postgres.load import LoadOptions, load_run
from dumps.postgres.partition import (
    Chunk,
    copy_in,
    create_lists,
    leaf,
    plan_chunks,
)
from dumps.postgres.publish import rollback
from dumps.postgres.retention import discard
from dumps.postgres.server import embedded
from dumps.postgres.source import Source, opened_source
from nearfield.machine import machine_facts
from nearfield.run import Run, open_run
from nearfield.space import Int32s

LIMITS = Limits(0, 1, 1, 1)
"""All gates open: what they say isn't measured here."""
PAUSE_S = 0.01
LOOKED_UP = 10_000


@dataclass(frozen=True)
class Cost:
    """What one way took. disk: bytes by which the database grew; wal: bytes logged;
    back_s: seconds to show readers the run before again."""

    way: str
    seconds: float
    sent: int
    wal: int
    disk: int
    back_s: float
    lookups_us: list[float]


@dataclass(frozen=True)
class _Change:
    """The run before, by its number in the database, and what differs in the new one."""

    run_id: int
    old: Source
    new: Source
    changed: Int32s


def measured(old: Run, new: Run, folder: Path, ways: list[str]) -> tuple[list[Cost], int, str]:
    """The costs of some ways, how many lists differ, and the server's version and WAL level."""
    with embedded(folder / "postgres") as dsn:
        first = load_run(old, dsn, force=True, options=LoadOptions(limits=LIMITS)).run_id
        with opened_source(old, labels=True) as before, opened_source(new, labels=True) as after:
            with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
                base = loaded_base(cursor, new, after)
                cursor.execute("SELECT version(), current_setting('wal_level')")
                version, level = cursor.fetchone()
            if base is None or base.run_id != first:
                raise SystemExit(f"expected {new.path} to be an update of {old.path}")
            if len(after.removed):
                raise SystemExit(f"expected an update that only adds; {new.path} removes")
            change = _Change(first, before, after, base.changed)
            costs = [WAYS[way](dsn, new, change) for way in ways]
        changed = len(base.changed)
    return costs, changed, f"{version.split(' on ')[0]}, wal_level {level}"


def _loaded(dsn: str, new: Run, change: _Change, *, delta: bool) -> Cost:
    options = LoadOptions(limits=LIMITS, delta=delta)
    with _watched(dsn, change.run_id) as (spent, lookups):
        report = load_run(new, dsn, force=True, options=options)
        spent()
    started = time.perf_counter()
    rollback(dsn)
    back = time.perf_counter() - started
    with closing(psycopg2.connect(dsn)) as connection:
        discard(connection, report.run_id)
    return Cost("delta" if delta else "whole", *spent.result(report.bytes), back, lookups)


def _in_place(dsn: str, _new: Run, change: _Change) -> Cost:
    old_n = change.old.n
    with _watched(dsn, change.run_id) as (spent, lookups):
        with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
            sent = _send(cursor, change.run_id, change.new, change.changed)
            _append(cursor, change)
            connection.commit()
        spent()
    started = time.perf_counter()
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        _send(cursor, change.run_id, change.old, change.changed[change.changed < old_n])
        number = len(plan_chunks(old_n))
        cursor.execute(
            sql.SQL('DROP TABLE {}; DELETE FROM {} WHERE "row" >= %s').format(
                leaf("neighbours", change.run_id, number), leaf("recordings", change.run_id)
            ),
            (old_n,),
        )
        connection.commit()
    back = time.perf_counter() - started
    return Cost("in place", *spent.result(sent), back, lookups)


def _send(cursor: Any, run_id: int, source: Source, rows: Int32s) -> int:
    """Send lists and put those of old rows into their places; bytes sent."""
    cursor.execute(
        'CREATE TEMPORARY TABLE sent (run_id int, "row" int, neighbours int4[], distances float4[])'
        " ON COMMIT DROP"
    )
    blocks = changed_blocks(run_id, source, rows, lambda _rows: None)
    sent = copy_in(cursor, sql.SQL("COPY sent FROM STDIN (FORMAT binary)"), blocks)
    cursor.execute("ANALYZE sent")
    cursor.execute(
        sql.SQL(
            "UPDATE {} AS old SET neighbours = sent.neighbours, distances = sent.distances"
            ' FROM sent WHERE old."row" = sent."row"'
        ).format(leaf("neighbours", run_id))
    )
    return sent


def _append(cursor: Any, change: _Change) -> None:
    """The lists and recordings that are new, out of what was sent and the vector set."""
    first, last = change.old.n, change.new.n
    if first == last:
        return
    chunk = Chunk(len(plan_chunks(first)), first, last)
    create_lists(cursor, change.run_id, change.new.k, chunk)
    table = leaf("neighbours", change.run_id, chunk.number)
    cursor.execute(
        sql.SQL(
            'INSERT INTO {0} SELECT * FROM sent WHERE "row" >= {2};'
            'ALTER TABLE {0} ADD PRIMARY KEY ("row");'
            "ALTER TABLE {1} ATTACH PARTITION {0} FOR VALUES FROM ({2}) TO ({3})"
        ).format(table, leaf("neighbours", change.run_id), sql.Literal(first), sql.Literal(last))
    )
    seen, blocks = 0, []
    for batch in change.new.recordings():
        skipped = max(0, min(batch.num_rows, first - seen))
        if skipped < batch.num_rows:
            shifted = recordings_csv(change.run_id, [batch.slice(skipped)])
            blocks += [_numbered(csv, seen + skipped) for _, csv in shifted]
        seen += batch.num_rows
    copy = sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(leaf("recordings", change.run_id))
    copy_in(cursor, copy, iter(blocks))


def _numbered(csv: bytes, first: int) -> bytes:
    """Lines `run_id,row,...` with rows that begin at `first` in place of 0."""
    lines = [line.split(b",", 2) for line in csv.splitlines()]
    return b"".join(b"%s,%d,%s\n" % (it[0], int(it[1]) + first, it[2]) for it in lines)


WAYS: dict[str, Callable[[str, Run, _Change], Cost]] = {
    "whole": lambda dsn, new, change: _loaded(dsn, new, change, delta=False),
    "delta": lambda dsn, new, change: _loaded(dsn, new, change, delta=True),
    "in place": _in_place,
}


class _Spent:
    """Seconds, log and disk between its making and its call."""

    def __init__(self, dsn: str) -> None:
        self.dsn, self.started, self.before = dsn, time.perf_counter(), _position(dsn)
        self.taken: tuple[float, int, int] = (0.0, 0, 0)

    def __call__(self) -> None:
        seconds, after = time.perf_counter() - self.started, _position(self.dsn)
        self.taken = (seconds, after[0] - self.before[0], after[1] - self.before[1])

    def result(self, sent: int) -> tuple[float, int, int, int]:
        """(seconds, sent, wal, disk)."""
        return self.taken[0], sent, self.taken[1], self.taken[2]


def _position(dsn: str) -> tuple[int, int]:
    """(bytes logged so far, bytes of the database)."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn,"
            " pg_database_size(current_database())"
        )
        logged, size = cursor.fetchone()
        return int(logged), int(size)


@contextmanager
def _watched(dsn: str, run_id: int) -> Iterator[tuple[_Spent, list[float]]]:
    """While the block runs a reader looks up; its microseconds are in the list afterwards."""
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            # what an earlier way wrote isn't charged to this one
            cursor.execute("CHECKPOINT")
            cursor.execute(
                sql.SQL("SELECT recording_id FROM {} LIMIT %s").format(leaf("recordings", run_id)),
                (LOOKED_UP,),
            )
            ids = [found for (found,) in cursor.fetchall()]
    context = multiprocessing.get_context("spawn")
    stop, answers = context.Event(), context.Queue()
    reader = context.Process(target=_read, args=(dsn, ids, stop, answers))
    reader.start()
    answers.get()
    lookups: list[float] = []
    try:
        yield _Spent(dsn), lookups
    finally:
        stop.set()
        lookups += answers.get()
        reader.join()


def _read(dsn: str, ids: list[str], stop: Any, answers: Any) -> None:
    taken = []
    picks = np.random.default_rng(0)
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(LOOK)
        answers.put("ready")
        while not stop.is_set():
            started = time.perf_counter()
            cursor.execute("EXECUTE look(%s)", (ids[int(picks.integers(len(ids)))],))
            cursor.fetchall()
            taken.append(1e6 * (time.perf_counter() - started))
            time.sleep(PAUSE_S)
    answers.put(taken)


def markdown(costs: list[Cost], new: Run, changed: int) -> str:
    """The costs as a table."""
    n, k = new.config.n, new.config.columns
    lines = [
        f"{n:,} x top-{k}, of which {changed:,} lists differ ({changed / n:.0%}).",
        "",
        "| way | seconds | sent MiB | WAL MiB | disk MiB | back, s | lookup p50 / p99 / max, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for cost in costs:
        looks = " / ".join(
            f"{value / 1e3:.1f}" for value in np.percentile(cost.lookups_us, [50, 99, 100])
        )
        mib = " | ".join(f"{value / 2**20:,.0f}" for value in (cost.sent, cost.wal, cost.disk))
        lines.append(f"| {cost.way} | {cost.seconds:.1f} | {mib} | {cost.back_s:.2f} | {looks} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--updated", type=Path, required=True)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    asked = parser.parse_args()
    new = open_run(asked.updated)
    costs, changed, server = measured(open_run(asked.run), new, asked.work, asked.ways)
    print(f"Machine: {json.dumps(machine_facts().to_json())}; {server}\n")
    print(markdown(costs, new, changed))


if __name__ == "__main__":
    main()
