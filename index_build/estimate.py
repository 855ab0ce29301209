"""What a build would take, before it is started: measured in seconds on a sample, then scaled.

Owns the rough answer of `nearfield build --dry-run`; the operator's plan for machines is another
matter. Says what it assumed.
"""

import time
from dataclasses import dataclass

import numpy as np

from benchmark.methods import Asked
from index_build.duplicates import collapse
from index_build.joining import joined
from index_build.plan import SHARD_ROWS, Plan, plan_for, share_of_loss
from index_build.shards import use_threads
from nearfield.cluster import available_cores
from nearfield.exact import exact_search
from nearfield.run import RunConfig
from nearfield.space import prepared
from nearfield.vectorset import VectorSet

SAMPLE_ROWS = 10_000
SAMPLE_QUERIES = 256
BASE_BYTES = 300 << 20
"""A worker process with its libraries, before any data."""
COPIES = 1.6
"""Copies per vector that overlapping shards are assumed to need; 1 with a single shard."""


@dataclass(frozen=True)
class BuildEstimate:
    """Seconds on this machine's cores, bytes of memory per worker and of disk at the most."""

    method: str
    reason: str
    n: int
    distinct: int
    parts: int
    seconds: float
    memory_bytes: int
    disk_bytes: int
    assumptions: str


def estimate_build(config: RunConfig, vector_set: VectorSet) -> BuildEstimate:
    """Measure a sample and scale it to the whole. Cost: a few seconds and a pass for duplicates."""
    plan = plan_for(config, _distinct(config, vector_set))
    copies = COPIES if plan.parts > 1 and not plan.exact else 1.0
    use_threads(available_cores())
    if plan.exact:
        seconds = _exact_seconds(config, plan, vector_set)
        assumed = f"{SAMPLE_QUERIES} rows measured against all others"
    else:
        seconds = copies * _method_seconds(config, plan, vector_set)
        assumed = (
            f"{SAMPLE_ROWS:,} rows measured, growth with n assumed linear, "
            f"{copies} copies per vector"
        )
    lists = 8 * config.columns
    rows_at_once = plan.n if plan.exact else min(plan.n, SHARD_ROWS * copies)
    part_bytes = config.n * lists if plan.exact else copies * config.n * (4 * config.d + lists)
    return BuildEstimate(
        method=plan.method,
        reason=plan.reason,
        n=config.n,
        distinct=plan.n,
        parts=plan.parts,
        seconds=round(seconds, 3),
        memory_bytes=int(BASE_BYTES + rows_at_once * (8 * config.d + 2 * lists)),
        disk_bytes=int(part_bytes + 2 * config.n * lists),
        assumptions=assumed,
    )


def _distinct(config: RunConfig, vector_set: VectorSet) -> int:
    """As the build counts, but for vectors that only become equal by scaling under cosine."""
    return config.n if config.space == "ip" else len(collapse(vector_set.vectors).representatives)


def _exact_seconds(config: RunConfig, plan: Plan, vector_set: VectorSet) -> float:
    vectors = prepared(np.asarray(vector_set.vectors), config.space)
    rows = np.arange(min(SAMPLE_QUERIES, config.n), dtype=np.int32)
    exact_search(vectors[:2], vectors[:4], 1, space=config.space)  # compiles the kernels
    started = time.perf_counter()
    exact_search(vectors[rows], vectors, config.k, space=config.space, own_rows=rows)
    return (time.perf_counter() - started) * plan.n / len(rows)


def _method_seconds(config: RunConfig, plan: Plan, vector_set: VectorSet) -> float:
    chosen = np.random.default_rng(config.seed).choice(
        config.n, min(SAMPLE_ROWS, config.n), replace=False
    )
    vectors = prepared(vector_set.vectors[np.sort(chosen)], config.space)
    asked = Asked(
        config.k, config.space, share_of_loss(config.recall, 0), available_cores(), config.seed
    )
    started = time.perf_counter()
    joined(plan.method, vectors, asked)
    return (time.perf_counter() - started) * plan.n / len(vectors)
