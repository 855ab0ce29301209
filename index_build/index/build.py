"""Building a sharded index: cut, index each shard on the cluster, measure recall, finish.

Owns the order and what is kept when it is resumed. Holds no numerics.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from index_build.index.cells import bounded_shards
from index_build.index.layout import (
    FILES,
    FORMAT_VERSION,
    KIND,
    LIBRARY_MANIFEST,
    IndexConfig,
    IndexPlan,
    create_index,
    finished_index,
    library_bytes,
    shard_path,
)
from index_build.index.libraries import check_method, chosen_method, memory_factor
from index_build.index.profile import measured_recall
from index_build.index.search import MEMORY_BYTES, ShardedIndex
from index_build.index.store import ShardStore
from index_build.index.work import shard_index, shard_is_finished
from index_build.inputs import join_input
from index_build.shards import read_shard, write_shard
from nearfield.cluster import Task, run_tasks
from nearfield.errors import DamagedArtefact, InputRejected, MissingFile, UsageError
from nearfield.files import atomic_path
from nearfield.machine import available_cores
from nearfield.manifest import Manifest, fingerprint, read_manifest, write_manifest
from nearfield.space import Float32s, Int32s
from nearfield.vectorset import VectorSet

PARTITION_KIND = "index partition"
WORK = "work"
SHARD_ROWS = 50_000
"""The bound on a shard: two minutes of building for the slowest library."""
FILL = 0.75


@dataclass(frozen=True)
class IndexOptions:
    """Choices: `method` or auto, the hard bound on a shard, the most neighbours to measure for."""

    method: str = "auto"
    shard_rows: int = SHARD_ROWS
    k: int = 100
    seed: int = 0


@dataclass(frozen=True)
class BuiltIndex:
    """What a build made. `recall`: per k, per number of shards asked, on `sample` own rows."""

    path: Path
    config: IndexConfig
    reason: str
    shards: int
    kept: int
    made: bool
    facts: Mapping[str, Any]


def plan_index(vector_set: VectorSet, options: IndexOptions) -> IndexPlan:
    """What `build_index` would do; raises `UsageError`, `InputRejected`."""
    config, reason = configured(vector_set, options)
    shards = -(-config.n // max(1, int(config.shard_rows * FILL)))
    shards = 1 if config.n <= config.shard_rows else shards
    library = memory_factor(config.method, config.d)
    return IndexPlan(
        method=config.method,
        reason=reason,
        n=config.n,
        d=config.d,
        shards=shards,
        disk_bytes=int(config.n * (4 * config.d + library + 16)),
        memory_bytes=int(min(config.n, config.shard_rows) * (4 * config.d + 2 * library)),
    )


def build_index(
    vector_set: VectorSet, out: Path, options: IndexOptions, client: Client
) -> BuiltIndex:
    """Build the index `out`, or resume it; call under its lock. Finished shards are kept.

    Raises `UsageError`, `InputRejected`, `ShardFailed` (what was finished is kept), `DiskFull`.
    """
    config, reason = configured(vector_set, options)
    create_index(out, config)
    done = _finished(out, config)
    if done is not None:
        shutil.rmtree(out / WORK, ignore_errors=True)  # of a run that ended before it could
        return _built(out, config, reason, done, kept=int(done.facts["shards"]), made=False)
    shards = cut_into_shards(vector_set, out, config)
    todo = [number for number in range(shards) if not shard_is_finished(out, config, number)]
    tasks = [
        Task(f"shard {number:05d}", shard_index, (str(out.resolve()), number)) for number in todo
    ]
    if tasks:
        run_tasks(client, "index", tasks)
    facts = {"shards": shards, "method_reason": reason, **asdict(config)}
    largest = max(library_bytes(out, number) for number in range(shards))
    store = ShardStore(out, config, max(MEMORY_BYTES, largest), available_cores())
    facts |= measured_recall(ShardedIndex(out, store, facts))
    manifest = write_manifest(
        out / "manifest.json",
        kind=KIND,
        fingerprint=config.fingerprint,
        format_version=FORMAT_VERSION,
        files=FILES,
        facts=facts,
    )
    shutil.rmtree(out / WORK, ignore_errors=True)
    return _built(out, config, reason, manifest, kept=shards - len(todo), made=True)


def configured(vector_set: VectorSet, options: IndexOptions) -> tuple[IndexConfig, str]:
    """The configuration of an index and why its method; raises `UsageError`, `InputRejected`."""
    if options.shard_rows < 1 or options.k < 1:
        raise UsageError(
            f"expected shards of at least 1 row and k of at least 1; got {options.shard_rows}"
            f" and {options.k}"
        )
    space = vector_set.geometry.space
    method, reason = chosen_method(options.method)
    check_method(method, space)
    if vector_set.n < 2:
        raise InputRejected(f"an index needs at least 2 recordings; got {vector_set.n}")
    config = IndexConfig(
        vectors_fingerprint=vector_set.fingerprint,
        n=vector_set.n,
        d=vector_set.d,
        space=space,
        method=method,
        shard_rows=options.shard_rows,
        k=min(options.k, vector_set.n - 1),
        seed=options.seed,
    )
    return config, reason


def _finished(out: Path, config: IndexConfig) -> Manifest | None:
    try:
        manifest = finished_index(out, config)
    except (MissingFile, DamagedArtefact):
        return None
    whole = all(shard_is_finished(out, config, i) for i in range(int(manifest.facts["shards"])))
    return manifest if whole else None


def cut_into_shards(vector_set: VectorSet, out: Path, config: IndexConfig) -> int:
    """Write the shards' rows and vectors and the common files; how many shards there are.

    What is there already is kept. Cost: k-means on a sample, and one copy of the vectors.
    """
    mark = fingerprint(partition=config.fingerprint)
    path = out / "partition.json"
    try:
        there = read_manifest(path, kind=PARTITION_KIND)
        for number in range(int(there.facts["shards"])):
            read_manifest(shard_path(out, number) / "manifest.json", kind="shard")
        if there.fingerprint == mark:
            return int(there.facts["shards"])
    except (MissingFile, DamagedArtefact):
        pass
    inputs = join_input(vector_set, out / WORK)
    groups = inputs.collapsed
    rows = np.arange(len(inputs.vectors), dtype=np.int32)
    cut = bounded_shards(inputs.vectors, rows, config.shard_rows, seed=config.seed)
    for number, part in enumerate(cut.members):
        _put_shard(out, config, number, part, inputs.vectors[part])
    arrays: dict[str, NDArray[Any]] = {
        "centres": cut.centres,
        "members": groups.members,
        "starts": groups.starts,
    }
    for name, values in arrays.items():
        with atomic_path(out / f"{name}.npy") as temporary, temporary.open("wb") as stream:
            np.save(stream, values)
    for name in FILES[3:]:
        with atomic_path(out / name) as temporary:
            shutil.copyfile(vector_set.path / name, temporary)
    write_manifest(
        path,
        kind=PARTITION_KIND,
        fingerprint=mark,
        format_version=FORMAT_VERSION,
        files=FILES,
        facts={"shards": len(cut.members)},
    )
    return len(cut.members)


def _put_shard(
    out: Path, config: IndexConfig, number: int, rows: Int32s, vectors: Float32s
) -> None:
    """Write a shard. A library of other vectors goes first: its own manifest says nothing of them.

    Which rows a shard has is no part of its fingerprint, and another version cuts otherwise.
    """
    folder = shard_path(out, number)
    try:
        there = read_shard(folder)
        same = np.array_equal(there[0], rows) and np.array_equal(there[1], vectors)
    except (MissingFile, DamagedArtefact):
        same = False
    if not same:
        (folder / LIBRARY_MANIFEST).unlink(missing_ok=True)
    write_shard(folder, rows, vectors, fingerprint=config.shard_fingerprint(number))


def _built(
    out: Path, config: IndexConfig, reason: str, manifest: Manifest, *, kept: int, made: bool
) -> BuiltIndex:
    shards = int(manifest.facts["shards"])
    return BuiltIndex(out, config, reason, shards, kept, made, dict(manifest.facts))
