"""From measured runs to the time of one that wasn't made: growth by stage, and what is shared out.

Pure. Each stage grows by a law (`law`) fitted to the runs on one core; the share of it that splits
over cores comes from the run on all cores (Amdahl). Tasks of some stages spread over all machines,
the others stay on the driver's. Valid as far as the laws hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from index_build.machines.calibration import STAGES, START, Calibration, Observation
from index_build.machines.law import Law, law_of
from index_build.plan import EXPECTED_COPIES, HELD_BYTES
from nearfield.errors import UsageError

SPREAD = frozenset({"partition", "join", "merge"})
"""Stages whose tasks run on all machines."""
VECTORS_READ = 3 + EXPECTED_COPIES
"""Times that the tasks of a calibration's run read a vector of the folder: here it is at hand."""
VECTORS_CARRIED = 2 + 2 * EXPECTED_COPIES
"""Times that a vector is read and written on the way where blocks carry it."""
SMALLEST_S = 0.01
WIDEST = 4.0
"""A stage's interval is cut at this factor: a regression on a handful of runs can't say more."""


@dataclass(frozen=True)
class Stage:
    """Growth on one core, and the share of the work that is split over cores."""

    growth: Law
    parallel: float


@dataclass(frozen=True)
class Model:
    """`start_s` once per run; stages by name; bytes per row of a vector, and of all else that tasks
    read and write.
    """

    start_s: float
    stages: Mapping[str, Stage]
    vector_bytes: float
    other_bytes: float


@dataclass(frozen=True)
class Models:
    """Of several machines, which share the work out in shards, and of one that does it `alone`."""

    shards: Model
    alone: Model


@dataclass(frozen=True)
class Cluster:
    """Machines with cores; `speed` of a core against one here; link in bytes per second."""

    machines: int
    cores: int
    speed: float = 1.0
    link_bytes_s: float = 125e6


@dataclass(frozen=True)
class Prediction:
    """Seconds, by stage too, between low and high (95% as far as the laws hold)."""

    seconds: float
    low: float
    high: float
    stages: Mapping[str, float]


def fitted(calibration: Calibration) -> Models:
    """The models of a calibration.

    Raises `UsageError` with fewer than two sizes on one core, or no run on more than one, of either
    way to join.
    """
    runs = calibration.observations
    vector = 4.0 * calibration.job.d
    return Models(
        shards=_fitted([run for run in runs if not run.alone], vector),
        alone=_fitted([run for run in runs if run.alone], vector),
    )


def _fitted(runs: Sequence[Observation], vector: float) -> Model:
    single = [run for run in runs if run.cores == 1]
    several = [run for run in runs if run.cores > 1]
    if len({run.n for run in single}) < 2 or not several:
        raise UsageError(
            "a calibration needs runs of at least two sizes on one core and one on more; this one "
            f"has {len(single)} and {len(several)}: calibrate again on a machine with two cores"
        )
    stages = {}
    for name in STAGES:
        growth = law_of(
            [run.n for run in single], [max(run.seconds[name], SMALLEST_S) for run in single]
        )
        if growth is not None:
            stages[name] = Stage(growth, _parallel_share(name, growth, several))
    largest = max(single, key=lambda run: run.n)
    return Model(
        start_s=median(run.seconds[START] for run in runs),
        stages=stages,
        vector_bytes=vector,
        other_bytes=max(0.0, largest.bytes_moved / largest.n - VECTORS_READ * vector),
    )


def predicted(model: Model, n: int, cluster: Cluster) -> Prediction:
    """The time of a run with n rows on a cluster. Cost O(1)."""
    seconds = {START: model.start_s / cluster.speed}
    low, high = seconds[START], seconds[START]
    for name, stage in model.stages.items():
        slots = cluster.cores * (cluster.machines if name in SPREAD else 1)
        share = (1 - stage.parallel + stage.parallel / slots) / cluster.speed
        at = stage.growth.at(n)
        seconds[name] = at.value * share
        low += max(at.low, at.value / WIDEST) * share
        high += min(at.high, at.value * WIDEST) * share
    seconds["network"] = network_s(model, n, cluster)
    total = sum(seconds.values())
    return Prediction(total, low + seconds["network"], high + seconds["network"], seconds)


def bytes_moved(model: Model, n: int, machines: int) -> float:
    """Bytes over the network: what the tasks of all machines but one read and write.

    The shared folder is on that one, so one machine moves nothing. Every other machine fetches all
    vectors once, where they are few enough for that (docs/adr/0015-hosts-with-vectors.md).
    """
    return sum(_moved(model, n, machines))


def network_s(model: Model, n: int, cluster: Cluster) -> float:
    """Seconds in which the link of the machine with the folder is busy; overlapped with nothing.

    It carries both ways at once: vectors one way, of all else as much is read as written, about.
    """
    vectors, others = _moved(model, n, cluster.machines)
    return (vectors + others / 2) / cluster.link_bytes_s


def _moved(model: Model, n: int, machines: int) -> tuple[float, float]:
    """Of vectors that are fetched once, and of all else."""
    share, vectors = (machines - 1) / machines, model.vector_bytes * n
    others = share * model.other_bytes * n
    if vectors <= HELD_BYTES:
        return (machines - 1) * vectors, others
    return 0.0, others + share * VECTORS_CARRIED * vectors


def _parallel_share(name: str, growth: Law, several: Sequence[Observation]) -> float:
    """Amdahl's share from the runs on several cores, against the fit on one, within 0..1."""
    shares = []
    for run in several:
        faster = growth.seconds(run.n) / max(run.seconds[name], SMALLEST_S)
        shares.append((1 - 1 / faster) / (1 - 1 / run.cores))
    return min(1.0, max(0.0, median(shares)))
