"""What an index answers: queries per second and recall against shards asked, and its memory.

    python -m benchmark.index_speed --work FOLDER [--rows 1000000] [--method faiss-hnsw]

Builds (or keeps) the index of generated vectors in FOLDER, then asks it for vectors that aren't in
it; truth by exact search among the indexed, in a process of its own. One batch of 1,000 by all
cores, then 300 one by one; the same by comparing with everything, but for fewer. Memory is that of
this process beyond what it had before: what it holds itself, and at its largest with the pages of
files that are mapped, which the system takes back when it needs them. With a small --memory-mib,
shards are loaded again and again. Prints Markdown.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmark.datasets.manifold import manifold
from benchmark.methods.base import tie_aware_recall
from index_build.index import open_index
from index_build.index.build import IndexOptions
from index_build.index.layout import LIBRARY_MANIFEST, SHARD_INDEX_KIND, shard_path
from index_build.index.search import ShardedIndex
from nearfield import api
from nearfield.cluster import ClusterOptions
from nearfield.machine import available_cores, machine_facts
from nearfield.manifest import library_versions, read_manifest
from nearfield.space import Float32s
from nearfield.vectorset import Geometry, write_vector_set

QUERIES = 1_000
SINGLE = 300
EXACT = 20
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
    parser.add_argument("--truth-only", action="store_true")
    asked = parser.parse_args(given)
    index, truth = asked.work / asked.method, asked.work / "truth.npy"
    _make_vectors(asked)
    if not (index / "manifest.json").exists():
        cluster = ClusterOptions(workers=asked.workers)
        api.index(asked.work / "vectors", index, IndexOptions(asked.method), cluster=cluster)
        if not asked.build_only:
            # what building has left in this process isn't memory that serving takes
            words = sys.argv[1:] if given is None else given
            command = [sys.executable, "-m", "benchmark.index_speed", *words]
            os.execv(sys.executable, command)  # noqa: S606  (ourselves)
    if asked.build_only:
        return
    if not truth.exists() and not asked.truth_only:
        # it maps all vectors, which this process mustn't
        command = [sys.executable, "-m", "benchmark.index_speed", "--truth-only"]
        subprocess.run([*command, "--work", asked.work, "--method", asked.method], check=True)
    opened = open_index(index, memory_bytes=asked.memory_mib << 20)
    if asked.truth_only:
        np.save(truth, opened.search(_queries(asked), K, exact=True).distances)
        return
    report(opened, asked, np.load(truth))


def _make_vectors(asked: argparse.Namespace) -> None:
    vectors = asked.work / "vectors"
    if (vectors / "manifest.json").exists():
        return
    asked.work.mkdir(parents=True, exist_ok=True)
    made = manifold(asked.rows + QUERIES, asked.dims)
    ids = pa.table({"recording_id": np.arange(asked.rows)})
    np.save(asked.work / "queries.npy", made[asked.rows :])
    write_vector_set(vectors, made[: asked.rows], ids, Geometry())


def _queries(asked: argparse.Namespace) -> Float32s:
    return np.load(asked.work / "queries.npy")


def report(index: ShardedIndex, asked: argparse.Namespace, truth: Float32s) -> None:
    """Print the table of one index."""
    queries = _queries(asked)
    index.search(queries[:1], K, shards=1)  # compiles
    index.store.loads = 0
    before = _memory_mib()
    print(f"Machine: {json.dumps(machine_facts().to_json())}\n")
    print(f"Versions: {json.dumps(library_versions())}\n")
    wall, processor, size = _built(index)
    print(f"{asked.method}, {asked.rows:,} x {asked.dims}, {index.shards} shards, k = {K},")
    print(
        f"{available_cores()} threads, limit {asked.memory_mib} MiB; libraries' files {size:,.0f}"
    )
    print(f"MiB, built in {wall:,.0f} s, {processor:,.0f} s of processors, over all shards.\n")
    print(
        "| shards asked | recall, new vectors | stored | batch QPS | single ms: p50 | p99 |", end=""
    )
    print(" loads | own MiB | with mapped pages |\n|---|---|---|---|---|---|---|---|---|")
    stored = index.facts["recall"].get(str(K), {})
    for shards in (p for p in asked.shards if p <= index.shards):
        index.search(queries, K, shards=shards)
        started = time.perf_counter()
        found = index.search(queries, K, shards=shards)
        qps = QUERIES / (time.perf_counter() - started)
        half, most = _single(partial(index.search, k=K, shards=shards), queries[:SINGLE])
        recall = tie_aware_recall(found.distances, truth)
        own, mapped = (now - then for now, then in zip(_memory_mib(), before, strict=True))
        print(
            f"| {shards} | {recall:.4f} | {stored.get(str(shards), '')} | {qps:,.0f} |"
            f" {half:.2f} | {most:.2f} | {index.store.loads} | {own:,.0f} | {mapped:,.0f} |",
            flush=True,
        )
    started = time.perf_counter()
    index.search(queries, K, exact=True)
    qps = QUERIES / (time.perf_counter() - started)
    half, most = _single(partial(index.search, k=K, exact=True), queries[:EXACT])
    print(f"| exact | 1 | | {qps:,.0f} | {half:.1f} | {most:.1f} | | | |", flush=True)


def _built(index: ShardedIndex) -> tuple[float, float, float]:
    """Seconds and processor seconds of building all shards, and MiB of their files."""
    manifests = [
        read_manifest(
            shard_path(index.path, number) / LIBRARY_MANIFEST, kind=SHARD_INDEX_KIND, verify=False
        )
        for number in range(index.shards)
    ]
    facts = [it.facts for it in manifests]
    size = sum(entry.bytes for it in manifests for entry in it.files.values())
    return (
        sum(it["build_s"] for it in facts), sum(it["build_processor_s"] for it in facts),
        size / 2**20,
    )  # fmt: skip


def _single(search: Callable[[Float32s], object], queries: Float32s) -> tuple[float, float]:
    """Milliseconds of one query, half of them and 99 in 100 within."""
    took = []
    for place in range(len(queries)):
        started = time.perf_counter()
        search(queries[place : place + 1])
        took.append(1000 * (time.perf_counter() - started))
    return float(np.percentile(took, 50)), float(np.percentile(took, 99))


def _memory_mib() -> tuple[float, float]:
    """MiB that this process holds itself, now, and at its largest with pages of mapped files."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    found = {words[0]: float(words[1]) / 1024 for words in lines if words[-1] == "kB"}
    return found["RssAnon:"], found["VmHWM:"]


if __name__ == "__main__":
    main()
