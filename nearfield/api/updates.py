"""Updates of a run: the delta, then vector set and matrix of the run that it makes."""

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py

from dumps.matrix import write_matrix
from index_build.update.apply import merged_blocks
from index_build.update.base import Base
from index_build.update.cells import Ends, UpdateCells, read_cells, write_cells
from index_build.update.change import Change, changes
from index_build.update.delta import Delta, delta_is_finished, read_delta, write_delta
from index_build.update.update import (
    check_size,
    computed_delta,
    ends_after,
    prepared_cells,
    sampled_recall,
)
from index_build.update.vectors import write_updated_set
from nearfield import ingest as reading
from nearfield.api.old_run import OldRun, checked_run, old_vectors
from nearfield.api.update_folder import UPDATE, is_begun, names_in, unless_refused
from nearfield.errors import DamagedArtefact, InputRejected, MissingFile, UsageError
from nearfield.ingest.options import IngestOptions
from nearfield.lock import locked
from nearfield.machine import available_cores
from nearfield.manifest import fingerprint
from nearfield.run import Run, RunConfig, create_run, open_run
from nearfield.vectorset import VectorSet, open_vector_set

TWICE = ("duplicate id", "duplicate document")


@dataclass(frozen=True)
class UpdateReport:
    """What an update did, by recordings: added, changed, removed; `unchanged` were there already.

    entered: old lists that a new recording entered; lost: lists that lost members; refilled: those
    of them that were searched again; lists: all lists that may differ. recall: on the update's own
    sample, None before the matrix is written. made False: it was finished already. seconds: per
    step.
    """

    run: Path
    base: Path
    n: int
    k: int
    added: int
    changed: int
    removed: int
    unchanged: int
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
    `add` that the run has already counts as changed where its vector differs. Without `matrix` only
    the delta is written, whose cost grows with what changed; the same call with it goes on from
    there. Raises `UsageError`, `MissingFile` for a run that isn't finished, `InputRejected`,
    `QualityGate` when the lists got worse, `RunLocked`, `DiskFull`.
    """
    base_path, out = Path(run), Path(out)
    _check_places(base_path, out)
    if not (base_path / "run.json").exists() and (base_path / UPDATE).exists():
        _finish(base_path)
    base_run = open_run(base_path)
    sha256 = _sha256_of_matrix(base_run)
    with locked(out):
        before = names_in(out)
        # what ingest refuses it lists there, to be read
        added = _added(base_run, out, add, options)
        mark = fingerprint(matrix=sha256, add=added and added.fingerprint, remove=sorted(remove))
        with unless_refused(out, before):
            known = is_begun(out, base_run, sha256, mark)
            finished = _report_of(out, made=False) if known and _is_finished(out, mark) else None
            if finished is not None:
                _keep_cells(
                    open_run(out), read_cells(base_run.folder / "cells", fingerprint=sha256), mark
                )
                shutil.rmtree(out / "incoming", ignore_errors=True)
                return finished
            steps = Run(out, base_run.config)
            if matrix or not delta_is_finished(out / "delta", fingerprint=mark):
                old = checked_run(steps, base_run)
                if not delta_is_finished(out / "delta", fingerprint=mark):
                    _make_delta(steps, old, added, list(remove), mark)
                if matrix:
                    _write_run(steps, old, mark)
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
) -> VectorSet | None:
    paths = _paths(add)
    if not paths:
        return None
    if _is_vector_set(paths):
        return open_vector_set(paths[0])
    options = options or IngestOptions(workers=available_cores())
    geometry = old_vectors(base).geometry
    report = reading.ingest(paths, out / "incoming", replace(options, base=geometry))
    twice = sum(report.rejected.get(reason, 0) for reason in TWICE)
    if twice:
        raise InputRejected(
            f"{twice:,} recordings to add come more than once; see {report.rejects_file}. Name each"
            " once"
        )
    return open_vector_set(out / "incoming")


def _cells(steps: Run, old: OldRun, base: Base) -> UpdateCells:
    with steps.step("cells") as facts:
        cells = read_cells(old.cells, fingerprint=old.sha256)
        facts["kept"] = cells is not None
        if cells is None:
            cells = prepared_cells(base)
            with locked(old.run.folder):
                write_cells(old.cells, cells, fingerprint=old.sha256)
        facts["cells"] = len(cells.centres)
    return cells


def _make_delta(
    steps: Run, old: OldRun, added: VectorSet | None, remove: list[str], mark: str
) -> None:
    with steps.step("changes") as facts:
        change: Change = changes(old.vectors, added, remove)
        if change.nothing:
            raise InputRejected(_nothing_to_do(change))
        facts |= {"added": change.added, "changed": change.changed, "removed": len(change.gone)}
    with old.opened() as base:
        cells = _cells(steps, old, base)
        with steps.step("update") as facts:
            delta = computed_delta(base, change, cells, added)
            facts |= {name: delta.facts[name] for name in ("refilled", "entered", "ratio")}
            write_delta(steps.folder / "delta", delta, fingerprint=mark)


def _nothing_to_do(change: Change) -> str:
    if not change.unchanged:
        return "nothing to do: name recordings with --add or --remove"
    return (
        f"nothing to do: all {change.unchanged:,} recordings to add are in the run already, with"
        " the same vectors"
    )


def _write_run(steps: Run, old: OldRun, mark: str) -> None:
    """Vector set, matrix and cells of the run that the delta makes; kept steps aren't repeated."""
    out = steps.folder
    delta = read_delta(out / "delta", fingerprint=mark)
    cells = read_cells(old.cells, fingerprint=old.sha256)
    if cells is None:
        raise MissingFile(
            f"expected in {old.cells} what the delta in {out} was computed from, it is gone: remove"
            f" {out} and run the same update again"
        )
    with old.opened() as base:
        # the disk has its time while the processor has its
        with steps.step("write vectors, check recall") as facts, ThreadPoolExecutor(1) as pool:
            writing = pool.submit(_written_set, out / "vectors", old.vectors, delta, mark)
            recall = sampled_recall(base, cells, delta, seed=old.run.config.seed)
            made = writing.result()
            facts["recall"] = round(recall, 5)
        run = create_run(out, _config(old.run.config, made))
        ends = ends_after(cells, delta, seed=run.config.seed)
        known = cells.known(base.neighbours, base.distances)
        with run.step("write matrix"):
            written = write_matrix(
                run,
                ends.of(merged_blocks(known, delta)),
                made.id_stream,
                attributes=_attributes(old, recall, mark),
                removed=made.removed,
            )
    after = ends.cells(cells.centres, cells.facts)
    write_cells(out / "cells", after, fingerprint=written.files[run.matrix.name].sha256)
    shutil.rmtree(out / "incoming", ignore_errors=True)


