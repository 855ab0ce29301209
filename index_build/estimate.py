"""What a build would take, before it is started: measured in seconds on a sample, then scaled.

Owns the rough answer of `nearfield build --dry-run`; the operator's plan for machines is another
matter. Says what it assumed.
"""

import time
from dataclasses import dataclass

import numpy as np

from benchmark.methods import Asked
from index_build.duplicates import collapse
from index_build.joining import SELFJOIN, joined
from index_build.plan import (
    EXPECTED_COPIES,
    SHARD_BYTES,
    SHARD_ROWS,
    Plan,
    merges_equals,
    plan_for,
    share_of_loss,
    sizes_for,
)
from index_build.selfjoin import on_track
from index_build.selfjoin.probing import HUBS
from index_build.shards import use_threads
from index_build.whole import fits_one_task, whole_bytes
from nearfield.errors import UsageError
from nearfield.exact import exact_search
from nearfield.machine import available_cores
from nearfield.run import RunConfig
from nearfield.space import prepared
from nearfield.vectorset import VectorSet

SAMPLE_ROWS = 10_000
SAMPLE_QUERIES = 256
BASE_BYTES = 300 << 20
"""A worker process with its libraries, before any data."""
COPIES = 1.6
"""Copies per vector that overlapping shards are assumed to need; 1 with a single shard."""
JOINED_ROWS = 50_000
GROWTH = 1.13
"""Exponent of the self-join's time in n (docs/results/selfjoin/ladder.md)."""
PRODUCT_COPIES = 4.0
"""Copies per vector that a join by products is assumed to need; about 2.7 with 2 shards
(docs/results/selfjoin/inner-products.md).
"""
FOUND = 2.0
"""What the shards' lists by products take against the final ones; 1.6 to 1.8 with 8 shards."""
SETTLING = 2.5
"""What all files of shards take against the final lists when the last is settled, by distances:
about 2.1 with 8 shards of 200,000 x 128."""
RUN_ROW_BYTES = 100
"""Of a run beside its lists, per row: the matrix file's ids, homes of cells, groups of equals."""
STAGES = 2.0
"""Time of the stages on a cluster against one process (docs/results/selfjoin/workers.md)."""


@dataclass(frozen=True)
class BuildEstimate:
    """Seconds on this machine's cores, bytes of memory per worker and of disk at the most.

    workers: as many as there are cores unless asked otherwise. one_task: the memory is that of one
    task on all cores, which is given the whole join.
    """

    method: str
    reason: str
    n: int
    distinct: int
    parts: int
    workers: int
    seconds: float
    memory_bytes: int
    one_task: bool
    disk_bytes: int
    assumptions: str


