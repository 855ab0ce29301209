"""The self-join over a cluster, stage by stage, from distinct vectors to final parts.

Owns the order of the stages (index_build/stages.py, product_stages.py, track_stages.py), what is
removed when, and the second attempt where the measured recall is too low. Resumes from files, the
last stage first: what a finished stage was made from isn't needed any more. Holds no numerics.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from index_build import found, product_stages, stages, track_stages
from index_build.final import FinalRows
from index_build.inputs import JoinInput
from index_build.make import Maker, Wanted
from index_build.own_disk import forget, numbers_kept
from index_build.plan import ATTEMPTS, Plan, recall_to_ask, sizes_for
from index_build.segments import open_segments, segments_finished
from index_build.vector_file import at_hand
from index_build.whole import fits_one_task, whole_task
from index_build.work import Work, final_part, judged_recall, keep_homes, part_judged
from nearfield.cluster import Task, on_workers, workers_by_host
from nearfield.locations import location
from nearfield.manifest import fingerprint
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
    run: Run, plan: Plan, inputs: JoinInput, maker: Maker, *, one_task: bool
) -> tuple[tuple[FinalRows, ...], float, Homes | None]:
    """The final lists, by ascending rows, the recall on the plan's sample, and the cells, None
    where everything was compared.

    one_task: they may be made by one, where this machine can hold all.
    """
    for attempt in range(ATTEMPTS):
        work = _work(run, plan, inputs, attempt)
        whole = one_task and fits_one_task(work.n, run.config.d, work.k)
        way = _way(work, maker, on_track=plan.sorted, whole=whole)
        final = way.final()
        with run.step("estimate") as facts:
            recall = facts["recall"] = way.recall()
        if recall >= run.config.recall:
            break
    return tuple(final), recall, _homes(work)


def _work(run: Run, plan: Plan, inputs: JoinInput, attempt: int) -> Work:
    config, k = run.config, plan.places
    recall, sizes = recall_to_ask(config.recall, attempt), sizes_for(plan.n, config.d, k)
    if config.space == "ip":
        sizes = sizes.aligned
    return Work(
        directory=str(run.path / "shards" / f"{attempt}"),
        parts=str(run.path / "parts"),
        vectors=str(inputs.path.resolve()),
        fingerprint=fingerprint(
            run=config.fingerprint, attempt=attempt, n=plan.n, k=k, sizes=vars(sizes)
        ),
        n=plan.n,
        k=k,
        space=config.space,
        recall=recall,
        seed=config.seed,
        sizes=sizes,
        several=str(inputs.several.resolve()) if inputs.several else "",
    )


def _way(work: Work, maker: Maker, *, on_track: bool, whole: bool) -> "_Way":
    if on_track:
        return _Sorted(work, maker)
    if whole:
        return _Whole(work, maker)
    return _Products(work, maker) if work.space == "ip" else _Distances(work, maker)


class _Way(ABC):
    """The stages of one way of joining; each makes what isn't there yet."""

    def __init__(self, work: Work, maker: Maker) -> None:
        self.work, self.maker = work, maker

    @abstractmethod
    def final(self) -> list[FinalRows]:
        """Finished lists as they are; else whatever is missing on the way to them, made."""

    def recall(self) -> float:
        """Of what `final` gave, on the plan's sample."""
        numbers = range(len(self.work.part_starts()))
        return judged_recall(part_judged(self.work, number) for number in numbers)

    def _make(self, stage: str, kind: str, function: Function, count: int) -> None:
        self.maker.make(stage, self._wanted(kind, function, count))

    def _parts(self, function: Function) -> list[Wanted]:
        return self._wanted("part", function, len(self.work.part_starts()))

    def _made_parts(self, stage: str, parts: list[Wanted]) -> list[FinalRows]:
        self.maker.make(stage, parts)
        return self._final_parts()

    def _final_parts(self) -> list[FinalRows]:
        return [final_part(self.work, number) for number in range(len(self.work.part_starts()))]

    def _wanted(self, kind: str, function: Function, count: int) -> list[Wanted]:
        return [self._one(kind, function, number) for number in range(count)]

    def _one(self, kind: str, function: Function, number: int) -> Wanted:
        path, mark = self.work.path(kind, number), self.work.mark(kind, number)
        return Wanted(
            path,
            Task(f"{kind} {path}", function, (self.work, number)),
            # asked again when the stage is made: a file is read once
            functools.cache(lambda: segments_finished(path, fingerprint=mark)),
        )

    def _remove(self, *kinds: str) -> None:
        for kind in kinds:
            for path in location(self.work.directory).glob(f"{kind}-*"):
                path.unlink(missing_ok=True)


class _Whole(_Way):
    def final(self) -> list[FinalRows]:
        # all by one task: parts that are there without its own file are made again
        parts, whole = self._parts(whole_task), self._one("whole", whole_task, 0)
        all_there = replace(whole, finished=lambda: whole.finished() and _all_finished(parts))
        self.maker.make("join", [all_there])
        return self._final_parts()

    def recall(self) -> float:
        return float(open_segments(self.work.path("whole")).facts["recall"])


