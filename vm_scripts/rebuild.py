"""One command: up, ingest, build, verify, fetch, down, load, publish.

Whatever fails: what was finished is fetched where it can be, the machines are deleted, readers keep
the matrix that they have, and the same command again goes on from there. The load comes last and
happens here, so no rented machine knows the database, and none is paid for while it loads.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearfield.clusters.hosts import start_cluster, stop_cluster
from nearfield.clusters.ssh import Shell, Unreachable
from nearfield.errors import DiskFull, Infrastructure, NearfieldError, RunLocked
from nearfield.files import stamps_of, write_bytes
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
    follow,
    inputs_of,
    over_outages,
    push,
    read_job,
    run_of,
)
from vm_scripts.settings import MachineSettings

DSN_VARIABLE = "NEARFIELD_DSN"
SALVAGE_S = 240.0
"""For what is saved before machines are deleted: whoever stops us waits, ten minutes as a service
(deploy/systemd), and then kills.
"""
DELETE_S, DELETE_AGAIN_S = 240.0, 5.0
"""How long deleting is tried, which others at work and outages hinder; with `SALVAGE_S` still less
than those ten minutes.
"""


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
        needed = _fetched(machines, job) is None
        undeleted: Infrastructure | None = None
        try:
            if needed:
                _compute(machines, job)
            else:
                _delete_machines(machines)
        except Infrastructure as error:
            # said in the end, where the matrix is here all the same
            undeleted = error
        report = _fetched(machines, job)
        if report is None:
            raise undeleted or Infrastructure(f"sources of {job.path} changed meanwhile: run again")
        run = fetched_run(job, report)
        loaded = load_here(job, run)
        keep_newest(job.folder, run, job.settings.keep_runs)
        rebuilt = Rebuilt(
            run=run,
            recall=float(report["recall"]),
            machines=needed,
            loaded=loaded,
            cost=fleet.cost_so_far(machines).text(),
        )
    if undeleted is not None:
        raise undeleted
    return rebuilt


def run_on_machines(machines: MachineSettings, job: Job, *, poll_s: float = 10.0) -> dict[str, Any]:
    """Push, cluster up, job, until it ends; the machines must be up. What the job reported."""
    shell = fleet.shell_of(machines)
    with remote.beating(shell):
        if len(shell.inventory.hosts) > 1:
            state = start_cluster(shell.inventory, machines.state / "cluster")
            print(f"dashboard: {state.tunnel}", file=sys.stderr)
        # a job that a driver left behind may be of other sources or settings
        remote.mark_job(shell, f"{machines.folder}/job", _mark(job))
        push(job, machines, shell, machines.state)
        remote.start_job(shell, f"{machines.folder}/job")
        return follow(machines, shell, poll_s=poll_s)


def _compute(machines: MachineSettings, job: Job) -> None:
    """Have the machines make the run and bring it here; noted at once, whatever comes then."""
    mark, report = _mark(job), None
    with machines_for(machines):
        try:
            report = run_on_machines(machines, job)
            shell = fleet.shell_of(machines)
            with remote.beating(shell):
                over_outages(
                    lambda: fetch(job, machines, shell),
                    machines.idle_minutes * 60,
                    # what is finished there is worth waiting for room here, too
                    outage=(Unreachable, DiskFull),
                )
        except BaseException:
            _salvage(machines, job)
            if report is not None:
                with suppress(NearfieldError, OSError):  # it may not have come whole
                    _note_fetched(machines, job, mark, report)
            raise
        _note_fetched(machines, job, mark, report)


def _note_fetched(machines: MachineSettings, job: Job, mark: str, report: dict[str, Any]) -> None:
    """Remember that the finished run is here, so that nothing is rented for it again."""
    fetched_run(job, report)
    noted = json.dumps({"mark": mark, "report": report})
    write_bytes(machines.state / "fetched.json", noted.encode())


@contextmanager
def machines_for(settings: MachineSettings) -> Iterator[None]:
    """Machines for the block, and none after it; where others are at work with them, neither."""
    with ExitStack() as stack:
        stack.callback(_end_machines, settings)
        try:
            fleet.up(settings)
        except RunLocked:
            stack.pop_all()
            raise
        yield


def _end_machines(settings: MachineSettings) -> None:
    with finished_first("deleting the machines"):
        _stop_services(settings)
        _delete_machines(settings)


def _delete_machines(settings: MachineSettings) -> None:
    """Delete what this computer's key has made of the run, after whoever has their lock, and again
    while the provider fails. Raises `Infrastructure` that names what may be left.
    """
    deadline = time.monotonic() + DELETE_S
    while True:
        try:
            ended = fleet.down(settings, only_own=True)
            break
        except (NearfieldError, OSError) as error:
            passing = isinstance(error, Infrastructure | RunLocked)
            if not passing or time.monotonic() > deadline:
                raise Infrastructure(fleet.left_over(settings, error)) from error
            print(f"{error}; trying again", file=sys.stderr)
            time.sleep(DELETE_AGAIN_S)
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
    deadline = time.monotonic() + SALVAGE_S

    def stopped_and_fetched() -> None:
        remote.stop_job(shell, f"{machines.folder}/job")
        fetch(job, machines, shell, timeout_s=max(1.0, deadline - time.monotonic()))

    try:
        shell = fleet.shell_of(machines)
        with remote.beating(shell):
            over_outages(stopped_and_fetched, SALVAGE_S / 2, outage=Unreachable)
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
    """The report of a job whose run was fetched, if sources and settings are the same and it is
    here still.
    """
    try:
        content = json.loads((machines.state / "fetched.json").read_bytes())
        report = dict(content["report"])
        run_of(job, report).finished_matrix(verify=False)
    except (OSError, ValueError, NearfieldError):
        return None
    return report if content["mark"] == _mark(job) else None


def _mark(job: Job) -> str:
    """Changes when the job file or a source does."""
    return fingerprint(files=stamps_of(inputs_of(job)), settings=repr(job.settings))
