"""Updates of a run: the delta, then vector set and matrix of the run that it makes."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from index_build.update.cells import read_cells
from index_build.update.change import changes
from index_build.update.delta import delta_is_finished, read_delta
from index_build.update.update import check_size
from nearfield import ingest as reading
from nearfield.api.old_run import checked_run, old_vectors
from nearfield.api.update_folder import is_begun, names_in, unless_refused
from nearfield.api.update_steps import Asked, extend, finish, keep_cells, matrix_sha256
from nearfield.errors import DamagedArtefact, InputRejected, MissingFile, UsageError
from nearfield.ingest.options import IngestOptions
from nearfield.lock import locked
from nearfield.machine import available_cores
from nearfield.manifest import fingerprint
from nearfield.run import UPDATE, Run, RunConfig, open_run
from nearfield.vectorset import VectorSet, open_vector_set

TWICE = ("duplicate id", "duplicate document")


@dataclass(frozen=True)
class UpdateReport:
    """What an update did, by recordings: added, changed, removed; `unchanged` were there already,
    `relabelled` of them with other labels.

    entered: old lists that a new recording entered; lost: lists that lost members; refilled: those
    of them that were searched again; lists: all lists that may differ. recall: on the update's own
    sample, None before the matrix is written. made False: it was finished already. seconds: per
    step. rejected: what ingest turned away, listed in rejects.csv.
    """

    run: Path
    base: Path
    n: int
    k: int
    added: int
    changed: int
    removed: int
    unchanged: int
    relabelled: int
    rejected: int
    entered: int
    lost: int
    refilled: int
    lists: int
    recall: float | None
    made: bool
    seconds: dict[str, float]


@dataclass(frozen=True)
class UpdatePlan:
    """What an update would do: recordings by kind, places per list, bytes of the new matrix."""

    base: Path
    n: int
    k: int
    added: int
    changed: int
    removed: int
    unchanged: int
    relabelled: int
    matrix_bytes: int
    vectors_bytes: int


def update(
    run: Path | str,
    out: Path | str,
    *,
    add: Sequence[Path | str] | Path | str = (),
    remove: Sequence[str] = (),
    matrix: bool = True,
    options: IngestOptions | None = None,
) -> UpdateReport:
    """Extend a finished run into the run `out`; rows keep their numbers.

    add: one vector set of the same geometry, or sources that are ingested with the set's own
    statistics (`options`: as they were ingested before). remove: recording ids. A recording of
    `add` that the run has already counts as changed where its vector differs. Where nothing changed
    `out` has the lists of the run: who goes on with it needn't ask. Without `matrix` only the delta
    is written, whose cost grows with what changed; the same call with it goes on from
    there. Raises `UsageError`, `MissingFile` for a run that isn't finished, `InputRejected`,
    `QualityGate` when the lists got worse, `RunLocked`, `DiskFull`.
    """
    base_path, out = Path(run), Path(out)
    _check_places(base_path, out)
    if (base_path / UPDATE).exists() and not (base_path / "matrix.json").exists():
        _finish(base_path)
    base_run = open_run(base_path)
    sha256 = matrix_sha256(base_run)
    with locked(out):
        before = names_in(out)
        added, rejected = _added(base_run, out, add, options)
        mark = fingerprint(matrix=sha256, add=added and added.fingerprint, remove=sorted(remove))
        with unless_refused(out, before):
            known = is_begun(out, base_run, sha256, mark, rejected)
            if rejected:
                shutil.copyfile(out / "incoming" / "rejects.csv", out / "rejects.csv")
            finished = _report_of(out, made=False) if known and _is_finished(out, mark) else None
            if finished is not None:
                keep_cells(
                    open_run(out), read_cells(base_run.folder / "cells", fingerprint=sha256), mark
                )
                shutil.rmtree(out / "incoming", ignore_errors=True)
                return finished
            steps = Run(out, base_run.config)
            if matrix or not delta_is_finished(out / "delta", fingerprint=mark):
                asked = Asked(added, tuple(remove), mark)
                extend(steps, checked_run(steps, base_run), asked, matrix=matrix)
            return _report_of(out, made=True)


def plan_update(
    run: Path | str, *, add: Sequence[Path | str] | Path | str = (), remove: Sequence[str] = ()
) -> UpdatePlan:
    """What `update` with a vector set would do; raises as it does. Writes nothing.

    Sources have to be ingested to be counted: name a vector set, or do without the counts.
    """
    base_run = open_run(Path(run))
    base_run.finished_matrix(verify=False)
    vector_set = old_vectors(base_run)
    paths = _paths(add)
    added = None
    if paths:
        if not _is_vector_set(paths):
            raise UsageError(
                "expected a vector set for --dry-run, since sources are counted by ingesting them:"
                " nearfield ingest SOURCE --out NEW, then --add NEW"
            )
        added = open_vector_set(paths[0])
    change = changes(vector_set, added, list(remove))
    columns = check_size(base_run.config, change)
    return UpdatePlan(
        base=base_run.folder,
        n=change.n,
        k=columns,
        added=change.added + change.returned,
        changed=change.changed,
        removed=len(change.gone),
        unchanged=change.unchanged,
        relabelled=change.relabelled,
        matrix_bytes=8 * change.n * columns,
        vectors_bytes=4 * change.n * vector_set.d,
    )


def _check_places(base: Path, out: Path) -> None:
    if base.resolve() == out.resolve():
        raise UsageError(
            f"expected --out other than the run, got {out} for both: the run stays as it is"
        )


def _paths(add: Sequence[Path | str] | Path | str) -> list[Path]:
    return [Path(add)] if isinstance(add, str | Path) else [Path(path) for path in add]


def _is_vector_set(paths: list[Path]) -> bool:
    return len(paths) == 1 and (paths[0] / "space.json").is_file()


def _added(
    base: Run, out: Path, add: Sequence[Path | str] | Path | str, options: IngestOptions | None
) -> tuple[VectorSet | None, int]:
    """What is to be added, and how many recordings ingest turned away, listed beside the set."""
    paths = _paths(add)
    if not paths:
        return None, 0
    if _is_vector_set(paths):
        if options is not None and options.ids is not None:
            raise UsageError(
                f"{paths[0]} is a vector set, which has ids of its own: leave --ids out, or name"
                " the sources"
            )
        return open_vector_set(paths[0]), 0
    options = options or IngestOptions(workers=available_cores())
    chosen = reading.as_made(old_vectors(base), options)
    report = reading.ingest(paths, out / "incoming", chosen)
    twice = sum(report.rejected.get(reason, 0) for reason in TWICE)
    if twice:
        raise InputRejected(
            f"{twice:,} recordings to add come more than once; see {report.rejects_file}. Name each"
            " once"
        )
    return open_vector_set(out / "incoming"), sum(report.rejected.values())


def _is_finished(out: Path, mark: str, *, verify: bool = True) -> bool:
    try:
        manifest = open_run(out).finished_matrix(verify=verify)
    except (MissingFile, DamagedArtefact):
        return False
    return manifest.facts.get("update") == mark


def _finish(path: Path) -> None:
    """Write the matrix of an update that stopped at its delta."""
    with locked(path):
        frozen = json.loads((path / UPDATE).read_bytes())
        base = open_run(Path(frozen["base"]))
        if matrix_sha256(base) != frozen["matrix"]:
            raise MissingFile(
                f"{path} was computed from a run that was in {base.path} and has been replaced: "
                f"remove {path}, and update what is there now"
            )
        steps = Run(path, base.config)
        finish(steps, checked_run(steps, base), frozen["fingerprint"])


def _report_of(out: Path, *, made: bool) -> UpdateReport:
    frozen = json.loads((out / UPDATE).read_bytes())
    delta = read_delta(out / "delta", fingerprint=frozen["fingerprint"])
    recall = None
    if _is_finished(out, frozen["fingerprint"], verify=False):
        recall = float(open_run(out).finished_matrix(verify=False).facts["recall_estimate"])
    facts = delta.facts
    return UpdateReport(
        run=out,
        base=Path(frozen["base"]),
        n=facts["n"],
        k=facts["columns"],
        added=facts["added"] + facts["returned"],
        changed=facts["changed"],
        removed=len(facts["gone"]),
        unchanged=facts["unchanged"],
        relabelled=facts["relabelled"],
        rejected=frozen.get("rejected", 0),
        entered=facts["entered"],
        lost=facts["lost"],
        refilled=facts["refilled"],
        lists=len(delta.changed_rows),
        recall=recall,
        made=made,
        seconds=_seconds(out),
    )


def _seconds(out: Path) -> dict[str, float]:
    run = Run(out, RunConfig("", "", 2, 1, "l2", 1, 1.0, "", 0))
    return {step["step"]: step["seconds"] for step in run.steps()}
