"""The self-join on real data: seconds, recall by brute force, working set.

    python -m benchmark.selfjoin_real_speed --data DIR --out DIR [--k 100] [--recall 0.95]

DIR holds the folders named in `SETS`; those that aren't there are left out. FMA's features are
brought to mean 0 and deviation 1. Each set is measured in a process of its own, `--repeat` times,
the median by seconds is told. Writes real-data.md and real-data.json. Refuses generated data
(`benchmark.selfjoin_ladder`).
"""

import argparse
import csv
import gzip
import io
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from benchmark.selfjoin_ladder import found_shares, machine, peak_bytes, resident_bytes
from index_build.selfjoin import knn_matrix
from nearfield.files import write_bytes
from nearfield.space import Float32s

SETS = {
    "chroma frames": "billboard-chroma24/chroma24_dev.f32.npy.zst",
    "MNIST test digits": "mnist-like-30k/mnist_t10k.npz",
    "FMA, librosa features": "fma-small-librosa42",
}
MEMORY = 2 << 30


def read(path: Path) -> Float32s:
    """Vectors float32 [n, d] of one of the files."""
    if path.name.endswith(".npy.zst"):
        with path.open("rb") as file:
            raw = zstandard.ZstdDecompressor().stream_reader(file).read()
        return np.load(io.BytesIO(raw), allow_pickle=False)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return file["x"].astype(np.float32)
    rows = []
    for part in sorted(path.glob("*_features.csv.gz")):
        with gzip.open(part, "rt") as stream:
            rows += list(csv.reader(stream))[1:]
    numbers = np.array([[float(value) for value in row[1:]] for row in rows])
    return ((numbers - numbers.mean(axis=0)) / numbers.std(axis=0)).astype(np.float32)


def measured(path: Path, k: int, recall: float) -> dict[str, Any]:
    """One join in this process, kernels compiled before the clock starts."""
    vectors = read(path)
    random = np.random.default_rng(0)
    knn_matrix(random.normal(size=(20_000, vectors.shape[1])).astype(np.float32), 10)
    resident, load = resident_bytes(), os.getloadavg()[0]
    started, cpu_started = time.monotonic(), time.process_time()
    found = knn_matrix(vectors, k, recall=recall, memory_bytes=MEMORY)
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
    output = found.neighbours.nbytes + found.distances.nbytes
    working = max(0, peak_bytes() - resident - output)
    shares = found_shares(vectors, found, seed=0)
    return {
        "n": len(vectors), "d": vectors.shape[1], "k": k, "asked": recall,
        "seconds": seconds, "cpu_seconds": cpu_seconds, "load": load, "working_bytes": working,
        "recall": float(shares.mean()), "method": found.report.method,
        "phases": found.report.seconds, "chosen": found.report.chosen,
    }  # fmt: skip


def table(results: dict[str, dict[str, Any]], facts: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = ["# Self-join: real data", "", "Machine: " + json.dumps(facts), ""]
    lines += [
        "| data | n | d | k | asked | recall | method | wall s | CPU s | working set MiB | load |"
    ]
    lines += ["|---" * 11 + "|"]
    for name, r in results.items():
        lines.append(
            f"| {name} | {r['n']:,} | {r['d']} | {r['k']} | {r['asked']} | {r['recall']:.4f} "
            f"| {r['method']} | {r['seconds']:.1f} | {r['cpu_seconds']:.1f} "
            f"| {r['working_bytes'] / 2**20:,.0f} | {r['load']:.1f} |"
        )
    lines += [
        "",
        f"Recall by faiss' exact search on 1,000 rows. memory_bytes: {MEMORY >> 20:,} MiB.",
        "Load: of the machine before the join started.",
        "",
    ]
    for name, r in results.items():
        phases = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in r["phases"].items())
        lines.append(f"- {name}, wall seconds: {phases}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every set that is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    facts, results = machine(), {}
    for name, place in SETS.items():
        if not (asked.data / place).exists():
            continue
        runs = []
        for _ in range(asked.repeat):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                runs.append(pool.apply(measured, (asked.data / place, asked.k, asked.recall)))
        results[name] = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
        asked.out.mkdir(parents=True, exist_ok=True)
        write_bytes(asked.out / "real-data.md", table(results, facts).encode())
        every = {"machine": facts, "results": results}
        write_bytes(asked.out / "real-data.json", json.dumps(every, indent=1).encode())


if __name__ == "__main__":
    main()
