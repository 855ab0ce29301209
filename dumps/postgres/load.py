"""Loading a finished run into Postgres: filled in chunks, checked, attached, then published.

A load that is interrupted leaves finished chunks that no reader sees; the same load again goes on
after them. What joins the chunks, checks them and attaches them is one transaction. Readers see
the run when publish.py moves the pointer.
"""

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from dumps.postgres.chunks import Filled, fill, index_reverse, is_continuable
from dumps.postgres.connection import Connection, connected
from dumps.postgres.delta import LoadedBase, loaded_base
from dumps.postgres.gate import Verdict, verdict
from dumps.postgres.gates import DEFAULT_LIMITS, Limits
from dumps.postgres.partition import (
    ArrivedOtherwise,
    attach,
    check_loaded,
    join_chunks,
    plan_chunks,
)
from dumps.postgres.publish import published, was_rolled_back
from dumps.postgres.retention import KEEP, discard, drop_surplus, lock_loading
from dumps.postgres.schema import prepare_schema
from dumps.postgres.source import Source, opened_source
from nearfield.errors import InputRejected, QualityGate
from nearfield.manifest import fingerprint, library_versions
from nearfield.run import Run

CONTENT_VERSION = 1
"""Changes when the same matrix would be stored otherwise, so that it is loaded again."""


@dataclass(frozen=True)
class LoadOptions:
    """How to load. `chunk_rows` None: as partition.py plans; it must not change on resuming.

    `publish` False: loaded only; publish.publish() shows it to readers. `delta`: of a run that an
    update made, send only the lists that changed, where the run before is loaded. `keep`: runs that
    stay loaded afterwards, this one on top where readers don't see it.
    """

    publish: bool = True
    connections: int = 2
    chunk_rows: int | None = None
    reverse_index: bool = False
    limits: Limits = DEFAULT_LIMITS
    keep: int = KEEP
    delta: bool = True


