"""The build: from a vector set to the neighbour lists of every recording, on a Dask cluster.

Owns the choice of the way (all pairs, the self-join's cells, overlapping shards for a library) and
the stages of the first and the last. Holds no numerics; the final file is written by `dumps` from
`Built.blocks`.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from distributed import Client

from benchmark.methods.base import tie_aware_recall
from index_build.expanded import Block, expanded_blocks
from index_build.final import FinalRows
from index_build.inputs import JoinInput, join_input
from index_build.joining import SELFJOIN
from index_build.joint import Homes, joined_parts
from index_build.make import Maker, Wanted
from index_build.partition import cell_centres, cell_members, overlap_for
from index_build.plan import (
    ATTEMPTS,
    MERGE_ROWS,
    Plan,
    merges_equals,
    plan_for,
    share_of_loss,
)
from index_build.selfjoin import on_track
from index_build.shards import (
    PartTask,
    exact_part,
    merged_part,
    shard_part,
    write_shard,
)
from index_build.vector_file import forget_copy
from nearfield.cluster import Task, on_workers
from nearfield.errors import (
    DamagedArtefact,
    Infrastructure,
    InputRejected,
    MissingFile,
    UsageError,
)
from nearfield.exact import exact_search
from nearfield.files import remove_tree
from nearfield.locations import Location, location
from nearfield.manifest import fingerprint, read_manifest, write_manifest
from nearfield.neighbours import NeighbourTable, part_is_finished, read_part
from nearfield.run import Run, RunConfig
from nearfield.space import Float32s, Int32s
from nearfield.vectorset import VectorSet

PARTITION_KIND = "partition"
SAMPLE = 500
"""Rows whose exact neighbours decide the overlap and estimate the recall."""


@dataclass(frozen=True)
class Built:
    """A finished set of parts. `kept` of the `parts` were there from an interrupted run.

    homes: the cells of the self-join, of the distinct vectors; None where there are none.
    """

    plan: Plan
    inputs: JoinInput
    final: tuple[Location, ...] | tuple[FinalRows, ...]
    parts: int
    kept: int
    recall_estimate: float
    run: Run
    homes: Homes | None = None

    def blocks(self, *, reserve: bool = False) -> Iterator[Block]:
        """(first row, neighbours [m, k], distances [m, k]) of all recordings, without gaps.

        reserve: with what the plan has beyond k, where there are so many others. Memory: one part
        and a block of rows; with equal vectors lists wait on the run's disk. Raises `DiskFull`.
        """
        config = self.run.config
        return expanded_blocks(
            self.inputs.collapsed,
            self._tables(),
            config.columns + (self.plan.reserve if reserve else 0),
            own_first=config.space != "ip",
            beside=self.run.path,
        )

    def _tables(self) -> Iterator[NeighbourTable]:
        for part in self.final:
            # the file's own checksums cover what is read: no second pass for the manifest's
            yield part.table() if isinstance(part, FinalRows) else read_part(part, verify=False)


def check_config(config: RunConfig) -> None:
    """Refuse what can't give a matrix: raises `UsageError` or `InputRejected`."""
    if config.k < 1:
        raise UsageError(f"expected k of at least 1, got {config.k}")
    if not 0 < config.recall <= 1:
        raise UsageError(f"expected a recall above 0 and at most 1, got {config.recall}")
    if config.n < 2:
        raise InputRejected(
            f"a matrix needs at least 2 recordings; {config.vectors} has {config.n}"
        )
    plan_for(config, config.n)


