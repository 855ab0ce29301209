"""The self-join over a cluster, stage by stage, from distinct vectors to final parts.

Owns the order of the stages (index_build/stages.py), what is removed when, and the second attempt
where the measured recall is too low. Resumes from files, the last stage first: what a finished
stage was made from isn't needed any more. Holds no numerics.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.methods.base import tie_aware_recall
from index_build.inputs import JoinInput
from index_build.make import Maker, Wanted
from index_build.plan import ATTEMPTS, Plan, recall_to_ask, sizes_for
from index_build.segments import open_segments, segments_finished, write_segments
from index_build.stages import (
    Work,
    block_task,
    limits_task,
    lists_task,
    part_task,
    plan_task,
    sweep_task,
)
from nearfield.cluster import Task
from nearfield.locations import Location, location
from nearfield.manifest import fingerprint
from nearfield.neighbours import part_is_finished, read_part
from nearfield.run import Run
from nearfield.space import Float32s, Int32s

Function = Callable[..., None]


@dataclass(frozen=True)
class Homes:
    """The cells of a join, for whoever extends its lists: centres float32 [c, d], home int32 [n]
    of the distinct vectors."""

    centres: Float32s
    home: Int32s


def joined_parts(
    run: Run, plan: Plan, inputs: JoinInput, maker: Maker
) -> tuple[tuple[Location, ...], float, Homes | None]:
    """The final parts, by ascending rows, the recall on the plan's sample, and the cells, None
    where everything was compared."""
    for attempt in range(ATTEMPTS):
        work = _work(run, plan, inputs, attempt)
        parts = _Attempt(work, maker).parts()
        with run.step("estimate") as facts:
            recall = facts["recall"] = _recall(work, parts)
        if recall >= run.config.recall:
            break
    return tuple(parts), recall, _homes(work)


def _work(run: Run, plan: Plan, inputs: JoinInput, attempt: int) -> Work:
    config, k = run.config, min(run.config.k, plan.n - 1)
    recall, sizes = recall_to_ask(config.recall, attempt), sizes_for(plan.n, config.d, k)
    return Work(
        directory=str(run.path / "shards" / f"{attempt}"),
        parts=str(run.path / "parts"),
        vectors=str(inputs.path.resolve()),
        fingerprint=fingerprint(
            run=config.fingerprint, attempt=attempt, n=plan.n, sizes=vars(sizes)
        ),
        n=plan.n,
        k=k,
        space=config.space,
        recall=recall,
        seed=config.seed,
        sizes=sizes,
    )


class _Attempt:
    def __init__(self, work: Work, maker: Maker) -> None:
        self.work, self.maker = work, maker

    def parts(self) -> list[Location]:
        """Finished parts as they are; else whatever is missing on the way to them, made."""
        work = self.work
        self._make("plan", "plan", plan_task, 1)
        count = len(work.part_starts())
        if not work.plan().facts["cells"]:
            return self.maker.make("sweep", self._wanted("part", sweep_task, count))
        parts = self._wanted("part", part_task, count)
        if not _all_finished(parts):
            self._lists()
        made = self.maker.make("merge", parts)
        self._remove("lists")
        return made

    def _lists(self) -> None:
        work = self.work
        lists = self._wanted("lists", lists_task, work.sizes.shards)
        if not _all_finished(lists):
            self._make("partition", "block", block_task, len(work.blocks()))
            # a single shard has no guests
            if work.sizes.shards > 1:
                self._make("join residents", "limits", limits_task, work.sizes.shards)
        self.maker.make("join", lists)
        # what an update reads: it works on local paths only
        if isinstance(location(work.directory), Path):
            _keep_homes(work)
        self._remove("block", "limits")

    def _make(self, stage: str, kind: str, function: Function, count: int) -> None:
        self.maker.make(stage, self._wanted(kind, function, count))

    def _wanted(self, kind: str, function: Function, count: int) -> list[Wanted]:
        return [self._one(kind, function, number) for number in range(count)]

    def _one(self, kind: str, function: Function, number: int) -> Wanted:
        path, mark = self.work.path(kind, number), self.work.mark(kind, number)
        finished = part_is_finished if kind == "part" else segments_finished
        return Wanted(
            path,
            Task(f"{kind} {path}", function, (self.work, number)),
            # asked again when the stage is made: a file is read once
            functools.cache(lambda: finished(path, fingerprint=mark)),
        )

    def _remove(self, *kinds: str) -> None:
        for kind in kinds:
            for path in location(self.work.directory).glob(f"{kind}-*"):
                path.unlink(missing_ok=True)


def _keep_homes(work: Work) -> None:
    """Write the home of every point, which the blocks know, before they are removed."""
    mark, blocks = work.mark("homes"), range(len(work.blocks()))
    if segments_finished(work.path("homes"), fingerprint=mark) or not all(
        work.path("block", it).exists() for it in blocks
    ):
        return
    home = np.empty(work.n, np.int32)
    for block in (open_segments(work.path("block", it)) for it in blocks):
        for shard in range(work.sizes.shards):
            home[block.read(2 * shard, "points")] = block.read(2 * shard, "home")
    arrays = {"centres": work.plan().read(0, "centres"), "home": home}
    write_segments(work.path("homes"), [(0, arrays)], fingerprint=mark)


def _homes(work: Work) -> Homes | None:
    path = work.path("homes")
    if not segments_finished(path, fingerprint=work.mark("homes")):
        return None
    found = open_segments(path)
    return Homes(found.read(0, "centres"), found.read(0, "home"))


def _all_finished(wanted: Sequence[Wanted]) -> bool:
    return all(one.finished() for one in wanted)


def _recall(work: Work, parts: Sequence[Location]) -> float:
    """Tie-aware recall of the parts on the plan's sample."""
    plan = work.plan()
    sample, kth = plan.read(0, "sample"), plan.read(0, "kth")
    found = np.empty((len(sample), work.k), np.float32)
    for first, part in zip(work.part_starts(), parts, strict=True):
        stop = first + work.sizes.part_rows
        inside = np.flatnonzero((sample >= first) & (sample < stop))
        if len(inside):
            table = read_part(part, verify=False)
            found[inside] = table.distances[sample[inside] - first]
    return tie_aware_recall(found, kth[:, None])
