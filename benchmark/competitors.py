"""The self-join against the libraries, at equal recall, in one run on the same cores.

    python -m benchmark.competitors --out DIR [--rows 100000 300000 1000000] [--libraries ...]

Every library makes the whole matrix: one build, then a query for each row (PyNNDescent: its own
graph). For each asked recall it is charged for its cheapest setting: all build settings of
`SETTINGS`, and for each the search effort found by bisection. Each measurement has a process of
its own on generated manifold data. Libraries are charged for build and search alone: neither for
dropping the row itself nor for recomputing distances, which the self-join does. Beyond
`--timed-rows` rows, searching is timed on that many random rows and multiplied; the largest size
that was timed in full stands beside it. Settings that win no recall at one size aren't tried at
the next. Writes competitors.json after each measurement, skips what is there already, and
competitors.md from it (`benchmark.competitors_report`).
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmark.competitors_report import cheapest, report
from benchmark.datasets.manifold import manifold
from benchmark.methods import method_named
from benchmark.selfjoin_ladder import Case, machine, measured
from nearfield.files import write_bytes
from nearfield.machine import available_cores
from nearfield.space import Float32s, Int32s

CHECKED_ROWS = 1_000
TIE = 1e-5
"""Relative; faiss' float32 truth is no more exact."""
BISECTIONS = 2
GRAPHS = (
    {"links": 8, "build_effort": 60},
    {"links": 16, "build_effort": 100},
    {"links": 16, "build_effort": 200},
)
SETTINGS: dict[str, tuple[dict[str, Any], ...]] = {
    "faiss-ivf": ({"rows_per_list": 128}, {"rows_per_list": 256}, {"rows_per_list": 512}),
    "faiss-hnsw": GRAPHS,
    "hnswlib": GRAPHS,
    "nmslib-hnsw": GRAPHS,
    "annoy": ({"trees": 15}, {"trees": 30}, {"trees": 60}),
    "pynndescent": ({},),
}


@dataclass(frozen=True)
class Setting:
    """One library with its build parameters on one data set."""

    library: str
    parameters: tuple[tuple[str, Any], ...]
    n: int
    d: int
    k: int
    threads: int
    seed: int


@dataclass
class Curve:
    """What one setting gave: build seconds, and for each effort tried (effort, recall, seconds
    of search for all n rows). `timed_rows` of them were really asked; 0: the graph came whole.
    """

    setting: Setting
    build_seconds: float
    build_cpu_seconds: float
    timed_rows: int
    points: list[tuple[int, float, float]] = field(default_factory=list)
    failure: str = ""


@dataclass(frozen=True)
class _Truth:
    """Checked rows int32 [m] and the distance float32 [m] of their k-th neighbour."""

    rows: Int32s
    limits: Float32s
    k: int

    def recall(self, vectors: Float32s, found: Int32s) -> float:
        """Tie-aware; `found` [m, any] may hold the rows themselves and -1."""
        shares = []
        for row, near, limit in zip(self.rows, found, self.limits, strict=True):
            others = near[(near >= 0) & (near != row)][: self.k]
            apart = np.linalg.norm(vectors[others] - vectors[row], axis=1)
            shares.append((apart <= limit * (1 + TIE)).sum() / self.k)
        return float(np.mean(shares))


def _truth(vectors: Float32s, rows: Int32s, k: int) -> _Truth:
    squared, _ = faiss.knn(vectors[rows], vectors, k + 1)
    return _Truth(rows, np.sqrt(np.maximum(squared[:, k], 0)), k)


def curve(setting: Setting, recalls: tuple[float, ...], timed_rows: int) -> Curve:
    """Build once, then find the cheapest effort for each recall by bisection. In this process."""
    vectors = manifold(setting.n, setting.d, seed=setting.seed)
    drawn = np.random.default_rng((setting.seed, 5)).permutation(setting.n).astype(np.int32)
    timed = drawn[: min(timed_rows, setting.n)]
    truth = _truth(vectors, timed[:CHECKED_ROWS], setting.k)
    method = method_named(setting.library, dict(setting.parameters))
    started, cpu_started = time.monotonic(), time.process_time()
    if method.graphs:
        graph = method.all_neighbours(
            vectors, setting.k, "l2", threads=setting.threads, seed=setting.seed
        )
        seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
        found = truth.recall(vectors, graph[truth.rows])
        return Curve(setting, seconds, cpu_seconds, 0, [(0, found, 0.0)])
    index = method.build(vectors, "l2", threads=setting.threads, seed=setting.seed)
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
    made = Curve(setting, seconds, cpu_seconds, len(timed))
    queries = np.ascontiguousarray(vectors[timed])

    def tried(effort: int) -> float:
        started = time.monotonic()
        found = index.search(queries, setting.k + 1, effort)
        seconds = (time.monotonic() - started) * setting.n / len(timed)
        recall = truth.recall(vectors, found[: len(truth.rows)])
        made.points.append((effort, recall, seconds))
        return recall

    _bisected(index.efforts(setting.k), recalls, tried)
    return made


