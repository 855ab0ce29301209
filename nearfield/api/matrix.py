"""From a vector set to a verified matrix: build, its estimate, verify."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dumps.matrix import write_matrix
from dumps.verify import Verification, verify_run
from index_build.build import Built, build_lists, check_config, remove_intermediate
from index_build.estimate import BuildEstimate, estimate_build
from index_build.update.cells import Ends, at_training, write_cells
from nearfield.cluster import ClusterOptions, connected
from nearfield.copies import open_vector_set, run_at_hand
from nearfield.errors import DamagedArtefact, MissingFile, UsageError
from nearfield.locations import Location, location
from nearfield.lock import held
from nearfield.run import Run, RunConfig, create_run
from nearfield.vectorset import VectorSet

SEED = 0


@dataclass(frozen=True)
class BuildReport:
    """What a build did. `kept` of `parts` were there from an interrupted run; `made` False: all.

    bytes_per_recording: what tasks read from and wrote to the folder that hosts share, interrupted
    runs included.
    """

    run: Location
    matrix: Location
    n: int
    k: int
    method: str
    reason: str
    recall_estimate: float
    parts: int
    kept: int
    made: bool
    seconds: Mapping[str, float]
    bytes_per_recording: int


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

    Both may be URLs of an object store (fsspec), which workers then reach by themselves. Writes
    `out/matrix.h5` with min(k, n - 1) neighbours per recording. Raises `UsageError`,
    `InputRejected`, `ShardFailed`, `StoreError` (both resumable), `DiskFull`, `RunLocked`.
    """
    vector_set, place = open_vector_set(vectors), location(out)
    config = _config(vector_set, k=k, recall=recall, method=method)
    check_config(config)
    with held(place) as check:
        run = create_run(place, config)
        finished = _finished(run)
        if finished is not None:
            remove_intermediate(run)
            return finished
        options = cluster or ClusterOptions()
        with connected(options) as client:
            built = build_lists(run, vector_set, client, one_task=options.this_machine, check=check)
        attributes = {
            "method": built.plan.method,
            "method_reason": built.plan.reason,
            "recall_estimate": built.recall_estimate,
            "parts": built.parts,
            "kept": built.kept,
        }
        check()
        _write(run, built, vector_set, attributes)
        check()
        remove_intermediate(run)
        return _report(run, attributes, made=True)


def _write(run: Run, built: Built, vector_set: VectorSet, attributes: Mapping[str, Any]) -> None:
    """The matrix; and what the first update would otherwise have to find out again."""
    blocks, ends = built.blocks(), None
    if built.homes is not None:
        home = built.homes.home[built.inputs.collapsed.group_of]
        ends = Ends(home, run.config.columns, seed=run.config.seed, reserve=built.plan.reserve)
        blocks = ends.of(built.blocks(reserve=True))
    with run.step("write matrix"):
        manifest = write_matrix(run, blocks, vector_set.id_stream, attributes=attributes)
    if ends is not None and built.homes is not None:
        cells = ends.cells(built.homes.centres, at_training(ends.home, len(built.homes.centres)))
        sha256 = manifest.files[run.matrix.name].sha256
        write_cells(run.folder / "cells", cells, fingerprint=sha256)


def estimate(
    vectors: Path | str,
    *,
    k: int = 100,
    recall: float = 0.95,
    method: str = "auto",
    workers: int | None = None,
) -> BuildEstimate:
    """What `build` would do and cost on this machine with so many local workers (default: one per
    core): method, parts, seconds, memory and disk in bytes.
    """
    vector_set = open_vector_set(vectors)
    config = _config(vector_set, k=k, recall=recall, method=method)
    check_config(config)
    return estimate_build(config, vector_set, workers=workers)


def verify(run: Path | str, *, sample: int = 1000, recall: float | None = None) -> Verification:
    """Check the matrix of a run with code that shares nothing with the builder; keep the report.

    Returns the report whether it passed or not; `Verification.passed` tells.
    """
    with run_at_hand(run) as opened:
        with opened.step("verify") as facts:
            report = verify_run(opened, sample=sample, seed=SEED, recall=recall)
            facts |= {"passed": report.passed, "recall": report.recall}
        return report


def _config(vector_set: VectorSet, *, k: int, recall: float, method: str) -> RunConfig:
    if len(vector_set.removed):
        raise UsageError(
            f"{vector_set.home} has {len(vector_set.removed):,} removed recordings, which a build"
            " would bring back. First: nearfield compact VECTORS --out FRESH"
        )
    return RunConfig(
        vectors=str(vector_set.home),
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
        matrix=run.matrix_at,
        n=run.config.n,
        k=run.config.columns,
        method=facts["method"],
        reason=facts["method_reason"],
        recall_estimate=facts["recall_estimate"],
        parts=facts["parts"],
        kept=facts["kept"] if made else facts["parts"],
        made=made,
        seconds={step["step"]: step["seconds"] for step in run.steps()},
        bytes_per_recording=sum(step.get("bytes_per_recording", 0) for step in run.steps()),
    )