def estimate_build(
    config: RunConfig, vector_set: VectorSet, *, workers: int | None = None
) -> BuildEstimate:
    """Measure a sample and scale it to the whole, for local workers.

    Cost: a few seconds and a pass for duplicates. Raises `UsageError` for less than one worker.
    """
    cores = available_cores()
    alone, workers = workers is None, cores if workers is None else workers
    if workers < 1:
        raise UsageError(f"expected at least one worker, got {workers}")
    plan = plan_for(config, _distinct(config, vector_set), track=_on_track(config, vector_set))
    whole = alone and fits_one_task(plan.n, config.d, plan.places)
    use_threads(cores)
    seconds, memory, disk, assumed = _taken(config, plan, vector_set, whole=whole)
    # as tasks are given threads: what doesn't divide stays idle
    busy = min(cores, workers * max(1, cores // workers))
    return BuildEstimate(
        method=plan.method,
        reason=plan.reason,
        n=config.n,
        distinct=plan.n,
        parts=plan.parts,
        workers=workers,
        seconds=round(seconds * cores / busy, 3),
        memory_bytes=int(BASE_BYTES + memory),
        one_task=plan.method == SELFJOIN and (whole or plan.sorted),
        disk_bytes=int(disk),
        assumptions=assumed,
    )


def _taken(
    config: RunConfig, plan: Plan, vector_set: VectorSet, *, whole: bool
) -> tuple[float, float, float, str]:
    """Seconds on all cores, bytes of memory beside a bare worker, bytes of disk; assumptions."""
    lists, vector = 8 * config.columns, 4 * config.d
    if plan.exact:
        seconds = _exact_seconds(config, plan, vector_set)
        assumed = f"{SAMPLE_QUERIES} rows measured against all others"
        return seconds, plan.n * 2 * (vector + lists), 3 * config.n * lists, assumed
    if plan.method == SELFJOIN:
        rows = min(JOINED_ROWS, config.n)
        whole = whole or plan.sorted
        stages = 1.0 if whole else STAGES
        seconds = stages * _method_seconds(config, plan, vector_set, (rows, GROWTH))
        memory, disk = _selfjoin_bytes(config, plan, whole=whole)
        # a further row of the matrix for each that equals another, and its list waits for it
        disk += (config.n - plan.n) * (2 * 8 * plan.places + RUN_ROW_BYTES)
        assumed = f"{rows:,} rows measured, growth with n to the power of {GROWTH}, " + (
            "in one task" if whole else f"the stages {stages} times one process"
        )
        if not whole:
            assumed += f", {_copies(config)} copies per vector"
        return seconds, memory, disk, assumed
    copies = COPIES if plan.parts > 1 else 1.0
    seconds = copies * _method_seconds(config, plan, vector_set, (SAMPLE_ROWS, 1.0))
    assumed = (
        f"{SAMPLE_ROWS:,} rows measured, growth with n assumed linear, {copies} copies per vector"
    )
    at_once = min(plan.n, SHARD_ROWS * copies)
    disk = copies * config.n * (vector + lists) + 2 * config.n * lists
    return seconds, at_once * 2 * (vector + lists), disk, assumed


def _copies(config: RunConfig) -> float:
    return PRODUCT_COPIES if config.space == "ip" else EXPECTED_COPIES


def _selfjoin_bytes(config: RunConfig, plan: Plan, *, whole: bool) -> tuple[float, float]:
    """Bytes of memory of a task, with what it writes, and of disk at the most."""
    k = max(1, plan.places)
    lists, vector = 8 * k, 4 * config.d
    sizes = sizes_for(plan.n, config.d, k)
    part = sizes.part_rows * lists
    if plan.sorted:
        line = plan.n * (12 + 16 * config.d)
        return max(100 * plan.n, line + 2 * part), line + alone_disk_bytes(plan.n, k)
    if whole:
        return whole_bytes(plan.n, config.d, k), alone_disk_bytes(plan.n, k)
    copies, products = _copies(config), config.space == "ip"
    disk = shards_disk_bytes(plan.n, config.d, k, products=products)
    if config.space == "ip":
        targets = min(plan.n, 2 * plan.n / sizes.shards + max(HUBS)) * vector
        return targets + sizes.aligned.part_rows * (2 * vector + 5 * lists), disk
    # the task's own, and what it writes of it
    return 2 * min(SHARD_BYTES, plan.n * copies * (vector + 2 * lists)), disk


def alone_disk_bytes(n: int, k: int) -> float:
    """Of a run at the most, by one task: its parts, and the matrix that is made of them."""
    return n * (2 * 8 * k + RUN_ROW_BYTES)


def shards_disk_bytes(n: int, d: int, k: int, *, products: bool = False) -> float:
    """Of a run at the most, in shards: a stage's files go when those of the next but one are there;
    by distances, when all are settled.

    Blocks carry vectors only where hosts don't hold them all (docs/adr/0015), and by products.
    """
    lists = 8 * k
    if products:
        block = PRODUCT_COPIES * (4 * d + 16)
        most = max(block + FOUND * lists, FOUND * lists + lists, 2 * lists)
    else:
        block = EXPECTED_COPIES * (16 if sizes_for(n, d, k).held else 4 * d + 16)
        most = max(block + SETTLING * lists - RUN_ROW_BYTES, 2 * lists)
    return n * (most + RUN_ROW_BYTES)


def _distinct(config: RunConfig, vector_set: VectorSet) -> int:
    """As the build counts, but for vectors that only become equal by scaling under cosine."""
    merged = merges_equals(config)
    return len(collapse(vector_set.vectors).representatives) if merged else config.n


def _on_track(config: RunConfig, vector_set: VectorSet) -> bool:
    if config.space == "cosine":
        # at unit length, two numbers are a circle
        return config.d <= 2
    return on_track(vector_set.vectors, config.space)


def _exact_seconds(config: RunConfig, plan: Plan, vector_set: VectorSet) -> float:
    vectors = prepared(np.asarray(vector_set.vectors), config.space)
    rows = np.arange(min(SAMPLE_QUERIES, config.n), dtype=np.int32)
    exact_search(vectors[:2], vectors[:4], 1, space=config.space)  # compiles the kernels
    started = time.perf_counter()
    exact_search(vectors[rows], vectors, config.k, space=config.space, own_rows=rows)
    return (time.perf_counter() - started) * plan.n / len(rows)


def _method_seconds(
    config: RunConfig, plan: Plan, vector_set: VectorSet, scaling: tuple[int, float]
) -> float:
    """Seconds of the whole from a sample of so many rows, by that exponent of n."""
    rows, exponent = scaling
    chosen = np.random.default_rng(config.seed).choice(config.n, min(rows, config.n), replace=False)
    vectors = prepared(vector_set.vectors[np.sort(chosen)], config.space)
    whole = plan.method == SELFJOIN
    recall = config.recall if whole else share_of_loss(config.recall, 0)
    asked = Asked(config.k, config.space, recall, available_cores(), config.seed)
    if whole:
        joined(plan.method, vectors, asked)  # compiles the kernels
    started = time.perf_counter()
    joined(plan.method, vectors, asked)
    return float((time.perf_counter() - started) * (plan.n / len(vectors)) ** exponent)
