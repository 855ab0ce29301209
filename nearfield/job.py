"""A whole job from one file: ingest, build, verify, load, publish. What a timer calls.

Owns the order of the stages, the folder of a job, and what is skipped because it is done:

    FOLDER/vectors/        the vector set
    FOLDER/runs/NAME/      a run per configuration and content; NAME is its fingerprint;
                           elsewhere, such as in an object store, where [build] runs says so;
                           runs.json says which of those there are this job's
    FOLDER/postgres/       the embedded database, shared by the runs, unless a server is named
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearfield import api
from nearfield.cluster import ClusterOptions
from nearfield.errors import NearfieldError, QualityGate
from nearfield.files import stamps_of, write_bytes
from nearfield.ingest import ingest
from nearfield.ingest.options import DocumentOptions, IngestOptions, TableOptions
from nearfield.locations import Location, location
from nearfield.lock import locked
from nearfield.machine import available_cores
from nearfield.manifest import fingerprint
from nearfield.retention import keep_newest, note_run
from nearfield.settings import IngestSettings, Settings, matching, read_settings
from nearfield.vectorset import VectorSet, open_vector_set


@dataclass(frozen=True)
class JobReport:
    """What a job did; `steps` in order, each with its seconds."""

    folder: Path
    vectors: Path
    run: Location
    matrix: Location
    database: str
    run_id: int | None
    recall: float
    steps: tuple[Mapping[str, Any], ...]


@dataclass
class _Steps:
    done: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        facts: dict[str, Any] = {}
        started = time.monotonic()
        yield facts
        self.done.append({"step": name, "seconds": round(time.monotonic() - started, 1), **facts})


def run_job(path: Path, *, load: bool = True) -> JobReport:
    """Run the job file `path`; a stage that is done already is kept.

    `load` False stops after the verification: for machines that shall not know the database.
    Raises what the stages raise; `QualityGate` when the matrix fails its verification: it isn't
    loaded then, and readers keep the run that they have. `RunLocked` when the job runs already.
    """
    settings = read_settings(path)
    folder = (path.parent / settings.folder).resolve()
    with locked(folder):
        return _run(settings, path.parent.resolve(), folder, load=load)


def plan_job(path: Path) -> dict[str, str]:
    """What `run_job` would do, in words, without doing it."""
    settings = read_settings(path)
    folder = (path.parent / settings.folder).resolve()
    base = path.parent.resolve()
    sources = _sources(settings.ingest, base)
    done = _ingested(folder, _source_mark(settings.ingest, base, sources)) is not None
    build = settings.build
    return {
        "ingest": f"{len(sources)} sources, " + ("unchanged: kept" if done else "to be read"),
        "build": f"k {build.k}, recall {build.recall}, method {build.method}",
        "verify": f"{settings.verify.sample:,} rows",
        "load": str(_place(settings, folder)[1] or "into the server that is named"),
        "folder": str(folder),
    }


def _run(settings: Settings, base: Path, folder: Path, *, load: bool) -> JobReport:
    steps = _Steps()
    if load:
        _place(settings, folder)  # what can't be is said before hours are spent
    vector_set = _ingest(settings.ingest, base, folder, steps)
    build = settings.build
    name = fingerprint(
        vectors=vector_set.fingerprint, k=build.k, recall=build.recall, method=build.method
    )
    run = _runs(settings, folder) / name
    note_run(folder, run)
    with steps.step("build") as facts:
        built = api.build(
            vector_set.path,
            str(run),
            k=build.k,
            recall=build.recall,
            method=build.method,
            cluster=ClusterOptions(build.workers, _scheduler(build.scheduler, base)),
        )
        facts |= {"method": built.method, "parts": built.parts, "kept": built.kept}
    with steps.step("verify") as facts:
        checked = api.verify(str(run), sample=settings.verify.sample)
        facts |= {"recall": round(checked.recall, 4), "passed": checked.passed}
    if not checked.passed:
        raise QualityGate(
            f"{run} failed its verification ({'; '.join(checked.problems)}): not loaded, "
            "the published run stays. Raise recall in the job file or use method exact"
        )
    run_id, database = _load(settings, folder, run, steps) if load else (None, "not loaded")
    keep_newest(folder, run, settings.keep_runs)
    return JobReport(
        folder=folder,
        vectors=vector_set.path,
        run=run,
        matrix=run / "matrix.h5",
        database=database,
        run_id=run_id,
        recall=checked.recall,
        steps=tuple(steps.done),
    )


def _runs(settings: Settings, folder: Path) -> Location:
    named = location(settings.build.runs)
    return folder / named if isinstance(named, Path) else named


def _load(settings: Settings, folder: Path, run: Location, steps: _Steps) -> tuple[int, str]:
    server, database = _place(settings, folder)
    with steps.step("load") as facts:
        loaded = api.load(str(run), dsn=server, database=database)
        facts |= {"rows": loaded.rows, "published": loaded.run_id}
    return loaded.run_id, str(database or "the server that is named")


def _scheduler(named: str | None, base: Path) -> str | None:
    """An address as it is, a connection file counted from the job file's folder."""
    return named if named is None or "://" in named else str(base / Path(named).expanduser())


