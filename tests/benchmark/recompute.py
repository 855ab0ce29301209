"""Recall and times out of the stored lists, by a script that shares no code with the benchmark.

    python recompute.py DIR    prints a JSON list, one object per measured row of outcomes.csv

Needs numpy and h5py. True neighbours: all distances in float64, sorted.
"""

import csv
import json
import sys
from pathlib import Path

import h5py
import numpy as np


def distances(queries, vectors, space):
    a, b = queries.astype(np.float64), vectors.astype(np.float64)
    if space == "l2":
        return np.sqrt(((a[:, None, :] - b[None, :, :]) ** 2).sum(-1))
    products = a @ b.T
    if space == "ip":
        return -products
    return 1 - products / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)[None, :]


def recomputed(directory, row):
    with h5py.File(directory / row["file"]) as file:
        rows, group = file["rows"][...], file[f"batch-{row['batch']}"]
        times, lists = group["times"][...], group["neighbours"][...]
        stored = group["distances"][...]
    vectors = np.load(directory / "data" / "vectors.npy")[: int(row["n"])]
    every = row["workload"] == "all"
    queries = vectors[rows] if every else np.load(directory / "data" / "queries.npy")[rows]
    near = distances(queries, vectors, row["space"])
    if every:
        near[np.arange(len(rows)), rows] = np.inf
    k, chosen = int(row["k"]), int(row["repetition"])
    kth = np.sort(near, axis=1)[:, k - 1]
    found = lists[chosen]
    own = np.take_along_axis(near, np.maximum(found, 0), 1)
    own[found < 0] = np.inf
    counted = own <= (kth + 1e-6 * np.abs(kth) + 1e-7)[:, None]
    seconds = times.sum(axis=1)
    asked = len(vectors) if every else len(rows)
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
    }


def main(directory):
    with (directory / "outcomes.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["status"] == "ok"]
    print(json.dumps([recomputed(directory, row) for row in rows]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
