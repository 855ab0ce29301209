"""The stages as Python functions: what the command line calls, and what a program would import.

The composition root: the only place, with `nearfield.cli`, that knows all rooms. It joins them
through the files in the run directory and holds no logic of any stage.
"""

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dumps.matrix import write_matrix
from dumps.postgres.load import LoadReport, load_run
from dumps.postgres.query import Neighbour, similar
from dumps.postgres.rights import Rights, rights
from dumps.postgres.server import database as open_database
from dumps.postgres.server import embedded as open_embedded
from dumps.verify import Verification, verify_run
from index_build.build import build_lists, check_config, remove_intermediate
from index_build.estimate import BuildEstimate, estimate_build
from nearfield import ingest as reading
from nearfield.cluster import ClusterOptions, available_cores, connected
from nearfield.doctor import Diagnosis, examine
from nearfield.errors import DamagedArtefact, MissingFile, UsageError
from nearfield.ingest import IngestReport
from nearfield.ingest.options import IngestOptions
from nearfield.lock import locked
from nearfield.run import Run, RunConfig, create_run, open_run
from nearfield.vectorset import VectorSet, open_vector_set

__all__ = [
    "BuildReport",
    "IngestReport",
    "LoadReport",
    "Neighbour",
    "RunStatus",
    "Verification",
    "build",
    "estimate",
    "ingest",
    "load",
    "query",
    "status",
    "verify",
]

SEED = 0
DSN_VARIABLE = "NEARFIELD_DSN"
ELEMENT_BYTES = 8
"""One number of an array in a binary COPY: its length and itself."""
ROW_OVERHEAD_BYTES = 66
"""The rest of a row there: field lengths, run, row, two array headers."""


@dataclass(frozen=True)
class BuildReport:
    """What a build did. `kept` of `parts` were there from an interrupted run; `made` False: all."""

    run: Path
    matrix: Path
    n: int
    k: int
    method: str
    reason: str
    recall_estimate: float
    parts: int
    kept: int
    made: bool
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class LoadPlan:
    """What `load` would do: rows and bytes to copy, whether verified, and where to."""

    rows: int
    k: int
    stage: str
    bytes: int
    target: str


@dataclass(frozen=True)
class RunStatus:
    """How far a run is. `stage` is one of: unfinished, built, failed verification, verified."""

    run: Path
    stage: str
    config: Mapping[str, Any]
    steps: tuple[Mapping[str, Any], ...]
    verification: Mapping[str, Any] | None
    advice: str


def ingest(
    sources: Sequence[Path | str] | Path | str,
    out: Path | str,
    options: IngestOptions | None = None,
    *,
    extend: Path | str | None = None,
) -> IngestReport:
    """Turn recordings into the vector set `out`; see `nearfield.ingest.ingest` for what it raises.

    sources: one path or several of one kind. extend: a vector set whose recordings come first, at
    the rows that they have there.
    """
    paths = [sources] if isinstance(sources, Path | str) else sources
    return reading.ingest(
        [Path(path) for path in paths],
        Path(out),
        options or IngestOptions(workers=available_cores()),
        extend=None if extend is None else Path(extend),
    )


def build(
    vectors: Path | str,
    out: Path | str,
    *,
    k: int = 100,
    recall: float = 0.95,
    method: str = "auto",
    cluster: ClusterOptions | None = None,
) -> BuildReport:
    """Build the matrix of the vector set `vectors` in the run directory `out`, or resume it.

    Writes `out/matrix.h5` with min(k, n - 1) neighbours per recording. Raises `UsageError`,
    `InputRejected`, `ShardFailed` (resumable), `DiskFull`, `RunLocked`.
    """
    vector_set = open_vector_set(Path(vectors))
    config = _config(vector_set, k=k, recall=recall, method=method)
    check_config(config)
    with locked(Path(out)):
        run = create_run(Path(out), config)
        finished = _finished(run)
        if finished is not None:
            return finished
        with connected(cluster or ClusterOptions()) as client:
            built = build_lists(run, vector_set, client)
        attributes = {
            "method": built.plan.method,
            "method_reason": built.plan.reason,
            "recall_estimate": built.recall_estimate,
            "parts": built.parts,
            "kept": built.kept,
        }
        with run.step("write matrix"):
            write_matrix(run, built.blocks(), vector_set.ids, attributes=attributes)
        remove_intermediate(run)
        return _report(run, attributes, made=True)


