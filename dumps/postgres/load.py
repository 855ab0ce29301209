"""Loading a finished run into Postgres, and publishing it.

Everything up to the publication is one transaction: the partitions are made, filled, given their
keys, checked and attached in it, so a load that dies at any point leaves nothing behind, and its
tables need neither log (where the server allows that) nor vacuum. Readers see the run when
publish.py moves the pointer.
"""

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from dumps.postgres.connection import connected
from dumps.postgres.gate import Verdict, verdict
from dumps.postgres.partition import attach, check_loaded, copy_lists, copy_recordings
from dumps.postgres.publish import drop_old_runs, publish
from dumps.postgres.schema import SCHEMA_VERSION, prepare_schema
from dumps.postgres.source import Source, opened_source
from nearfield.errors import RunLocked
from nearfield.manifest import fingerprint, library_versions
from nearfield.progress import progress
from nearfield.run import Run

LOADER_LOCK = 0x6E656172


@dataclass(frozen=True)
class LoadReport:
    """What a load did. `bytes`: what the copy sent; 0 and `already_loaded` if it was there."""

    run_id: int
    rows: int
    seconds: float
    bytes: int
    already_loaded: bool
    forced: bool
    dropped_runs: tuple[int, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Content:
    """What is to be loaded: identified, judged, and described for the table of runs."""

    fingerprint: str
    verdict: Verdict
    facts: dict[str, Any]


def load_run(run: Run, dsn: str, *, force: bool = False, labels: bool = True) -> LoadReport:
    """Load the run's matrix and recordings, check them, publish them, drop the oldest runs.

    The same matrix with the same labels isn't loaded twice, only published. `labels` False loads
    ids alone. Raises `QualityGate` for a run that isn't verified, unless `force`, `RunLocked` while
    another process loads into the database, `DatabaseError`, `DiskFull`, `DamagedArtefact`.
    Whatever it raises, readers keep what they had. Cost: O(n k); memory about 50 MB, whatever n is.
    """
    started = time.monotonic()
    sha256 = run.finished_matrix().files[run.matrix.name].sha256
    judged = verdict(run, sha256, force=force)
    with opened_source(run, labels=labels) as source, connected(dsn) as connection:
        content = _content(run, source, sha256, judged)
        with connection.cursor() as cursor:
            _lock(cursor)
            notes = prepare_schema(cursor)
            known = _judged_again(cursor, content)
            run_id, sent = (known, 0) if known else _load(cursor, run, source, content)
            connection.commit()
        publish(dsn, run_id)
        dropped = drop_old_runs(dsn)
    return LoadReport(
        run_id=run_id,
        rows=source.n,
        seconds=round(time.monotonic() - started, 3),
        bytes=sent,
        already_loaded=known is not None,
        forced=judged.forced,
        dropped_runs=tuple(dropped),
        notes=tuple(notes),
    )


def _content(run: Run, source: Source, sha256: str, judged: Verdict) -> _Content:
    labels = source.labels
    return _Content(
        fingerprint=fingerprint(
            schema=SCHEMA_VERSION, matrix=sha256, labels=labels and labels.fingerprint
        ),
        verdict=judged,
        facts={
            "run": asdict(run.config),
            "run_fingerprint": run.config.fingerprint,
            "matrix_sha256": sha256,
            "labels": labels.label_names if labels else [],
            "versions": library_versions(),
        },
    )


def _lock(cursor: Any) -> None:
    """Held until the connection ends, however it ends."""
    cursor.execute("SELECT pg_try_advisory_lock(%s)", (LOADER_LOCK,))
    if not cursor.fetchone()[0]:
        raise RunLocked("another nearfield process loads into this database: wait until it ends")


def _judged_again(cursor: Any, content: _Content) -> int | None:
    """The id of the run if it is loaded already; its verdict is brought up to date."""
    judged = content.verdict
    cursor.execute(
        "UPDATE nearfield.runs SET recall = %s, recall_low = %s, asked = %s, forced = %s"
        " WHERE fingerprint = %s RETURNING run_id",
        (judged.recall, judged.recall_low, judged.asked, judged.forced, content.fingerprint),
    )
    found = cursor.fetchone()
    return None if found is None else int(found[0])


def _load(cursor: Any, run: Run, source: Source, content: _Content) -> tuple[int, int]:
    run_id = _register(cursor, run, source, content)
    with progress("load", source.n, "recordings") as advance:
        sent = copy_recordings(cursor, run_id, source)
        sent += copy_lists(cursor, run_id, source, advance)
    check_loaded(cursor, run_id, source)
    attach(cursor, run_id)
    return run_id, sent


def _register(cursor: Any, run: Run, source: Source, content: _Content) -> int:
    judged = content.verdict
    cursor.execute(
        "INSERT INTO nearfield.runs (fingerprint, n, k, space, recall, recall_low, asked, forced,"
        " facts) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING run_id",
        (
            content.fingerprint,
            source.n,
            source.k,
            run.config.space,
            judged.recall,
            judged.recall_low,
            judged.asked,
            judged.forced,
            json.dumps(content.facts),
        ),
    )
    return int(cursor.fetchone()[0])