class _Distances(_Way):
    def final(self) -> list[FinalRows]:
        work, shards = self.work, self.work.sizes.shards
        self._plan()
        if not self._in_cells:
            return self._made_parts("sweep", self._parts(stages.sweep_task))
        merged = self._wanted("merged", found.merged_task, shards)
        if not _all_finished([*merged, *self._wanted("lists", found.lists_task, shards)]):
            self._lists()
        self.maker.make("merge", self._placed(merged))
        on_workers(self.maker.client, forget, work, found.OWN)
        self._remove("block", "limits", "sent", found.OWN)
        return found.final_rows(work)

    def recall(self) -> float:
        if not self._in_cells:
            return super().recall()
        return judged_recall(open_segments(file).facts for file in found.final_files(self.work))

    @property
    def _in_cells(self) -> bool:
        return bool(self.work.plan().facts["cells"])

    def _placed(self, merged: list[Wanted]) -> list[Wanted]:
        """Each with the workers of hosts that have what it needs; none may have it any more."""
        workers_of: dict[int, tuple[str, ...]] = {}
        for workers in workers_by_host(self.maker.client):
            answers = on_workers(
                self.maker.client, numbers_kept, self.work, found.OWN, len(merged),
                workers=workers[:1],
            )  # fmt: skip
            for number in answers.get(workers[0], ()):
                workers_of[number] = workers_of.get(number, ()) + workers
        return [_at(one, workers_of.get(number, ())) for number, one in enumerate(merged)]

    def _plan(self) -> None:
        """By machines that have the vectors, but for the first cells, which others can train.

        Those that haven't fetch them meanwhile.
        """
        work, plan = self.work, self._one("plan", stages.plan_task, 0)
        if plan.finished():
            self.maker.make("plan", [plan])
            return
        near, far = self._hosts()
        if work.sizes.held:
            self.maker.begin(
                [
                    Task(f"copy of {work.vectors} for {host[0]}", stages.fetch_task, (work,), host)
                    for host in far
                ]
            )
        truth, training, cells = (
            self._one(kind, function, 0)
            for kind, function in (
                ("truth", stages.truth_task),
                ("training", stages.training_task),
                ("cells", stages.cells_task),
            )
        )
        before = [[_at(truth, near)]]
        if stages.first_cells(work):
            before = [[_at(training, near)]] if near and far else []
            before += [[_at(truth, near), cells]]
        self.maker.make("plan", [_at(plan, near)], before=before)
        self._remove("truth", "training", "cells")

    def _hosts(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Workers that have the vectors, and the workers of each host that hasn't."""
        near, far = tuple[str, ...](), list[tuple[str, ...]]()
        for workers in workers_by_host(self.maker.client):
            asked = on_workers(self.maker.client, at_hand, self.work.vectors, workers=workers[:1])
            if asked.get(workers[0]):
                near += workers
            else:
                far.append(workers)
        return near, far

    def _lists(self) -> None:
        """All that the merge needs, and what that is made from: a host's own files may be gone."""
        work = self.work
        self._make("partition", "block", stages.block_task, len(work.blocks()))
        # a single shard has no guests
        if work.sizes.shards > 1:
            self._make("join residents", "limits", stages.limits_task, work.sizes.shards)
        # what is begun last decides how long the others wait for it
        sizes, lists = stages.shard_sizes(work), self._lists_and_sent()
        largest_first = [lists[shard] for shard in np.argsort(-sizes, kind="stable")]
        self.maker.make("join", largest_first)
        self._keep_homes()

    def _lists_and_sent(self) -> list[Wanted]:
        lists, sent = (self._wanted(kind, found.lists_task, self.work.sizes.shards)
                       for kind in ("lists", "sent"))  # fmt: skip

        def both(pair: Sequence[Wanted]) -> Callable[[], bool]:
            return lambda: _all_finished(pair)

        return [replace(pair[0], finished=both(pair)) for pair in zip(lists, sent, strict=True)]

    def _keep_homes(self) -> None:
        """Write the home of every point, which the blocks know, before they are removed."""
        work, blocks = self.work, range(len(self.work.blocks()))
        if not all(work.path("block", it).exists() for it in blocks):
            return
        home = np.empty(work.n, np.int32)
        for block in (open_segments(work.path("block", it)) for it in blocks):
            for shard in range(work.sizes.shards):
                home[block.read(2 * shard, "points")] = block.read(2 * shard, "home")
        keep_homes(work, work.plan().read(0, "centres"), home)


class _Products(_Way):
    def final(self) -> list[FinalRows]:
        work = self.work
        self._make("plan", "plan", product_stages.plan_task, 1)
        if not work.plan().facts["cells"]:
            return self._made_parts("sweep", self._parts(product_stages.sweep_task))
        parts = self._parts(product_stages.part_task)
        if not _all_finished(parts):
            self._lists()
        made = self._made_parts("merge", parts)
        self._remove("begun", "found")
        return made

    def _lists(self) -> None:
        shards = self.work.sizes.shards
        begun = self._wanted("begun", product_stages.begun_task, shards)
        # a single shard has no guests
        found = self._wanted("found", product_stages.found_task, shards if shards > 1 else 0)
        if not _all_finished([*begun, *found]):
            self._make("partition", "block", product_stages.block_task, len(self.work.blocks()))
        self.maker.make("join", begun)
        self.maker.make("join guests", found)
        self._remove("block")


class _Sorted(_Way):
    def final(self) -> list[FinalRows]:
        self._make("plan", "plan", track_stages.plan_task, 1)
        return self._made_parts("walk", self._parts(track_stages.part_task))

    def recall(self) -> float:
        return 1.0


def _at(one: Wanted, workers: tuple[str, ...]) -> Wanted:
    return replace(one, task=replace(one.task, workers=workers))


def _all_finished(wanted: Sequence[Wanted]) -> bool:
    return all(one.finished() for one in wanted)


def _homes(work: Work) -> Homes | None:
    path = work.path("homes")
    if not segments_finished(path, fingerprint=work.mark("homes")):
        return None
    found = open_segments(path)
    return Homes(found.read(0, "centres"), found.read(0, "home"))
