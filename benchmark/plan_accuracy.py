"""Does the plan hold? Runs that the calibration didn't see, against what it foretold for them.

    python -m benchmark.plan_accuracy --calibration FILE --rows 1000000 --dims 128 [--cores 1 2]

Calibrate first: `nearfield plan --rows ... --dims ... --calibrate`. Every real run is the one that
a calibration measures: build, verify and load in processes of their own, bound to so many cores.
Prints Markdown.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from index_build.machines.calibration import Job, Observation, calibration_for
from index_build.machines.model import Cluster, Prediction, fitted, predicted
from nearfield.api.plans import Planned, data_for, observed


def main() -> None:
    """Run the real runs and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--dims", type=int, required=True)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--cores", type=int, nargs="+", default=[2])
    asked = parser.parse_args()
    wanted = Planned(asked.rows, asked.dims, asked.k, asked.recall)
    job = Job(asked.dims, asked.k, asked.recall, wanted.space, "generated")
    model = fitted(calibration_for(asked.calibration, job))
    data = data_for(wanted, asked.rows)
    for cores in asked.cores:
        foretold = predicted(model, asked.rows, Cluster(1, cores))
        with TemporaryDirectory(prefix="nearfield-accuracy-") as scratch:
            real = observed(data, Path(scratch) / "run", wanted, asked.rows, cores)
        print(table(foretold, real))


def table(foretold: Prediction, real: Observation) -> str:
    """Seconds of each stage, foretold and real, and the error of the sum."""
    total = sum(real.seconds.values())
    lines = [
        f"{real.n:,} rows on {real.cores} cores: foretold {foretold.seconds:.1f} s "
        f"({foretold.low:.1f} to {foretold.high:.1f}), real {total:.1f} s: off by "
        f"{foretold.seconds / total - 1:+.0%}; peak of private memory "
        f"{real.peak_bytes / 2**30:.2f} GiB",
        "",
        "| stage | foretold s | real s |",
        "|---|---|---|",
    ]
    lines += [
        f"| {stage} | {foretold.stages.get(stage, 0):.1f} | {seconds:.1f} |"
        for stage, seconds in real.seconds.items()
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