@dataclass(frozen=True)
class LoadReport:
    """What a load did. `bytes`: what the copy sent; 0 and `already_loaded` if it was there.

    `kept_rows`: lists that an interrupted load had left. `failed_gates`: overridden by force.
    """

    run_id: int
    rows: int
    seconds: float
    bytes: int
    kept_rows: int
    already_loaded: bool
    published: bool
    forced: bool
    failed_gates: tuple[str, ...]
    dropped_runs: tuple[int, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Content:
    """What is to be loaded: identified, judged, and described for the table of runs."""

    fingerprint: str
    verdict: Verdict
    facts: dict[str, Any]


def load_run(
    run: Run,
    dsn: str,
    *,
    force: bool = False,
    labels: bool = True,
    options: LoadOptions = LoadOptions(),
) -> LoadReport:
    """Load the run's matrix and recordings, check them, publish them, drop the oldest runs.

    The same matrix with the same labels isn't loaded twice, only published. `labels` False loads
    ids alone. `force` overrides gates, which is recorded. Raises `QualityGate` for a run that isn't
    verified (before) or misses a gate, or that readers were taken off by a rollback (after the
    load: it stays loaded, unpublished, and the oldest go all the same), `RunLocked` while another
    process loads into the database, `DatabaseError`, `DiskFull`, `DamagedArtefact`. Whatever it
    raises, readers keep what they had. Cost: O(n k); memory about 40 MB a connection, whatever n
    is.
    """
    started = time.monotonic()
    manifest = run.finished_matrix()
    sha256 = manifest.files[run.matrix.name].sha256
    judged = verdict(run, sha256, force=force)
    with opened_source(run, labels=labels) as source, connected(dsn) as connection:
        content = _content(run, source, sha256, judged, manifest.created)
        with connection.cursor() as cursor:
            lock_loading(cursor)
            notes = prepare_schema(cursor)
            run_id, complete = _begun(cursor, run, source, content, options)
            base = loaded_base(cursor, run, source) if options.delta else None
            connection.commit()
        filled = Filled(0, 0)
        if not complete:
            filled = _load(connection, dsn, run_id, source, options, base)
            if base is not None:
                notes = [*notes, f"lists that didn't change were copied from run {base.run_id}"]
        if options.reverse_index:
            index_reverse(dsn, run_id, source.n, connections=options.connections)
        failed, dropped = _shown(connection, run_id, options, force=force)
    return LoadReport(
        run_id=run_id,
        rows=source.live(),
        seconds=round(time.monotonic() - started, 3),
        bytes=filled.bytes,
        kept_rows=filled.kept_rows,
        already_loaded=complete,
        published=options.publish,
        forced=judged.forced or bool(failed),
        failed_gates=failed,
        dropped_runs=dropped,
        notes=tuple(notes),
    )


def _shown(
    connection: Connection, run_id: int, options: LoadOptions, *, force: bool
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Publish if asked to: (gates overridden, runs dropped). Refused loads mustn't pile up, either.

    Who went back from a run doesn't want it again because a timer loads what is there already.
    """
    failed: tuple[str, ...] = ()
    try:
        if options.publish:
            if not force and was_rolled_back(connection, run_id):
                raise QualityGate(
                    f"run {run_id} isn't published: it was rolled back, and readers keep what they"
                    f" have. To show it again nevertheless: nearfield publish {run_id}"
                )
            failed = published(connection, run_id, force=force, limits=options.limits).failed_gates
    except QualityGate:
        drop_surplus(connection, options.keep, spared=run_id)
        raise
    return failed, tuple(drop_surplus(connection, options.keep, spared=run_id).dropped)


def _content(run: Run, source: Source, sha256: str, judged: Verdict, created: str) -> _Content:
    labels = source.labels
    return _Content(
        fingerprint=fingerprint(
            schema=CONTENT_VERSION, matrix=sha256, labels=labels and labels.fingerprint
        ),
        verdict=judged,
        facts={
            "run": asdict(run.config),
            "run_fingerprint": run.config.fingerprint,
            "matrix_sha256": sha256,
            "matrix_created": created,
            "labels": labels.label_names if labels else [],
            "versions": library_versions(),
        },
    )


def _begun(
    cursor: Any, run: Run, source: Source, content: _Content, options: LoadOptions
) -> tuple[int, bool]:
    """(run id, whether its load is complete); what can't be continued is discarded. Commits."""
    connection = cursor.connection
    run_id, complete = _registered(cursor, run, source, content)
    connection.commit()
    if not complete and not is_continuable(cursor, run_id, source, options.chunk_rows):
        discard(connection, run_id)
        run_id, _ = _registered(cursor, run, source, content)
        connection.commit()
    return run_id, complete


def _registered(cursor: Any, run: Run, source: Source, content: _Content) -> tuple[int, bool]:
    """(run id, whether its load is complete); its verdict is brought up to date.

    A run that is being dropped is taken out of the way first: it can't come back.
    """
    judged = content.verdict
    cursor.execute(
        "UPDATE nearfield.runs SET recall = %s, recall_low = %s, asked = %s, forced = %s"
        " WHERE fingerprint = %s RETURNING run_id, loaded_at IS NOT NULL, dropping",
        (judged.recall, judged.recall_low, judged.asked, judged.forced, content.fingerprint),
    )
    found = cursor.fetchone()
    if found is not None and not found[2]:
        return int(found[0]), bool(found[1])
    if found is not None:
        cursor.execute(
            "UPDATE nearfield.runs SET fingerprint = fingerprint || ' dropped ' || run_id"
            " WHERE run_id = %s",
            (found[0],),
        )
    return _register(cursor, run, source, content), False


def _register(cursor: Any, run: Run, source: Source, content: _Content) -> int:
    judged = content.verdict
    cursor.execute(
        "INSERT INTO nearfield.runs (fingerprint, n, k, space, recall, recall_low, asked, forced,"
        " facts) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING run_id",
        (
            content.fingerprint,
            source.live(),
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


def _load(
    connection: Connection,
    dsn: str,
    run_id: int,
    source: Source,
    options: LoadOptions,
    base: LoadedBase | None,
) -> Filled:
    """Fill what is missing, then join, check and attach it. A fault of the data leaves nothing."""
    try:
        filled = fill(
            dsn,
            run_id,
            source,
            connections=options.connections,
            chunk_rows=options.chunk_rows,
            base=base,
        )
        with connection.cursor() as cursor:
            join_chunks(cursor, run_id, plan_chunks(source.n, options.chunk_rows))
            check_loaded(cursor, run_id, source)
            attach(cursor, run_id)
            cursor.execute(
                "UPDATE nearfield.runs SET loaded_at = clock_timestamp() WHERE run_id = %s",
                (run_id,),
            )
        connection.commit()
    except (InputRejected, ArrivedOtherwise):
        connection.rollback()
        discard(connection, run_id)
        raise
    return filled
