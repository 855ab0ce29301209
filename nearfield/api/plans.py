"""How many machines, for how many hours, at what cost: calibrate on this machine, then plan."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import numpy as np
import psutil

from benchmark.datasets.manifold import manifold
from index_build.machines.calibration import (
    Calibration,
    Job,
    Observation,
    calibration_for,
    keep,
    seconds_by_stage,
)
from index_build.machines.choice import (
    Allowed,
    MachineType,
    Option,
    Rented,
    chosen,
    most_important,
    needs_of,
    options,
    sensitivity,
)
from index_build.machines.model import Cluster, fitted
from nearfield.api.vectors import ingest
from nearfield.clusters.prices import PRICE_FILE, read_prices
from nearfield.errors import Infrastructure, UsageError
from nearfield.ingest.options import IngestOptions
from nearfield.machine import available_cores, machine_facts
from nearfield.manifest import library_versions
from nearfield.progress import progress
from nearfield.run import open_run
from nearfield.space import Float32s
from nearfield.vectorset import open_vector_set

CALIBRATION_ROWS = (75_000, 150_000, 300_000)
REPETITIONS = 2
WAYS = False, True
"""In shards; by one task, alone."""
CALIBRATION_FILE = Path("nearfield-calibration.json")
GIGABYTE = 1e9
MEMORY_EVERY_S = 0.2
ANY_RECALL = 0.01
"""To pass: a calibration measures time, and a sample may fall just short of what was asked."""


@dataclass(frozen=True)
class Planned:
    """What to plan: a matrix of n rows. `vectors`: the set it is of, None for generated data."""

    n: int
    d: int
    k: int
    recall: float
    space: str = "l2"
    vectors: Path | None = None


@dataclass(frozen=True)
class Assumed:
    """What the machines are assumed to be: types out of the price file (None: all), the speed of
    a core there against one here, and bits per second between them and between them and here.
    """

    prices: Path = PRICE_FILE
    machine: str | None = None
    speed: float = 1.0
    link_bits_s: float = 1e9
    uplink_bits_s: float = 1e8


@dataclass(frozen=True)
class MachinePlan:
    """The answer: all options, the one to take (None if none fits), and what it rests on."""

    wanted: Planned
    options: tuple[Option, ...]
    take: Option | None
    currency: str
    most_important: str
    calibrated: str
    here: Option


def wanted_of(
    vectors: Path | str | None, rows: int | None, dims: int | None, k: int, recall: float
) -> Planned:
    """What to plan, from a vector set or from its size. Raises `UsageError`."""
    if vectors is not None:
        opened = open_vector_set(Path(vectors))
        if dims not in (None, opened.d):
            raise UsageError(f"expected --dims {opened.d}, the width of {vectors}; got {dims}")
        space = opened.geometry.space
        return Planned(rows or opened.n, opened.d, k, recall, space, Path(vectors))
    if rows is None or dims is None:
        raise UsageError("expected VECTORS, or both --rows and --dims")
    if min(rows, dims, k) < 1 or not 0 < recall < 1:
        raise UsageError(
            f"expected rows, dims and k of at least 1 and a recall between 0 and 1; got {rows}, "
            f"{dims}, {k}, {recall}"
        )
    return Planned(rows, dims, k, recall)


def calibrate(
    wanted: Planned,
    *,
    out: Path = CALIBRATION_FILE,
    rows: Sequence[int] = CALIBRATION_ROWS,
    repetitions: int = REPETITIONS,
) -> Calibration:
    """Measure whole runs (build, verify, load) of at most `rows` rows and keep them in `out`.

    On one core at every size, and on all cores at the largest; in shards, as several machines do
    it, and by one task, as one does; nested samples of the vector set, or generated data. Minutes.
    Raises `UsageError` on a machine with one core, or where the set has too few rows for two sizes;
    `Infrastructure` when a run fails.
    """
    cores = available_cores()
    if cores < 2:
        raise UsageError("a calibration needs at least two cores here: one run on one, one on all")
    data = data_for(wanted, max(rows))
    sizes = sorted({min(size, len(data)) for size in rows})
    if len(sizes) < 2 or sizes[0] < min(rows):
        raise UsageError(
            f"a calibration needs at least {sorted(rows)[1]:,} rows; {wanted.vectors} has "
            f"{len(data):,}. Build it as it is: that takes less than the calibration"
        )
    runs = [(size, 1, alone) for size in sizes for alone in WAYS for _ in range(repetitions)]
    runs += [(sizes[-1], cores, alone) for alone in WAYS for _ in range(repetitions)]
    found = []
    with TemporaryDirectory(prefix="nearfield-calibration-") as scratch:
        folder = Path(scratch)
        for alone in WAYS:  # compiles the kernels
            observed(data, folder / f"warm-{alone}", wanted, (sizes[0], cores, alone))
        with progress("calibrate", len(runs), "runs") as advance:
            for number, one in enumerate(runs):
                found.append(observed(data, folder / str(number), wanted, one))
                advance(1)
    calibration = Calibration(
        job=_job(wanted),
        machine=machine_facts().processor.model,
        versions=library_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        observations=tuple(found),
    )
    keep(out, calibration)
    return calibration


def plan(
    wanted: Planned,
    *,
    calibration: Path = CALIBRATION_FILE,
    assumed: Assumed | None = None,
    allowed: Allowed | None = None,
) -> MachinePlan:
    """The machines to rent for a matrix. Raises `UsageError` and `MissingFile`."""
    assumed, allowed = assumed or Assumed(), allowed or Allowed()
    measured = calibration_for(calibration, _job(wanted))
    models, prices = fitted(measured), read_prices(assumed.prices)
    types = [
        MachineType(
            f"{one.provider}/{one.type}",
            one.cores,
            (one.memory_gb or 0) * GIGABYTE,
            (one.disk_gb or 0) * GIGABYTE,
            one.hourly,
        )
        for one in prices.machines
        if one.cores and assumed.machine in (None, one.type, f"{one.provider}/{one.type}")
    ]
    if not types:
        known = ", ".join(f"{one.provider}/{one.type}" for one in prices.machines if one.cores)
        raise UsageError(
            f"expected a machine type of {assumed.prices} ({known}); got {assumed.machine}"
        )
    needs = needs_of(wanted.n, wanted.d, wanted.k)
    rented = Rented(assumed.speed, assumed.link_bits_s / 8, assumed.uplink_bits_s / 8)
    found = options(models, wanted.n, types, needs, rented)
    take = chosen(found, allowed)
    facts = machine_facts()
    own = MachineType(
        "this machine", facts.cores, facts.memory_total_bytes, facts.disk_free_bytes, 0.0
    )
    here = next(one for one in options(models, wanted.n, [own], needs, Rented()) if one.count == 1)
    cluster = (
        Cluster(take.count, take.machine.cores, rented.speed, rented.link)
        if take
        else Cluster(1, facts.cores)
    )
    uplink_s = needs.line_bytes / rented.uplink if take else 0.0
    alone = needs.alone_on(take.machine, take.count) if take else needs.alone_on(own, 1)
    model = models.alone if alone else models.shards
    largest = max(run.n for run in measured.observations)
    return MachinePlan(
        wanted=wanted,
        options=tuple(found),
        take=take,
        currency=prices.currency,
        most_important=most_important(sensitivity(model, wanted.n, cluster, uplink_s)),
        calibrated=(
            f"{len(measured.observations)} runs of at most {largest:,} rows ({measured.job.data} "
            f"data) on {measured.machine}, {measured.created}"
        ),
        here=here,
    )


def _job(wanted: Planned) -> Job:
    data = "generated" if wanted.vectors is None else open_vector_set(wanted.vectors).fingerprint
    return Job(wanted.d, wanted.k, wanted.recall, wanted.space, data)


def data_for(wanted: Planned, most: int) -> Float32s:
    """At most so many rows float32, of which prefixes are nested samples."""
    if wanted.vectors is None:
        return manifold(most, wanted.d)
    opened = open_vector_set(wanted.vectors)
    drawn = np.random.default_rng(0).permutation(opened.n)[:most]
    return np.asarray(opened.vectors[np.sort(drawn)])[np.argsort(np.argsort(drawn))]


def observed(
    data: Float32s, folder: Path, wanted: Planned, run_of: tuple[int, int, bool]
) -> Observation:
    """One whole run in processes of their own: of so many rows, on so many cores, alone or not."""
    n, cores, alone = run_of
    folder.mkdir()
    np.save(folder / "rows.npy", data[:n])
    ingest(folder / "rows.npy", folder / "vectors", IngestOptions(space=wanted.space))
    (folder / "rows.npy").unlink()
    run, place = str(folder / "run"), str(folder / "postgres")
    asked = ["-k", str(wanted.k), "--recall", str(wanted.recall), "--method", "selfjoin"]
    # workers that are asked for share the work out in shards, as those of several machines do
    asked += [] if alone else ["--workers", str(cores)]
    started, peak = time.monotonic(), 0
    for command in (
        ["build", str(folder / "vectors"), "--out", run, *asked],
        ["verify", run, "--recall", str(ANY_RECALL)],
        ["load", run, "--database", place],
    ):
        peak = max(peak, run_on(command, cores))
    steps = open_run(folder / "run").steps()
    seconds = seconds_by_stage(steps, time.monotonic() - started)
    moved = sum(step.get("bytes_read", 0) + step.get("bytes_written", 0) for step in steps)
    shutil.rmtree(folder)
    return Observation(n, cores, seconds, moved, peak, alone)


def run_on(command: Sequence[str], cores: int) -> int:
    """Run a command of ours on the first `cores` cores; the peak of its private memory, in bytes.

    Raises `Infrastructure` with its last words when it fails.
    """
    mine = sorted(os.sched_getaffinity(0))
    # not a pipe: unread it would fill, and the child wait
    with TemporaryFile("w+") as said:
        os.sched_setaffinity(0, mine[:cores])
        try:
            child = subprocess.Popen(
                # -P: modules come from the installation, not from what lies in the current folder
                [sys.executable, "-P", "-m", "nearfield", *command, "--json"],
                stdout=subprocess.DEVNULL,
                stderr=said,
            )
        finally:
            os.sched_setaffinity(0, mine)
        peak = 0
        while child.poll() is None:
            peak = max(peak, _private_bytes(child.pid))
            with suppress(subprocess.TimeoutExpired):
                child.wait(MEMORY_EVERY_S)
        said.seek(0)
        words = said.read().strip().splitlines()
    if child.returncode:
        raise Infrastructure(
            f"the calibration's `nearfield {command[0]}` failed: {(words or ['no message'])[-1]}"
        )
    return peak


def _private_bytes(pid: int) -> int:
    """Memory that belongs to a process and its children alone, mapped files left out."""
    found = 0
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            with suppress(psutil.Error):
                found += process.memory_full_info().uss
    return found
