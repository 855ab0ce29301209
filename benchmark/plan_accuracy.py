"""Does the plan hold? Runs that the calibration didn't see, against what it foretold for them.

    python -m benchmark.plan_accuracy --calibration FILE --rows 1000000 --dims 128 [--cores 1 2]
    python -m benchmark.plan_accuracy --calibration FILE --hosts DIR/hosts.jsonl

Calibrate first: `nearfield plan --rows ... --dims ... --calibrate`. Every real run is the one that
a calibration measures: build, verify and load in processes of their own, bound to so many cores, by
one task (`--ways alone`) or in shards. `--hosts`: builds by hosts with one core each that were
measured already (tests/clusters/two_hosts.py). Prints Markdown.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from index_build.machines.calibration import START, Job, calibration_for, seconds_by_stage
from index_build.machines.model import Cluster, Prediction, fitted, predicted
from nearfield.api.plans import Planned, data_for, observed

NOT_BUILT = ("verify", "load")
GIB = 2**30


def main() -> None:
    """Run the real runs, or read the measured ones, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--dims", type=int)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--cores", type=int, nargs="+", default=[2])
    parser.add_argument("--ways", nargs="+", default=["alone"], choices=["alone", "shards"])
    parser.add_argument("--hosts", type=Path)
    asked = parser.parse_args()
    for text in _by_hosts(asked) if asked.hosts else _by_runs(asked):
        print(text)


def _by_runs(asked: argparse.Namespace) -> Iterator[str]:
    wanted = Planned(asked.rows, asked.dims, asked.k, asked.recall)
    job = Job(asked.dims, asked.k, asked.recall, wanted.space, "generated")
    models = fitted(calibration_for(asked.calibration, job))
    data = data_for(wanted, asked.rows)
    for way in asked.ways:
        for cores in asked.cores:
            foretold = predicted(getattr(models, way), asked.rows, Cluster(1, cores))
            with TemporaryDirectory(prefix="nearfield-accuracy-") as scratch:
                run_of = asked.rows, cores, way == "alone"
                real = observed(data, Path(scratch) / "run", wanted, run_of)
            memory = f"; peak of private memory {real.peak_bytes / GIB:.2f} GiB"
            name = f"{real.n:,} rows on {real.cores} cores, {way}"
            yield table(name, foretold, real.seconds) + memory


def _by_hosts(asked: argparse.Namespace) -> Iterator[str]:
    for line in asked.hosts.read_text().splitlines():
        run = json.loads(line)
        job = Job(run["dims"], run["k"], asked.recall, "l2", "generated")
        model = fitted(calibration_for(asked.calibration, job)).shards
        whole = predicted(model, run["rows"], Cluster(run["workers"], 1))
        steps = [{"step": name, "seconds": seconds} for name, seconds in run["steps"].items()]
        real = seconds_by_stage(steps, run["seconds"])
        # the start of a verification and of a load is part of a whole run's, and not of a build
        name = f"{run['rows']:,} rows by {run['workers']} hosts with one core, only built"
        yield table(name, _built(whole), {k: v for k, v in real.items() if k not in NOT_BUILT})


def _built(whole: Prediction) -> Prediction:
    """Of a whole run the build: its stages, a third of the start, and its share of the interval."""
    stages = {name: seconds for name, seconds in whole.stages.items() if name not in NOT_BUILT}
    stages[START] /= 3
    share = sum(stages.values()) / whole.seconds
    return Prediction(sum(stages.values()), whole.low * share, whole.high * share, stages)


def table(name: str, foretold: Prediction, real: Mapping[str, float]) -> str:
    """Seconds of each stage, foretold and real, and the error of the sum."""
    total = sum(real.values())
    lines = [
        "| stage | foretold s | real s |",
        "|---|---|---|",
        *(
            f"| {stage} | {foretold.stages.get(stage, 0):.1f} | {real.get(stage, 0):.1f} |"
            for stage in foretold.stages
        ),
        "",
        f"{name}: foretold {foretold.seconds:.1f} s ({foretold.low:.1f} to {foretold.high:.1f}), "
        f"real {total:.1f} s: off by {foretold.seconds / total - 1:+.0%}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