def _sha256_of_matrix(run: Run) -> str:
    return run.finished_matrix(verify=False).files[run.matrix.name].sha256


def _keep_cells(run: Run, cells: UpdateCells | None, mark: str) -> None:
    """Write the cells of a run whose update was stopped between its matrix and them; `cells` are
    those of the run before. Its lists begin with an empty reserve.
    """
    sha256 = _sha256_of_matrix(run)
    if cells is None or read_cells(run.folder / "cells", fingerprint=sha256) is not None:
        return
    delta = read_delta(run.folder / "delta", fingerprint=mark)
    home = ends_after(cells, delta, seed=run.config.seed).home
    ends = Ends(home, run.config.columns, seed=run.config.seed)
    with h5py.File(run.matrix, "r") as file:
        ends.read(file["neighbours"], file["distances"])
    after = ends.cells(cells.centres, cells.facts)
    write_cells(run.folder / "cells", after, fingerprint=sha256)


def _written_set(path: Path, old: VectorSet, delta: Delta, mark: str) -> VectorSet:
    try:
        made = open_vector_set(path)
        if made.manifest.facts.get("update") == mark:
            return made
    except (MissingFile, DamagedArtefact):
        pass
    return write_updated_set(path, old, delta, update=mark)


def _config(base: RunConfig, made: VectorSet) -> RunConfig:
    return replace(
        base, vectors=str(made.path.resolve()), vectors_fingerprint=made.fingerprint, n=made.n
    )


def _attributes(old: OldRun, recall: float, mark: str) -> dict[str, Any]:
    facts = old.matrix.facts
    updates = int(facts.get("updates", 0)) + 1
    return {
        "method": facts["method"],
        "method_reason": f"update {updates} of a run built by {facts['method']}",
        "recall_estimate": recall,
        "parts": 1,
        "kept": 0,
        "updates": updates,
        "updated_from": old.run.config.fingerprint,
        "update": mark,
    }


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
        steps = Run(path, base.config)
        _write_run(steps, checked_run(steps, base), frozen["fingerprint"])


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
