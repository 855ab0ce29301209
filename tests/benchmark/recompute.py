"""Recall and times out of the stored lists, by a script that shares no code with the benchmark.

    python recompute.py DIR [EVERY]    prints a JSON list: an object per measured row of
                                       outcomes.csv, or for one row in EVERY

Needs numpy and h5py. True neighbours: compared with every vector in float64.
"""

import csv
import json
import sys
from pathlib import Path

import h5py
import numpy as np

BLOCK_ROWS = 8_192
SPARE = 64
"""Neighbours beyond k that are looked at exactly."""


def distances(query, vectors, space):
    """Float64 [n] from one query to vectors [n, d]."""
    a, b = query.astype(np.float64), vectors.astype(np.float64)
    if space == "l2":
        return np.sqrt(((a - b) ** 2).sum(-1))
    products = b @ a
    if space == "ip":
        return -products
    return 1 - products / np.linalg.norm(a) / np.linalg.norm(b, axis=-1)


def rough(queries, vectors, space):
    """What orders as the distances [q, n] do, by one matrix product; float64."""
    products = queries.astype(np.float64) @ vectors.astype(np.float64).T
    if space == "ip":
        return -products
    if space == "cosine":
        return -products / np.linalg.norm(vectors.astype(np.float64), axis=1)
    return (vectors.astype(np.float64) ** 2).sum(axis=1) - 2 * products


def nearest(queries, vectors, space, own, k):
    """The k smallest distances [q, k] of each query, ascending, its `own` row left out.

    The product finds some more than k, whose distances are then computed from differences.
    """
    more = min(len(vectors), k + SPARE)
    values, rows = np.full((len(queries), 0), np.inf), np.zeros((len(queries), 0), np.int64)
    for start in range(0, len(vectors), BLOCK_ROWS):
        part = rough(queries, vectors[start : start + BLOCK_ROWS], space)
        if own is not None:
            inside = np.flatnonzero((own >= start) & (own < start + part.shape[1]))
            part[inside, own[inside] - start] = np.inf
        numbers = np.broadcast_to(np.arange(start, start + part.shape[1]), part.shape)
        values, rows = np.hstack([values, part]), np.hstack([rows, numbers])
        if values.shape[1] > more:
            chosen = np.argpartition(values, more - 1, axis=1)[:, :more]
            values = np.take_along_axis(values, chosen, 1)
            rows = np.take_along_axis(rows, chosen, 1)
    found = np.stack([
        distances(query, vectors[near], space) for query, near in zip(queries, rows, strict=True)
    ])  # fmt: skip
    found[np.isinf(values)] = np.inf
    return np.sort(found, axis=1)[:, :k]


class Truths:
    """True distances per workload and size, computed once for the largest k that is asked for."""

    def __init__(self, directory, rows):
        self.vectors = np.load(directory / "data" / "vectors.npy", mmap_mode="r")
        self.queries = np.load(directory / "data" / "queries.npy")
        self.most = {}
        for row in rows:
            key = row["workload"], int(row["n"])
            self.most[key] = max(int(row["k"]), self.most.get(key, 0))
        self.known = {}

    def asked(self, row, rows):
        vectors = self.vectors[: int(row["n"])]
        return vectors[rows] if row["workload"] == "all" else self.queries[rows]

    def of(self, row, rows):
        key = row["workload"], int(row["n"])
        if key not in self.known:
            vectors = np.array(self.vectors[: key[1]])
            own = rows if key[0] == "all" else None
            queries = self.asked(row, rows)
            self.known[key] = nearest(queries, vectors, row["space"], own, self.most[key])
        return self.known[key]


def recomputed(directory, row, truths):
    with h5py.File(directory / row["file"]) as file:
        rows, group = file["rows"][...], file[f"batch-{row['batch']}"]
        times, lists = group["times"][...], group["neighbours"][...]
        stored = group["distances"][...]
    every = row["workload"] == "all"
    k, chosen = int(row["k"]), int(row["repetition"])
    kth = truths.of(row, rows)[:, k - 1]
    found = lists[chosen]
    vectors = truths.vectors[: int(row["n"])]
    own = np.stack([
        distances(query, vectors[np.maximum(near, 0)], row["space"])
        for query, near in zip(truths.asked(row, rows), found, strict=True)
    ])  # fmt: skip
    own[found < 0] = np.inf
    counted = own <= (kth + 1e-6 * np.abs(kth) + 1e-7)[:, None]
    seconds = times.sum(axis=1)
    asked = int(row["n"]) if every else len(rows)
    return {
        "file": row["file"],
        "batch": int(row["batch"]),
        "recall": float(counted.mean()),
        "worst_distance": float(np.abs(np.where(found >= 0, own - stored[chosen], 0)).max()),
        "repeats": int(sum(len(set(one[one >= 0])) != (one >= 0).sum() for one in found)),
        "itself": int((found == rows[:, None]).sum()) if every else 0,
        "qps": asked / float(seconds[chosen]),
        "median": bool(sorted(seconds)[(len(seconds) - 1) // 2] == seconds[chosen]),
        "p50_ms": None if every else float(np.percentile(times[chosen], 50) * 1000),
        "p99_ms": None if every else float(np.percentile(times[chosen], 99) * 1000),
        "stated_recall": float(row["recall"]),
        "stated_qps": float(row["qps"]),
    }


def main(directory, every):
    with (directory / "outcomes.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["status"] == "ok"][::every]
    truths = Truths(directory, rows)
    print(json.dumps([recomputed(directory, row, truths) for row in rows]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
