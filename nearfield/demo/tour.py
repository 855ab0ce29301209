"""The main job on a made-up archive: what `make demo` runs, with nothing that a user can't do.

Owns the job file that it leaves for the user to read, and the question that it asks at the end.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nearfield import api
from nearfield.api import Neighbour
from nearfield.demo.dump import write_dump
from nearfield.files import write_bytes
from nearfield.job import JobReport, run_job
from nearfield.machine import available_cores
from nearfield.vectorset import ID_COLUMN, open_vector_set

JOB = """\
# Everything that `nearfield run` needs; relative paths count from this file's folder.
[ingest]
sources = ["dump/*.tar.zst"]
space = "combined"

[build]
k = 100
recall = 0.95

[verify]
sample = 500
"""


@dataclass(frozen=True)
class Demo:
    """The job's report, the recording that was asked about, and its neighbours out of SQL."""

    job: JobReport
    asked: Neighbour
    neighbours: list[Neighbour]
    try_next: tuple[str, ...]


def run_demo(out: Path, *, recordings: int = 20_000) -> Demo:
    """Make a seeded archive in `out/dump`, run `out/job.toml`, ask for ten neighbours by SQL.

    Called again it keeps what is done. Raises what the stages raise.
    """
    started = time.monotonic()
    dump = write_dump(out / "dump", recordings=recordings, workers=available_cores())
    made = {
        "step": "make dump",
        "seconds": round(time.monotonic() - started, 1),
        "documents": dump.documents,
    }
    job_file = out / "job.toml"
    write_bytes(job_file, JOB.encode())
    job = run_job(job_file)
    asked = _some_recording(job.vectors)
    database = out / "postgres"
    return Demo(
        job=replace(job, steps=(made, *job.steps)),
        asked=asked,
        neighbours=api.query(asked.recording_id, 10, database=database),
        try_next=(
            f"nearfield query {asked.recording_id} -k 20 --database {database}",
            f"nearfield database {database}   # then, in another terminal, the psql line it prints",
            f"nearfield run {job_file}   # again: everything is done, so it takes seconds",
        ),
    )


def _some_recording(vectors: Path) -> Neighbour:
    recordings = open_vector_set(vectors, verify=False).recordings
    labels: dict[str, Any] = recordings.slice(recordings.num_rows // 2, 1).to_pylist()[0]
    return Neighbour(0, str(labels.pop(ID_COLUMN)), 0.0, labels)
