"""What was measured to plan from: whole runs at a few sizes, on one core and on all of them.

Owns the file of calibrations (JSON, one entry per kind of job) and the names under which steps of
a run are added up. The runs themselves are made by the composition root.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nearfield.errors import DamagedArtefact, MissingFile, UsageError
from nearfield.files import write_bytes

FORMAT_VERSION = 3
STAGES: dict[str, tuple[str, ...]] = {
    "collapse": ("collapse",),
    "plan": ("plan", "sample"),
    "partition": ("partition",),
    "join": ("join residents", "join", "join guests", "sweep", "walk"),
    "merge": ("merge", "estimate"),
    "write": ("write matrix",),
    "verify": ("verify",),
    "load": ("load",),
}
"""Stages of the model, and the steps of a run that each one adds up."""
START = "start"
"""What no step accounts for: starting programs, workers and the database."""


@dataclass(frozen=True)
class Job:
    """The kind of job that a calibration is for. `data`: "generated" or the set's fingerprint."""

    d: int
    k: int
    recall: float
    space: str
    data: str


@dataclass(frozen=True)
class Observation:
    """One run: n rows on `cores` cores; seconds by stage, bytes that tasks read and wrote.

    alone: joined by one task with all cores, as one machine does it; else in shards, as several do.
    """

    n: int
    cores: int
    seconds: Mapping[str, float]
    bytes_moved: int
    peak_bytes: int
    alone: bool = False


@dataclass(frozen=True)
class Calibration:
    """All runs for one kind of job, on one machine: its processor, versions of libraries."""

    job: Job
    machine: str
    versions: Mapping[str, str]
    created: str
    observations: tuple[Observation, ...]


def seconds_by_stage(steps: Sequence[Mapping[str, Any]], total_s: float) -> dict[str, float]:
    """Seconds of the model's stages out of the steps of a run that took `total_s` in all.

    A step that belongs to no stage is counted as start: what isn't known to grow isn't let grow.
    """
    found = {
        stage: sum(float(step["seconds"]) for step in steps if step["step"] in names)
        for stage, names in STAGES.items()
    }
    return found | {START: max(0.0, total_s - sum(found.values()))}


def keep(path: Path, calibration: Calibration) -> None:
    """Put a calibration into the file, instead of an older one for the same kind of job."""
    others = [one for one in _read(path) if one.job != calibration.job] if path.exists() else []
    content = {
        "format_version": FORMAT_VERSION,
        "calibrations": [asdict(one) for one in [*others, calibration]],
    }
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def calibration_for(path: Path, job: Job) -> Calibration:
    """The calibration for that kind of job.

    A calibration on generated data serves for any data where there is none on the set itself.
    Raises `MissingFile` without a file, `UsageError` where it has nothing for the job.
    """
    known = _read(path)
    for data in (job.data, "generated"):
        for one in known:
            if one.job == Job(job.d, job.k, job.recall, job.space, data):
                return one
    there = "; ".join(f"d {o.job.d}, k {o.job.k}, recall {o.job.recall}" for o in known)
    raise UsageError(
        f"{path} has no calibration for d {job.d}, k {job.k}, recall {job.recall}, space "
        f"{job.space} (it has: {there or 'nothing'}). Run the same command with --calibrate first"
    )


def _read(path: Path) -> list[Calibration]:
    try:
        content = json.loads(path.read_bytes())
        if content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {content['format_version']}")
        return [_parsed(one) for one in content["calibrations"]]
    except FileNotFoundError as error:
        raise MissingFile(
            f"expected a calibration of this machine in {path}, found none. "
            "Run the same command with --calibrate first: it takes minutes"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedArtefact(
            f"{path} can't be read as calibrations ({error}): remove it and calibrate again"
        ) from error


def _parsed(one: dict[str, Any]) -> Calibration:
    runs = tuple(Observation(**run) for run in one.pop("observations"))
    return Calibration(Job(**one.pop("job")), observations=runs, **one)
