"""A job file's way to the head and back: what is sent, what runs there, what is fetched.

On the head, `FOLDER/job/` holds the job file with its sources, and `FOLDER/job/work/` is the job's
folder. The database isn't touched there: machines that are rented never see its address or
password, and none is paid for while it loads.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from typing import Any, TypeVar

import msgspec
import tomli_w

from nearfield.clusters.ssh import Shell
from nearfield.errors import (
    DiskFull,
    Infrastructure,
    InputRejected,
    NearfieldError,
    QualityGate,
    RunLocked,
    UsageError,
)
from nearfield.files import files_of, write_bytes
from nearfield.machine import existing_folder
from nearfield.run import Run, create_run, open_run
from nearfield.settings import BuildSettings, Settings, matching, read_settings
from nearfield.vectorset import open_vector_set
from vm_scripts import remote
from vm_scripts.settings import MachineSettings

POLL_S = 10.0
ALIVE_S = 600.0
"""A copy that went on for so long had a connection: no command, nor a copy in which nothing moves,
is waited for as long.
"""
WORK = "work"
Result = TypeVar("Result")
BY_CODE: dict[int, type[NearfieldError]] = {
    error.exit_code: error
    for error in (UsageError, InputRejected, QualityGate, Infrastructure, RunLocked)
}


@dataclass(frozen=True)
class Job:
    """A job file on this computer: `base` its folder, `folder` where its results go."""

    path: Path
    settings: Settings

    @property
    def base(self) -> Path:
        """Where relative paths count from."""
        return self.path.resolve().parent

    @property
    def folder(self) -> Path:
        """Vectors, runs and the embedded database."""
        return (self.base / self.settings.folder).resolve()


def read_job(path: Path) -> Job:
    """Read a job file; raises what `read_settings` raises, and `UsageError` for runs elsewhere."""
    settings = read_settings(path)
    if settings.build.runs != BuildSettings().runs:
        raise UsageError(
            f"{path} keeps its runs in {settings.build.runs}; rented machines keep them in the "
            "job's folder, from where they are fetched: leave `runs` out"
        )
    return Job(path, settings)


def push(job: Job, machines: MachineSettings, shell: Shell, state: Path) -> None:
    """Send job file, sources, and what an interrupted run left here to resume from."""
    inputs = inputs_of(job)
    head, place = shell.inventory.scheduler, f"{machines.folder}/job/"
    for local, there in inputs.items():
        # of a folder nothing stays there that isn't here any more; links lead nowhere there
        slash, words = ("/", ["--delete"]) if local.is_dir() else ("", [])
        remote.copy_to(
            shell, head, [f"{local}{slash}"], f"{place}{there}{slash}", "--copy-links", *words
        )
    local_job = state / "job.toml"
    write_bytes(local_job, tomli_w.dumps(_on_head(job, machines, shell, inputs)).encode())
    remote.copy_to(shell, head, [str(local_job)], f"{place}job.toml")
    kept = [
        path for path in (job.folder / "vectors", job.folder / "ingested.json") if path.exists()
    ]
    kept += _unfinished(job)
    if kept:
        relative = [f"{job.folder}/./{path.relative_to(job.folder)}" for path in kept]
        remote.copy_to(shell, head, relative, f"{place}{WORK}/", "--relative")


def to_send(job: Job) -> list[tuple[str, int]]:
    """The inputs that `push` sends, with their bytes. Raises `UsageError` for one that isn't."""
    return [
        (str(path), sum(file.stat().st_size for file in files_of(path))) for path in inputs_of(job)
    ]


def follow(machines: MachineSettings, shell: Shell, *, poll_s: float = POLL_S) -> dict[str, Any]:
    """Wait for the job on the head; what it reported.

    Raises the error that the job ended with, or `Infrastructure` after `max_hours` or when the
    job vanished. A head that can't be reached for a while is waited for.
    """
    folder, patience_s = f"{machines.folder}/job", machines.idle_minutes * 60
    deadline = time.monotonic() + machines.max_hours * 3600
    offset = 0

    def state() -> remote.JobState:
        return remote.job_state(shell, folder, offset)

    while True:
        left_s = max(0.0, deadline - time.monotonic())
        found = over_outages(state, min(patience_s, left_s), poll_s=poll_s)
        offset = found.offset
        sys.stderr.write(found.log)
        if not found.running:
            if found.code == 0:
                return over_outages(
                    lambda: remote.report_of(shell, folder), patience_s, poll_s=poll_s
                )
            _raise_end(found)
        if time.monotonic() > deadline:
            remote.stop_job(shell, folder)
            raise Infrastructure(f"the job took longer than max_hours = {machines.max_hours}")
        time.sleep(poll_s)


def fetch(
    job: Job, machines: MachineSettings, shell: Shell, *, dry_run: bool = False,
    timeout_s: float | None = None,
) -> list[tuple[str, int]]:  # fmt: skip
    """Bring vectors and runs here, finished or not; what is here already isn't sent again.

    The files that came, with their bytes; with `dry_run` those that would. What has come when
    `timeout_s` is over stays here, and `Infrastructure` is raised, as for any copy that fails;
    `DiskFull` before anything comes that has no room.
    """
    coming = _copied(job, machines, shell, "--dry-run", timeout_s=timeout_s)
    if dry_run:
        return coming
    # a file that came in part is made anew beside that part
    needed, free = sum(size for _, size in coming), disk_usage(existing_folder(job.folder)).free
    if needed > free:
        raise DiskFull(
            f"{job.folder} has room for {free:,} bytes, what the machines have made takes "
            f"{needed:,}: free space there"
        )
    return _copied(job, machines, shell, timeout_s=timeout_s)


