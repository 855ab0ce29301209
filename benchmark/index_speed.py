"""What an index answers: queries per second and recall against shards asked, and its memory.

    python -m benchmark.index_speed --work FOLDER [--rows 1000000] [--method faiss-hnsw]

Builds (or keeps) the index of generated vectors in FOLDER, then asks it for vectors that aren't in
it; truth by exact search among the indexed. One batch of 1,000 by all cores, then 100 one by one;
the memory is that of this process at its largest, so the index is opened before vectors are made.
Prints Markdown.
"""

import argparse
import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmark.datasets.manifold import manifold
from benchmark.methods.base import tie_aware_recall
from index_build.index import open_index
from index_build.index.build import IndexOptions
from index_build.index.search import ShardedIndex
from nearfield import api
from nearfield.cluster import ClusterOptions, available_cores
from nearfield.machine import machine_facts
from nearfield.manifest import library_versions
from nearfield.space import Float32s
from nearfield.vectorset import Geometry, write_vector_set

QUERIES = 1_000
SINGLE = 100
K = 10


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("--method", default="faiss-hnsw")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--memory-mib", type=int, default=4096)
    parser.add_argument("--workers", type=int, help="Processes that build; default one per core.")
    parser.add_argument("--build-only", action="store_true")
    asked = parser.parse_args(given)
    vectors, index = asked.work / "vectors", asked.work / asked.method
    if not (vectors / "manifest.json").exists():
        made = manifold(asked.rows + QUERIES, asked.dims)
        ids = pa.table({"recording_id": np.arange(asked.rows)})
        np.save(asked.work / "queries.npy", made[asked.rows :])
        write_vector_set(vectors, made[: asked.rows], ids, Geometry())
    started = time.perf_counter()
    if not (index / "manifest.json").exists():
        cluster = ClusterOptions(workers=asked.workers)
        built = api.index(vectors, index, IndexOptions(asked.method), cluster=cluster)
        print(f"build: {time.perf_counter() - started:.1f} s, {built.shards} shards\n")
    if not asked.build_only:
        report(open_index(index, memory_bytes=asked.memory_mib << 20), asked)


def report(index: ShardedIndex, asked: argparse.Namespace) -> None:
    """Print the table of one index."""
    queries = np.load(asked.work / "queries.npy")
    before = _rss()
    truth = index.search(queries, K, exact=True).distances
    print(f"Machine: {json.dumps(machine_facts().to_json())}\n")
    print(f"Versions: {json.dumps(library_versions())}\n")
    print(f"{asked.method}, {asked.rows:,} x {asked.dims}, {index.shards} shards, k = {K},")
    print(f"{available_cores()} threads, limit {asked.memory_mib} MiB; stored recall beside.\n")
    print("| shards asked | recall, new vectors | stored | batch QPS | single, ms | loads | MiB |")
    print("|---|---|---|---|---|---|---|")
    stored = index.facts["recall"].get(str(K), {})
    for shards in (p for p in asked.shards if p <= index.shards):
        index.search(queries[:50], K, shards=shards)
        started = time.perf_counter()
        found = index.search(queries, K, shards=shards)
        qps = QUERIES / (time.perf_counter() - started)
        single = _single(index, queries[:SINGLE], shards)
        recall = tie_aware_recall(found.distances, truth)
        print(
            f"| {shards} | {recall:.4f} | {stored.get(str(shards), '')} | {qps:,.0f} |"
            f" {1000 * single:.2f} | {index.store.loads} | {_rss() - before:,.0f} |",
            flush=True,
        )


def _single(index: ShardedIndex, queries: Float32s, shards: int) -> float:
    started = time.perf_counter()
    for place in range(len(queries)):
        index.search(queries[place : place + 1], K, shards=shards)
    return (time.perf_counter() - started) / len(queries)


def _rss() -> float:
    """The largest resident memory of this process so far, MiB, mapped pages included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
