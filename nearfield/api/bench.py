"""The benchmark as a function: which method, with which parameters, for these vectors."""

from pathlib import Path

from benchmark.runner.bench import BenchOptions, BenchPlan, BenchReport, plan_bench, run_bench
from nearfield.cluster import ClusterOptions

__all__ = ["BenchOptions", "BenchPlan", "BenchReport", "bench", "plan_of_bench"]


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