def _bisected(
    efforts: Sequence[int], recalls: tuple[float, ...], tried: Callable[[int], float]
) -> None:
    """Climb `efforts` until the highest recall is reached, then narrow down to each recall."""
    reached: dict[int, float] = {}
    for effort in efforts:
        reached[effort] = tried(effort)
        if reached[effort] >= max(recalls):
            break
    for recall in recalls:
        for _ in range(BISECTIONS):
            enough = min((e for e, found in reached.items() if found >= recall), default=None)
            less = max((e for e in reached if enough is None or e < enough), default=None)
            if enough is None or less is None or enough - less < 2:
                break
            middle = (enough + less) // 2
            reached[middle] = tried(middle)


class _Results:
    """competitors.json and competitors.md in one folder; what is there isn't measured again."""

    def __init__(self, folder: Path, what: str, asked: Sequence[float]) -> None:
        self.file = folder / "competitors.json"
        self.table = folder / "competitors.md"
        folder.mkdir(parents=True, exist_ok=True)
        fresh = {"what": what, "asked": list(asked), "selfjoin": [], "curves": []}
        self.content: dict[str, Any] = (
            json.loads(self.file.read_bytes()) if self.file.exists() else fresh
        ) | {"machine": machine()}

    def keep(self, kind: str, result: Any) -> None:
        self.content[kind].append(asdict(result))
        # through JSON, so that the first report is made of what a later run reads
        text = json.dumps(self.content, indent=1)
        write_bytes(self.file, text.encode())
        write_bytes(self.table, report(json.loads(text)).encode())

    def has(self, kind: str, key: str, value: Any) -> bool:
        wanted = json.loads(json.dumps(asdict(value)))
        return any(result[key] == wanted for result in self.content[kind])

    def winners(self, library: str, n: int, recalls: Sequence[float]) -> set[str]:
        """Parameters, as JSON, that were the cheapest for some recall at size n."""
        curves = [
            curve
            for curve in self.content["curves"]
            if curve["setting"]["library"] == library and curve["setting"]["n"] == n
        ]
        options = (cheapest(curves, recall) for recall in recalls)
        return {json.dumps(o["curve"]["setting"]["parameters"]) for o in options if o}


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a fresh process, so that peaks, threads and caches don't mix."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--recall", type=float, nargs="+", default=[0.80, 0.90, 0.95, 0.99])
    parser.add_argument("--libraries", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--timed-rows", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Measure what isn't there yet, writing the report after each measurement."""
    asked = _arguments()
    recalls = tuple(sorted(asked.recall))
    what = f"Generated manifold, d = {asked.dims}, k = {asked.k}, {asked.threads} threads."
    results = _Results(asked.out, what, recalls)
    smaller: int | None = None
    for n in sorted(asked.rows):
        for recall in recalls:
            case = Case(n, asked.dims, asked.k, recall, threads=asked.threads, seed=asked.seed)
            if not results.has("selfjoin", "case", case):
                results.keep("selfjoin", _apart(measured, case))
        for library in asked.libraries:
            won = None if smaller is None else results.winners(library, smaller, recalls)
            for parameters in SETTINGS[library]:
                own = tuple(parameters.items())
                if won and json.dumps(own) not in won:
                    continue
                setting = Setting(library, own, n, asked.dims, asked.k, asked.threads, asked.seed)
                if not results.has("curves", "setting", setting):
                    print(f"{n:,} {library} {parameters}", file=sys.stderr)
                    results.keep("curves", _tried(setting, recalls, asked.timed_rows))
        smaller = n
    print(results.table.read_text())


def _tried(setting: Setting, recalls: tuple[float, ...], timed_rows: int) -> Curve:
    """A library that ends its process is a result too."""
    try:
        return _apart(curve, setting, recalls, timed_rows)
    except BrokenProcessPool as error:
        return Curve(setting, 0.0, 0.0, 0, failure=f"the process ended ({error})")


if __name__ == "__main__":
    main()