def estimate(
    vectors: Path | str, *, k: int = 100, recall: float = 0.95, method: str = "auto"
) -> BuildEstimate:
    """What `build` would do and cost: method, parts, seconds, memory and disk in bytes."""
    vector_set = open_vector_set(Path(vectors))
    config = _config(vector_set, k=k, recall=recall, method=method)
    check_config(config)
    return estimate_build(config, vector_set)


def verify(run: Path | str, *, sample: int = 1000, recall: float | None = None) -> Verification:
    """Check the matrix of a run with code that shares nothing with the builder; keep the report.

    Returns the report whether it passed or not; `Verification.passed` tells.
    """
    opened = open_run(Path(run))
    with locked(opened.path):
        with opened.step("verify") as facts:
            report = verify_run(opened, sample=sample, seed=SEED, recall=recall)
            facts |= {"passed": report.passed, "recall": report.recall}
        return report


def load(
    run: Path | str,
    *,
    dsn: str | None = None,
    database: Path | str | None = None,
    force: bool = False,
    labels: bool = True,
) -> LoadReport:
    """Load a verified run into Postgres and publish it.

    Where to: see `place_of`; by default the embedded database in `RUN/postgres`. Raises
    `QualityGate` for an unverified run unless `force`. `labels` False leaves titles and the like
    out, for when the vector set is gone.
    """
    opened = open_run(Path(run))
    server, directory = place_of(dsn, database, default=opened.postgres)
    with locked(opened.path), open_database(server, directory) as address:
        with opened.step("load") as facts:
            report = load_run(opened, address, force=force, labels=labels)
            facts["rows"] = report.rows
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


def plan_load(
    run: Path | str, *, dsn: str | None = None, database: Path | str | None = None
) -> LoadPlan:
    """What `load` with the same arguments would do; touches no database."""
    opened = open_run(Path(run))
    server, directory = place_of(dsn, database, default=opened.postgres)
    config = opened.config
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
    server, directory = place_of(dsn, database, default=None)
    with open_database(server, directory, create=False) as opened:
        return similar(opened, recording_id, k)


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


def status(run: Path | str) -> RunStatus:
    """How far a run is, what each step took, and what to do next.

    Raises `MissingFile` when it isn't a run and `DamagedArtefact` when a file of it isn't whole.
    """
    opened = open_run(Path(run))
    try:
        opened.finished_matrix(verify=False)
        verification = _verification(opened)
    except MissingFile:
        stage, verification = "unfinished", None
    else:
        stage = {None: "built", True: "verified", False: "failed verification"}[
            None if verification is None else bool(verification["passed"])
        ]
    config = opened.config
    run_path, vectors = shlex.quote(str(opened.path)), shlex.quote(config.vectors)
    advice = {
        "unfinished": f"nearfield build {vectors} --out {run_path} -k {config.k} "
        f"--recall {config.recall} --method {config.method}  (resumes)",
        "built": f"nearfield verify {run_path}",
        "failed verification": f"nearfield build {vectors} --out OTHER -k {config.k} with a higher "
        f"--recall than {config.recall}, or --method exact",
        "verified": f"nearfield load {run_path}",
    }[stage]
    facts = {name: getattr(config, name) for name in RunConfig.__dataclass_fields__}
    return RunStatus(opened.path, stage, facts, tuple(opened.steps()), verification, advice)


def _config(vector_set: VectorSet, *, k: int, recall: float, method: str) -> RunConfig:
    return RunConfig(
        vectors=str(vector_set.path.resolve()),
        vectors_fingerprint=vector_set.fingerprint,
        n=vector_set.n,
        d=vector_set.d,
        space=vector_set.geometry.space,
        k=k,
        recall=recall,
        method=method,
        seed=SEED,
    )


def _finished(run: Run) -> BuildReport | None:
    try:
        manifest = run.finished_matrix()
    except (MissingFile, DamagedArtefact):
        return None
    return _report(run, manifest.facts, made=False)


def _report(run: Run, facts: Mapping[str, Any], *, made: bool) -> BuildReport:
    return BuildReport(
        run=run.path,
        matrix=run.matrix,
        n=run.config.n,
        k=run.config.columns,
        method=facts["method"],
        reason=facts["method_reason"],
        recall_estimate=facts["recall_estimate"],
        parts=facts["parts"],
        kept=facts["kept"] if made else facts["parts"],
        made=made,
        seconds={step["step"]: step["seconds"] for step in run.steps()},
    )


def _verification(run: Run) -> Mapping[str, Any] | None:
    """The last verification, if it can be read and was of the matrix as it is now."""
    try:
        report = json.loads(run.verification.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    current = run.finished_matrix(verify=False).files[run.matrix.name].sha256
    return report if report["matrix_sha256"] == current else None
