"""One command: up, ingest, build, verify, fetch, down, load, publish.

Whatever fails: what was finished is fetched where it can be, the machines are deleted, readers keep
the matrix that they have, and the same command again goes on from there. The load comes last and
happens here, so no rented machine knows the database, and none is paid for while it loads.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearfield.clusters.hosts import start_cluster, stop_cluster
from nearfield.clusters.ssh import Shell
from nearfield.errors import Infrastructure, NearfieldError
from nearfield.files import write_bytes
from nearfield.interrupts import finished_first
from nearfield.lock import locked
from nearfield.manifest import fingerprint
from nearfield.retention import keep_newest
from vm_scripts import fleet, remote
from vm_scripts.jobs import (
    BY_CODE,
    Job,
    fetch,
    fetched_run,
    files_of,
    follow,
    inputs_of,
    push,
    read_job,
)
from vm_scripts.settings import MachineSettings

DSN_VARIABLE = "NEARFIELD_DSN"


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did. `machines` False: the matrix was fetched before, only the load lacked."""

    run: Path
    recall: float
    machines: bool
    loaded: dict[str, Any]
    cost: str


def plan_rebuild(machines: MachineSettings, job_file: Path) -> dict[str, Any]:
    """What `rebuild` would do, with prices; nothing is made."""
    job = read_job(job_file)
    fetched = _fetched(machines, job)
    return {
        "machines": [] if fetched else fleet.plan(machines),
        "job": f"k {job.settings.build.k}, recall {job.settings.build.recall}, "
        f"method {job.settings.build.method}",
        "load": f"{fetched['run']}, fetched before" if fetched else "after the machines are gone",
        "give up after": f"{machines.max_hours} hours",
    }


def rebuild(machines: MachineSettings, job_file: Path) -> Rebuilt:
    """Do all of it; raises what the step that failed raises, after the machines are gone."""
    job = read_job(job_file)
    with locked(machines.state / "rebuild"):
        report = _fetched(machines, job)
        needed = report is None
        if report is None:
            report = _computed(machines, job)
            write_bytes(
                machines.state / "fetched.json",
                json.dumps({"mark": _mark(job), "report": report}).encode(),
            )
        run = fetched_run(job, report)
        loaded = load_here(job, run)
        keep_newest(job.folder, run, job.settings.keep_runs)
        rebuilt = Rebuilt(
            run=run,
            recall=float(report["recall"]),
            machines=needed,
            loaded=loaded,
            cost=fleet.status(machines).cost.text(),
        )
        # last: what fails before is tried again without machines
        (machines.state / "fetched.json").unlink()
    return rebuilt


def run_on_machines(machines: MachineSettings, job: Job, *, poll_s: float = 10.0) -> dict[str, Any]:
    """Push, cluster up, job, until it ends; the machines must be up. What the job reported."""
    shell = fleet.shell_of(machines)
    remote.beat(shell)
    if len(shell.inventory.hosts) > 1:
        state = start_cluster(shell.inventory, machines.state / "cluster")
        print(f"dashboard: {state.tunnel}", file=sys.stderr)
    push(job, machines, shell, machines.state)
    remote.start_job(shell, f"{machines.folder}/job")
    return follow(machines, shell, poll_s=poll_s)


def _computed(machines: MachineSettings, job: Job) -> dict[str, Any]:
    with machines_for(machines):
        try:
            report = run_on_machines(machines, job)
        except BaseException:
            _salvage(machines, job)
            raise
        fetch(job, machines, fleet.shell_of(machines))
        fetched_run(job, report)
    return report


@contextmanager
def machines_for(settings: MachineSettings) -> Iterator[None]:
    """Machines for the block, and none after it."""
    try:
        fleet.up(settings)
        yield
    finally:
        with finished_first("deleting the machines"):
            _stop_services(settings)
            ended = fleet.down(settings)
        print(f"machines: {ended.cost.text()}", file=sys.stderr)


def _stop_services(settings: MachineSettings) -> None:
    """On hosts that stay nothing of ours may go on running."""
    if settings.provider != "hosts" or not (settings.state / "inventory.toml").exists():
        return
    shell: Shell = fleet.shell_of(settings)
    try:
        remote.stop_job(shell, f"{settings.folder}/job")
        stop_cluster(shell.inventory, settings.state / "cluster")
    except NearfieldError as error:
        print(f"could not stop everything on the hosts: {error}", file=sys.stderr)


def _salvage(machines: MachineSettings, job: Job) -> None:
    """Fetch what is finished, so that the next rebuild needn't do it again."""
    try:
        shell = fleet.shell_of(machines)
        remote.stop_job(shell, f"{machines.folder}/job")
        fetch(job, machines, shell)
        print(f"what was finished is in {job.folder}; the next rebuild resumes", file=sys.stderr)
    except (NearfieldError, OSError) as error:
        print(f"nothing could be saved from the machines: {error}", file=sys.stderr)


def load_here(job: Job, run: Path) -> dict[str, Any]:
    """`nearfield load` here, into the database that the job names."""
    # -P: modules come from the installation, not from whatever lies in the current folder
    command = [sys.executable, "-P", "-m", "nearfield", "load", str(run), "--json"]
    load, environment = job.settings.load, dict(os.environ)
    if load.dsn:
        environment[DSN_VARIABLE] = load.dsn
    elif load.database or not os.environ.get(DSN_VARIABLE):
        command += ["--database", str(job.folder / (load.database or "postgres"))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode:
        raise BY_CODE.get(done.returncode, Infrastructure)(
            f"{run} is here, but could not be loaded; the published run stays. No machine is "
            "running; the same command again only loads"
        )
    return dict(json.loads(done.stdout))


def _fetched(machines: MachineSettings, job: Job) -> dict[str, Any] | None:
    """The report of a job that was fetched but not loaded, if sources and settings are the same."""
    try:
        content = json.loads((machines.state / "fetched.json").read_bytes())
    except (OSError, ValueError):
        return None
    return dict(content["report"]) if content["mark"] == _mark(job) else None


def _mark(job: Job) -> str:
    """Changes when the job file or a source does."""
    found = [
        (str(file), file.stat().st_size, file.stat().st_mtime_ns)
        for path in inputs_of(job)
        for file in files_of(path)
    ]
    return fingerprint(files=found, settings=repr(job.settings))