def _copied(
    job: Job, machines: MachineSettings, shell: Shell, *words: str, timeout_s: float | None
) -> list[tuple[str, int]]:
    chosen = ["--exclude=/postgres", "--exclude=.lock", "--exclude=.*.partial-*"]
    said = remote.copy_from(
        shell, shell.inventory.scheduler, f"{machines.folder}/job/{WORK}/", job.folder,
        *chosen, "--out-format=%l %n", *words, timeout_s=timeout_s,
    )  # fmt: skip
    pairs = [line.split(" ", 1) for line in said.splitlines()]
    return [(name, int(size)) for size, name in pairs if not name.endswith("/")]


def over_outages(
    action: Callable[[], Result],
    patience_s: float,
    *,
    outage: type[Infrastructure] | tuple[type[Infrastructure], ...] = Infrastructure,
    poll_s: float = POLL_S,
) -> Result:
    """What `action` gives, tried again and again while it raises `outage`, until that has lasted
    for `patience_s`: what lies on the machines took hours, and they go afterwards.
    """
    silent_since: float | None = None
    while True:
        began = time.monotonic()
        try:
            return action()
        except outage as error:
            now = time.monotonic()
            if silent_since is None or now - began > ALIVE_S:
                silent_since = now
            if now - silent_since > patience_s:
                raise
            print(f"{error}; trying again", file=sys.stderr)
            time.sleep(poll_s)


def fetched_run(job: Job, report: dict[str, Any]) -> Path:
    """The run that was fetched, checked against its manifests and pointed at the vectors here."""
    run = run_of(job, report)
    run.finished_matrix()
    vectors = open_vector_set(job.folder / "vectors")
    if vectors.fingerprint != run.config.vectors_fingerprint:
        raise Infrastructure(
            f"{run.path} was made of other vectors than those in {vectors.path}: fetch again"
        )
    asked = job.settings.build
    if (run.config.k, run.config.recall) != (asked.k, asked.recall):
        raise Infrastructure(
            f"{run.path} was made with k = {run.config.k} and recall {run.config.recall}, the job "
            f"asks for {asked.k} and {asked.recall}: run the same command again"
        )
    return create_run(run.path, _with_vectors(run.config, vectors.path)).folder


def run_of(job: Job, report: dict[str, Any]) -> Run:
    """The run of that name here, finished or not."""
    return open_run(job.folder / "runs" / Path(str(report["run"])).name)


def _with_vectors(config: Any, vectors: Path) -> Any:
    from dataclasses import replace

    return replace(config, vectors=str(vectors.resolve()))


def _unfinished(job: Job) -> list[Path]:
    runs = job.folder / "runs"
    return [path.parent for path in runs.glob("*/run.json")
            if not (path.parent / "verification.json").exists()]  # fmt: skip


def inputs_of(job: Job) -> dict[Path, str]:
    """Every input file or folder, and its place below the job's folder on the head."""
    found: dict[Path, str] = {}
    settings = job.settings.ingest
    patterns = [*settings.sources, *filter(None, (settings.ids, settings.labels_from))]
    for number, pattern in enumerate(patterns):
        for place, path in enumerate(matching(pattern, job.base)):
            # what lies in several folders may have one name; a document's name tells its id
            found[path] = f"inputs/{number}-{place:06}/{path.name}"
    return found


def _on_head(
    job: Job, machines: MachineSettings, shell: Shell, inputs: dict[Path, str]
) -> dict[str, Any]:
    """The job file as the head gets it: its own paths, its own cluster, no database."""
    content: dict[str, Any] = msgspec.to_builtins(job.settings)
    ingest, build = content["ingest"], content["build"]
    optional = {name for name in ("ids", "labels_from") if ingest[name]}
    named = {name: inputs[job.base / ingest[name]] for name in optional}
    ingest["sources"] = [there for there in inputs.values() if there not in named.values()]
    ingest |= named | {"workers": None}
    several = len(shell.inventory.hosts) > 1
    place = shell.inventory.folder
    place = place if place.startswith("/") else f"~/{place}"
    connection = f"{place}/{shell.inventory.name}/cluster.toml"
    build |= {"workers": None, "scheduler": connection if several else None}
    content |= {"folder": WORK, "load": {}}
    return {
        key: {name: one for name, one in value.items() if one is not None}
        if isinstance(value, dict)
        else value
        for key, value in content.items()
    }


def _raise_end(found: remote.JobState) -> None:
    said = " ".join(found.log.strip().splitlines()[-3:]).removeprefix("nearfield: ")
    if found.code is None:
        raise Infrastructure(f"the job on the head vanished: was it restarted? {said}")
    raise BY_CODE.get(found.code, Infrastructure)(f"the job on the head failed: {said}")