def _place(settings: Settings, folder: Path) -> tuple[str | None, Path | None]:
    named = settings.load.database
    return api.place_of(
        settings.load.dsn, folder / named if named else None, default=folder / "postgres"
    )


def _ingest(settings: IngestSettings, base: Path, folder: Path, steps: _Steps) -> VectorSet:
    sources = _sources(settings, base)
    mark = _source_mark(settings, base, sources)
    with steps.step("ingest") as facts:
        kept = _ingested(folder, mark)
        if kept is not None:
            facts |= {"kept": "sources unchanged", "recordings": kept.n}
            return kept
        report = ingest(sources, folder / "vectors", _options(settings, base))
        vector_set = open_vector_set(folder / "vectors")
        content = {"sources": mark, "vector_set": vector_set.fingerprint}
        write_bytes(folder / "ingested.json", json.dumps(content).encode())
        facts |= {"recordings": report.n, "rejected": sum(report.rejected.values())}
    return vector_set


def _sources(settings: IngestSettings, base: Path) -> list[Path]:
    return [path for pattern in settings.sources for path in matching(pattern, base)]


def _source_mark(settings: IngestSettings, base: Path, sources: list[Path]) -> str:
    """Changes when a source file (or one below a source folder), the ids, what labels come from, or
    an ingest setting does.
    """
    beside = [base / name for name in (settings.ids, settings.labels_from) if name]
    return fingerprint(files=stamps_of([*sources, *beside]), settings=repr(settings))


def _ingested(folder: Path, mark: str) -> VectorSet | None:
    try:
        content = json.loads((folder / "ingested.json").read_bytes())
        vector_set = open_vector_set(folder / "vectors")
    except (OSError, ValueError, NearfieldError):
        return None
    expected = {"sources": mark, "vector_set": vector_set.fingerprint}
    return vector_set if content == expected else None


def _options(settings: IngestSettings, base: Path) -> IngestOptions:
    return IngestOptions(
        space=settings.space,
        ids=base / settings.ids if settings.ids else None,
        labels_from=base / settings.labels_from if settings.labels_from else None,
        zero=settings.zero,
        max_rejected=settings.max_rejected,
        workers=settings.workers or available_cores(),
        documents=DocumentOptions(settings.submissions, settings.first_cepstral),
        tables=TableOptions(
            id_column=settings.id_column,
            columns=tuple(settings.columns),
            categorical=tuple(settings.categorical),
            labels=tuple(settings.labels),
            scale=settings.scale,
            pca=settings.pca,
            delimiter=settings.delimiter,
            header_rows=settings.header_rows,
        ),
    )
