"""The matrix in Postgres: load, publish, go back, list, remove, query; and what `doctor` finds."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dumps.postgres import publish as publishing
from dumps.postgres.gates import DEFAULT_LIMITS, Limits
from dumps.postgres.load import LoadOptions, LoadReport, load_run
from dumps.postgres.publish import PublishedRun
from dumps.postgres.query import Neighbour, similar
from dumps.postgres.retention import KEEP, Pruning
from dumps.postgres.retention import prune as prune_runs
from dumps.postgres.rights import Rights, rights
from dumps.postgres.runs import LoadedRun
from dumps.postgres.runs import runs as list_runs
from dumps.postgres.server import database as open_database
from dumps.postgres.server import embedded as open_embedded
from nearfield.api.run_status import status
from nearfield.copies import run_at_hand
from nearfield.doctor import Diagnosis, examine
from nearfield.errors import UsageError
from nearfield.locations import location
from nearfield.run import open_run

DEFAULT_OPTIONS = LoadOptions()
DSN_VARIABLE = "NEARFIELD_DSN"
ELEMENT_BYTES = 8
"""One number of an array in a binary COPY: its length and itself."""
ROW_OVERHEAD_BYTES = 66
"""The rest of a row there: field lengths, run, row, two array headers."""


@dataclass(frozen=True)
class LoadPlan:
    """What `load` would do: rows and bytes to copy, whether verified, and where to."""

    rows: int
    k: int
    stage: str
    bytes: int
    target: str


def load(
    run: Path | str,
    *,
    dsn: str | None = None,
    database: Path | str | None = None,
    force: bool = False,
    labels: bool = True,
    options: LoadOptions = DEFAULT_OPTIONS,
) -> LoadReport:
    """Load a verified run into Postgres and publish it; interrupted, it resumes when called again.

    Where to: see `place_of`; by default the embedded database in `RUN/postgres`. Raises
    `QualityGate` for an unverified run, or one that misses a gate, unless `force`. `labels` False
    leaves titles and the like out, for when the vector set is gone.
    """
    server, directory = _target(run, dsn, database)
    with (
        run_at_hand(run, vectors=labels) as opened,
        open_database(server, directory) as address,
    ):
        with opened.step("load") as facts:
            report = load_run(opened, address, force=force, labels=labels, options=options)
            facts |= {"rows": report.rows, "run_id": report.run_id}
        return report


def place_of(
    dsn: str | None, database: Path | str | None, *, default: Path | None
) -> tuple[str | None, Path | None]:
    """Which database is meant: (address of a server, None) or (None, folder of an embedded one).

    In this order: `dsn` or `database` as given (both: `UsageError`), the server that the
    environment variable NEARFIELD_DSN names, `default`.
    """
    if dsn and database:
        raise UsageError("expected either --dsn or --database (or --run), got both")
    if database:
        return None, Path(database)
    server = dsn or os.environ.get(DSN_VARIABLE)
    return (server, None) if server else (None, default)


def _target(
    run: Path | str, dsn: str | None, database: Path | str | None
) -> tuple[str | None, Path | None]:
    """Where to load a run: as `place_of`, by default into its own folder."""
    place = location(run)
    own = place / "postgres" if isinstance(place, Path) else None
    server, directory = place_of(dsn, database, default=own)
    if server is None and directory is None:
        raise UsageError(
            f"{place} is in an object store, which can't hold an embedded database: name a folder "
            f"for one with --database DIR, or a server with --dsn or {DSN_VARIABLE}"
        )
    return server, directory


def plan_load(
    run: Path | str, *, dsn: str | None = None, database: Path | str | None = None
) -> LoadPlan:
    """What `load` with the same arguments would do; touches no database."""
    server, directory = _target(run, dsn, database)
    config = open_run(location(run)).config
    return LoadPlan(
        rows=config.n,
        k=config.columns,
        stage=status(run).stage,
        bytes=config.n * (ROW_OVERHEAD_BYTES + 2 * config.columns * ELEMENT_BYTES),
        target="the server that is named" if server else f"the embedded database in {directory}",
    )


def query(
    recording_id: str,
    k: int = 10,
    *,
    dsn: str | None = None,
    database: Path | str | None = None,
) -> list[Neighbour]:
    """The k nearest recordings of one, from the published run, through SQL.

    Asks the database that `place_of` finds, else the only embedded one below the current folder.
    Raises `InputRejected` for an unknown recording.
    """
    with _existing(dsn, database) as address:
        return similar(address, recording_id, k)


def publish(
    run_id: int,
    *,
    dsn: str | None = None,
    database: Path | str | None = None,
    force: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> PublishedRun:
    """Make a loaded run the one that readers see, at once and for all of them.

    Raises `QualityGate` when it misses a gate, unless `force`, which is recorded; `UsageError` when
    no such run is loaded. Asks the database that `query` would ask.
    """
    with _existing(dsn, database) as address:
        return publishing.publish(address, run_id, force=force, limits=limits)


def rollback(*, dsn: str | None = None, database: Path | str | None = None) -> PublishedRun:
    """Publish the run that was published before the current one. `UsageError` where none is."""
    with _existing(dsn, database) as address:
        return publishing.rollback(address)


def runs(*, dsn: str | None = None, database: Path | str | None = None) -> list[LoadedRun]:
    """Every run in the database: which is current, since when, its recall and size."""
    with _existing(dsn, database) as address:
        return list_runs(address)


def prune(
    keep: int = KEEP,
    *,
    dsn: str | None = None,
    database: Path | str | None = None,
    dry_run: bool = False,
) -> Pruning:
    """Drop all runs but `keep`: never the current one, nor one that is still being read."""
    with _existing(dsn, database) as address:
        return prune_runs(address, keep, dry_run=dry_run)


@contextmanager
def _existing(dsn: str | None, database: Path | str | None) -> Iterator[str]:
    server, directory = place_of(dsn, database, default=None)
    with open_database(server, directory, create=False) as address:
        yield address


@contextmanager
def embedded(directory: Path | str) -> Iterator[str]:
    """Keep the embedded database in `directory` up for the block; yields its address (DSN).

    Raises `MissingFile` when there is no database yet.
    """
    with open_embedded(Path(directory), create=False) as dsn:
        yield dsn


def doctor(*, dsn: str | None = None, database: Path | str | None = None) -> Diagnosis:
    """Examine machine, libraries and, where one is named, the database and its rights."""
    server, directory = place_of(dsn, database, default=None)

    def database_rights() -> Rights:
        with open_database(server, directory, create=False) as opened:
            return rights(opened)

    asked = server is not None or directory is not None
    where = directory or Path()
    return examine(directory=where, database=database_rights if asked else None)
