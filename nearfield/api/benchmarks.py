"""The benchmark as a function, and the choice that comes out of it for a build."""

from dataclasses import dataclass
from pathlib import Path

from benchmark.candidates import Candidate
from benchmark.choice import CHOICE, Wanted, choose, grown, read_choice, said
from benchmark.runner.bench import BenchOptions, BenchPlan, BenchReport, plan_bench, run_bench
from index_build.plan import AUTO
from nearfield.cluster import ClusterOptions
from nearfield.copies import open_vector_set
from nearfield.errors import NearfieldError, QualityGate, UsageError
from nearfield.vectorset import VectorSet

__all__ = [
    "BenchOptions",
    "BenchPlan",
    "BenchReport",
    "ChosenMethod",
    "Wanted",
    "bench",
    "chosen_method",
    "plan_of_bench",
]

BESIDE = "bench"
"""Directory beside a vector set whose choice counts for it."""


@dataclass(frozen=True)
class ChosenMethod:
    """What a choice file says: `method` as `build` takes it, and why, in a sentence.

    Without a `candidate` the file has nothing that fits, and `method` is auto.
    """

    method: str
    reason: str
    file: Path
    candidate: Candidate | None


def bench(
    vectors: Path | str,
    out: Path | str,
    options: BenchOptions | None = None,
    *,
    scheduler: str | None = None,
) -> BenchReport:
    """Measure methods on `vectors` (vector set, .npy, ann-benchmarks HDF5) in the directory `out`.

    Finished measurements are kept. See `benchmark.runner.bench.run_bench` for what it raises.
    """
    cluster = ClusterOptions(scheduler=scheduler) if scheduler else ClusterOptions(workers=1)
    return run_bench(Path(vectors), Path(out), options or BenchOptions(), cluster)


def plan_of_bench(
    vectors: Path | str, out: Path | str, options: BenchOptions | None = None
) -> BenchPlan:
    """What `bench` with the same arguments would measure."""
    return plan_bench(Path(vectors), Path(out), options or BenchOptions())


def chosen_method(
    vectors: Path | str, wanted: Wanted, *, choice: Path | str | None = None
) -> ChosenMethod | None:
    """The method that a benchmark recommends for the matrix of `vectors` within the limits.

    choice: the file; without it `bench/choice.toml` beside the vector set counts if it is about
    these very vectors, and where there is none the result is None. One that was only found there
    binds nobody: when nothing in it fits and no limit of memory or time is asked, it is left to
    `build`. Else raises `QualityGate` naming what comes nearest; `UsageError` for limits without a
    choice, or a file about other vectors.
    """
    vector_set = open_vector_set(vectors)
    file = Path(choice) if choice is not None else _beside(vector_set)
    if file is None:
        if wanted.limited:
            raise UsageError(
                "expected a choice file for --memory or --time: only a benchmark knows what a "
                "method takes. Make one with: nearfield bench VECTORS --out DIR"
            )
        return None
    read = read_choice(file)
    if (read.space, read.d) != (vector_set.geometry.space, vector_set.d):
        raise UsageError(
            f"expected a choice for {vector_set.d} numbers in space {vector_set.geometry.space}; "
            f"{file} is about {read.dataset}: {read.d} numbers in space {read.space}"
        )
    try:
        candidate = choose(grown(read, vector_set.n), wanted)
    except QualityGate as error:
        if wanted.limited or choice is not None:
            raise
        return ChosenMethod(AUTO, f"{file} isn't followed: {error}", file, None)
    reason = f"{file}: {said(candidate)}, {_whose(candidate, wanted.k, vector_set.n)}"
    return ChosenMethod(candidate.way, reason, file, candidate)


def _whose(candidate: Candidate, k: int, n: int) -> str:
    """Whose figures those are, and of what: a build cuts its work differently, and tunes itself."""
    asked = "" if candidate.k == k else f", not the asked {k:,}"
    foretold = "" if candidate.measured_n == n else f", the time foretold for {n:,} rows"
    return f"for k = {candidate.k:,}{asked}: figures of the benchmark{foretold}"


def _beside(vector_set: VectorSet) -> Path | None:
    home = vector_set.home
    if not isinstance(home, Path):
        return None
    file = home.parent / BESIDE / CHOICE
    try:
        about = read_choice(file).vectors_fingerprint
    except NearfieldError:
        return None
    return file if about == vector_set.fingerprint else None