def build_lists(
    run: Run,
    vector_set: VectorSet,
    client: Client,
    *,
    one_task: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Built:
    """Compute (or resume) the parts of a run; call under the run's lock, whose `check` it is given.

    one_task: all workers are on this machine, and the self-join may be done by one of them with
    all threads, where memory allows it; its lists are the same.

    Raises `ShardFailed` when tasks fail after their retries; finished parts are kept.
    """
    with run.step("collapse") as facts:
        inputs = join_input(vector_set, run.path / "shards", merge=merges_equals(run.config))
        track = on_track(inputs.vectors, run.config.space)
        plan = plan_for(run.config, len(inputs.vectors), track=track)
        facts |= {"recordings": vector_set.n, "distinct": plan.n, "method": plan.method}
    # workers of a cluster may have another working directory
    run = Run(run.path.resolve(), run.config)
    maker = Maker(run, client, check)
    homes = None
    final: tuple[Location, ...] | tuple[FinalRows, ...]
    if plan.method == SELFJOIN:
        final, estimate, homes = joined_parts(run, plan, inputs, maker, one_task=one_task)
    else:
        build = _Build(run, plan, inputs, maker)
        final, estimate = build.exact() if plan.exact else build.sharded()
    with suppress(Infrastructure):  # a copy in a cache: nothing to lose a finished join for
        on_workers(client, forget_copy, str(inputs.path.resolve()))
    return Built(plan, inputs, final, maker.parts, maker.kept, estimate, run, homes)


def remove_intermediate(run: Run) -> None:
    """Remove shards and parts; call once the matrix' manifest is written."""
    for name in ("shards", "parts"):
        remove_tree(run.path / name)


class _Build:
    """The stages of a build by all pairs, or by overlapping shards."""

    def __init__(self, run: Run, plan: Plan, inputs: JoinInput, maker: Maker) -> None:
        self.run, self.plan, self.inputs, self.maker = run, plan, inputs, maker

    def exact(self) -> tuple[tuple[Location, ...], float]:
        vectors = str(self.inputs.path.resolve())
        tasks = [
            Task(
                f"rows from {self.plan.block(part)[0]:,}",
                exact_part,
                (vectors, self.plan.block(part), self._part_task(f"exact-{part:05d}", 1.0)),
            )
            for part in range(self.plan.parts)
        ]
        return tuple(self._make("join", tasks)), 1.0

    def sharded(self) -> tuple[tuple[Location, ...], float]:
        rows, truth, near = self._truth()
        for attempt in range(ATTEMPTS):
            final = self._attempt(attempt, rows, near)
            estimate = tie_aware_recall(self._distances_of(final, rows), truth)
            if estimate >= self.run.config.recall:
                break
        return tuple(final), estimate

    def _truth(self) -> tuple[Int32s, Float32s, Int32s]:
        vectors, seed = self.inputs.vectors, self.run.config.seed
        with self.run.step("sample") as facts:
            size = min(SAMPLE, self.plan.n)
            chosen = np.random.default_rng(seed).choice(self.plan.n, size, replace=False)
            rows = np.sort(chosen).astype(np.int32)
            near, truth = exact_search(
                vectors[rows], vectors, self.plan.places, space=self.run.config.space, own_rows=rows
            )
            facts["rows"] = len(rows)
        return rows, truth, near

    def _attempt(self, attempt: int, sample: Int32s, near: Int32s) -> list[Location]:
        asked = share_of_loss(self.run.config.recall, attempt)
        shards = self._partition(attempt, asked, sample, near)
        tasks = [
            Task(
                f"shard {shard.name}",
                shard_part,
                (str(shard), self.plan.method, self._part_task(f"{attempt}-{shard.name}", asked)),
            )
            for shard in shards
        ]
        partial = self._make("join", tasks)
        # of a single shard, too: a library may leave places empty, which are filled there
        blocks = [
            (first, min(self.plan.n, first + MERGE_ROWS))
            for first in range(0, self.plan.n, MERGE_ROWS)
        ]
        names, vectors = [str(part) for part in partial], str(self.inputs.path.resolve())
        merges = [
            Task(
                f"merge of rows from {block[0]:,}",
                merged_part,
                (names, vectors, block, self._part_task(f"{attempt}-merged-{block[0]:010d}", 1.0)),
            )
            for block in blocks
        ]
        return self._make("merge", merges)

    def _partition(
        self, attempt: int, coverage: float, sample: Int32s, near: Int32s
    ) -> list[Location]:
        """Directories of the shards of one attempt, made anew unless all are there already."""
        directory = self.run.path / "shards" / f"{attempt}"
        mark = fingerprint(run=self.run.config.fingerprint, attempt=attempt, coverage=coverage)
        with self.run.step("partition") as facts:
            count = _finished_shards(directory, mark)
            facts["kept"] = count is not None
            if count is None:
                vectors, seed = self.inputs.vectors, self.run.config.seed
                centres = cell_centres(vectors, self.plan.parts, seed=seed)
                ratio, kept = overlap_for(
                    coverage, centres, vectors[sample], [vectors[rows] for rows in near]
                )
                cells = [rows for rows in cell_members(vectors, centres, ratio) if len(rows)]
                for number, rows in enumerate(cells):
                    target = directory / f"{number:05d}"
                    write_shard(target, rows, vectors[rows], fingerprint=mark)
                copies = sum(map(len, cells)) / self.plan.n
                facts |= {"ratio": ratio, "coverage": kept, "copies": round(copies, 3)}
                count = len(cells)
                write_manifest(
                    directory / "manifest.json",
                    kind=PARTITION_KIND,
                    fingerprint=mark,
                    format_version=1,
                    files=[],
                    facts={"shards": count, **facts},
                )
            facts["shards"] = count
        return [directory / f"{number:05d}" for number in range(count)]

    def _part_task(self, name: str, recall: float) -> PartTask:
        part = f"{name}.h5"
        config = self.run.config
        mark = fingerprint(run=config.fingerprint, part=part, parts=self.plan.parts)
        target = str(self.run.path / "parts" / part)
        return PartTask(target, mark, self.plan.places, config.space, recall, config.seed)

    def _make(self, stage: str, tasks: list[Task]) -> list[Location]:
        """Run the tasks whose part isn't there yet; the paths of all parts, in task order."""
        return self.maker.make(stage, [_wanted_part(task) for task in tasks])

    def _distances_of(self, final: list[Location], rows: Int32s) -> Float32s:
        found = np.empty((len(rows), self.plan.places), np.float32)
        for part in final:
            table = read_part(part, verify=False)
            inside = np.flatnonzero((rows >= table.rows[0]) & (rows <= table.rows[-1]))
            found[inside] = _of_rows(table, rows[inside])
        return found


def _wanted_part(task: Task) -> Wanted:
    part: PartTask = task.arguments[-1]
    path = location(part.part)
    return Wanted(path, task, lambda: part_is_finished(path, fingerprint=part.fingerprint))


def _of_rows(table: NeighbourTable, rows: Int32s) -> Float32s:
    return table.distances[np.searchsorted(table.rows, rows)]


def _finished_shards(directory: Location, mark: str) -> int | None:
    try:
        manifest = read_manifest(directory / "manifest.json", kind=PARTITION_KIND)
    except (MissingFile, DamagedArtefact):
        return None
    return int(manifest.facts["shards"]) if manifest.fingerprint == mark else None
