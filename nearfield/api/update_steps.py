"""The steps of an update: the delta, the vector set, the matrix, and the cells for the next one.

Owns their order, what is done at once, and that finished ones aren't repeated. Refuses to decide
whether an update may be done (`nearfield.api.updates`).
"""

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

import h5py

from dumps.matrix import write_matrix
from index_build.update.apply import merged_blocks
from index_build.update.base import Base
from index_build.update.cells import Ends, UpdateCells, read_cells, write_cells
from index_build.update.change import Change, changes
from index_build.update.delta import delta_is_finished, read_delta, write_delta
from index_build.update.update import (
    check_size,
    computed_delta,
    ends_after,
    facts_after,
    prepared_cells,
    sampled_recall,
)
from index_build.update.vectors import Patch, patch_in, patch_of, write_updated_set
from nearfield.api.old_run import OldRun
from nearfield.errors import DamagedArtefact, MissingFile
from nearfield.lock import locked
from nearfield.run import Run, RunConfig, create_run
from nearfield.vectorset import VectorSet, open_vector_set


@dataclass(frozen=True)
class Asked:
    """What is to be added and removed; `mark` identifies the update."""

    add: VectorSet | None
    remove: tuple[str, ...]
    mark: str


def extend(steps: Run, old: OldRun, asked: Asked, *, matrix: bool) -> None:
    """Make the delta and, with `matrix`, the run. Raises what `nearfield.api.update` raises.

    The vector set is written while lists are searched: the disk has its time while the processor
    has its.
    """
    with _beside() as (pool, abandoned):
        writing = None
        if not delta_is_finished(steps.folder / "delta", fingerprint=asked.mark):
            change = _changes(steps, old, asked)
            patch = patch_of(change, old.vectors, asked.add)
            if matrix:
                writing = pool.submit(_written_set, steps, old, patch, asked.mark, abandoned)
            _make_delta(steps, old, change, patch, asked.mark)
        if matrix:
            _write_run(steps, old, asked.mark, writing)


def finish(steps: Run, old: OldRun, mark: str) -> None:
    """Make the run of a delta that is finished."""
    _write_run(steps, old, mark, None)


def matrix_sha256(run: Run) -> str:
    """Identifies the lists of a finished run."""
    return run.finished_matrix(verify=False).files[run.matrix.name].sha256


def keep_cells(run: Run, cells: UpdateCells | None, mark: str) -> None:
    """Write the cells of a run whose update was stopped between its matrix and them; `cells` are
    those of the run before. Its lists begin with an empty reserve.
    """
    sha256 = matrix_sha256(run)
    if cells is None or read_cells(run.folder / "cells", fingerprint=sha256) is not None:
        return
    delta = read_delta(run.folder / "delta", fingerprint=mark)
    home = ends_after(cells, delta, seed=run.config.seed).home
    ends = Ends(home, run.config.columns, seed=run.config.seed, reserve=0)
    with h5py.File(run.matrix, "r") as file:
        ends.read(file["neighbours"], file["distances"])
    after = ends.cells(cells.centres, facts_after(cells, delta))
    write_cells(run.folder / "cells", after, fingerprint=sha256)


def _changes(steps: Run, old: OldRun, asked: Asked) -> Change:
    with steps.step("changes") as facts:
        change = changes(old.vectors, asked.add, asked.remove)
        check_size(old.run.config, change)
        facts |= {"added": change.added, "changed": change.changed, "removed": len(change.gone)}
    return change


def _make_delta(steps: Run, old: OldRun, change: Change, patch: Patch, mark: str) -> None:
    with old.opened() as base:
        cells = _cells(steps, old, base)
        with steps.step("update") as facts:
            delta = computed_delta(base, change, cells, patch)
            facts |= {name: delta.facts[name] for name in ("refilled", "entered", "ratio")}
            write_delta(steps.folder / "delta", delta, fingerprint=mark)


def _cells(steps: Run, old: OldRun, base: Base) -> UpdateCells:
    with steps.step("cells") as facts:
        cells = read_cells(old.cells, fingerprint=old.sha256)
        facts["kept"] = cells is not None
        if cells is None:
            made = prepared_cells(base)
            with locked(old.run.folder):
                # another first update may have been quicker: then its cells are those of the run
                cells = read_cells(old.cells, fingerprint=old.sha256)
                if cells is None:
                    cells = made
                    write_cells(old.cells, cells, fingerprint=old.sha256)
        facts["cells"] = len(cells.centres)
    return cells


def _write_run(steps: Run, old: OldRun, mark: str, writing: Future[VectorSet] | None) -> None:
    """Vector set, matrix and cells of the run that the delta makes. writing: the set, begun."""
    out = steps.folder
    delta = read_delta(out / "delta", fingerprint=mark)
    cells = read_cells(old.cells, fingerprint=old.sha256)
    if cells is None:
        raise MissingFile(
            f"expected in {old.cells} what the delta in {out} was computed from, it is gone: remove"
            f" {out} and run the same update again"
        )
    with old.opened() as base:
        with steps.step("write vectors, check recall") as facts, _beside() as (pool, abandoned):
            if writing is None:
                writing = pool.submit(_written_set, steps, old, patch_in(delta), mark, abandoned)
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
    after = ends.cells(cells.centres, facts_after(cells, delta))
    write_cells(out / "cells", after, fingerprint=written.files[run.matrix.name].sha256)
    shutil.rmtree(out / "incoming", ignore_errors=True)


@contextmanager
def _beside() -> Iterator[tuple[ThreadPoolExecutor, Event]]:
    """A thread for what is done beside the block, and what ends it when the block fails: else who
    pressed Ctrl-C would wait for gigabytes.
    """
    abandoned = Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool, abandoned
        except BaseException:
            abandoned.set()
            raise


def _written_set(steps: Run, old: OldRun, patch: Patch, mark: str, abandoned: Event) -> VectorSet:
    path = steps.folder / "vectors"
    try:
        made = open_vector_set(path)
        if made.manifest.facts.get("update") == mark:
            return made
    except (MissingFile, DamagedArtefact):
        pass
    return write_updated_set(path, old.vectors, patch, update=mark, abandoned=abandoned)


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
        # what the next update is measured against: samples of updates would let it sink
        "recall_built": old.built_recall,
        "parts": 1,
        "kept": 0,
        "updates": updates,
        "updated_from": old.run.config.fingerprint,
        "update": mark,
    }
