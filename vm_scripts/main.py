"""The commands of vm_scripts: up, status, run, fetch, down, cost, rebuild. Thin over the functions.

Each is also a script of its name in this folder. Machine settings come from --machines; all
commands say what the run has cost.
"""

import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import msgspec
import tomli_w
import typer

from nearfield.clusters.prices import read_prices
from nearfield.errors import UsageError
from nearfield.exits import INTERRUPTED, errors_end
from nearfield.files import write_bytes
from nearfield.interrupts import Interrupted, raise_on_signals
from nearfield.lock import locked
from vm_scripts import fleet, jobs, remote
from vm_scripts import rebuild as rebuilding
from vm_scripts.fleet import Fleet
from vm_scripts.providers.base import now, provider_for
from vm_scripts.providers.hetzner import Hetzner, refreshed
from vm_scripts.settings import read_settings

MachinesOption = Annotated[
    Path, typer.Option("--machines", metavar="MACHINES.TOML", help="Which machines, from whom.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; do nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
JobArgument = Annotated[Path, typer.Argument(metavar="JOB.TOML", help="Job file.")]
DEFAULT = Path("machines.toml")

app = typer.Typer(
    name="vm_scripts",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Machines up, job, machines down; always able to say what runs and what it costs.",
)


@app.command()
def up(
    machines: MachinesOption = DEFAULT, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Make the machines of the run that don't exist yet, and wait until they can work."""
    settings = read_settings(machines)
    if dry_run:
        _print(fleet.plan(settings), as_json=as_json)
        _say_cost(fleet.status(settings))
        return
    fleet.up(settings)
    _print_fleet(fleet.status(settings), as_json=as_json)


@app.command()
def status(machines: MachinesOption = DEFAULT, as_json: AsJson = False) -> None:
    """Say which machines exist, of this run and of others, and what they cost."""
    _print_fleet(fleet.status(read_settings(machines)), as_json=as_json)


@app.command()
def run(
    job: JobArgument,
    machines: MachinesOption = DEFAULT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Run the job on the machines that are up, until it ends; again: watch the one that runs."""
    settings = read_settings(machines)
    if dry_run:
        _print_files(jobs.to_send(jobs.read_job(job)), as_json=as_json)
        _say_cost(fleet.status(settings))
        return
    with locked(settings.state / "rebuild"):
        report = rebuilding.run_on_machines(settings, jobs.read_job(job))
    _print(report, as_json=as_json)
    _say_cost(fleet.status(settings))


@app.command()
def fetch(
    job: JobArgument,
    machines: MachinesOption = DEFAULT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Bring vectors and runs from the head to the job's folder, finished or not."""
    settings = read_settings(machines)
    read = jobs.read_job(job)
    shell = fleet.shell_of(settings)
    with remote.beating(shell):
        found = jobs.fetch(read, settings, shell, dry_run=dry_run)
    _print_files(found, as_json=as_json)
    print(f"{'would fetch' if dry_run else 'fetched'} to {read.folder}", file=sys.stderr)
    _say_cost(fleet.status(settings))


@app.command()
def down(
    machines: MachinesOption = DEFAULT,
    all_runs: Annotated[
        bool, typer.Option("--all-runs", help="Delete the machines of every run of the project.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Delete the run's machines, also those of a driver that died; names those of other runs."""
    settings = read_settings(machines)
    if dry_run:
        found = provider_for(settings).machines(None if all_runs else settings.run)
        _print([{"machine": one.name, "state": one.state} for one in found], as_json=as_json)
        _say_cost(fleet.status(settings))
        return
    _print_fleet(fleet.down(settings, all_runs=all_runs), as_json=as_json)


@app.command()
def cost(
    machines: MachinesOption = DEFAULT,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Write the provider's prices into the price file.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what the run has cost so far, machine by machine."""
    settings = read_settings(machines)
    if refresh:
        provider = provider_for(settings)
        if not isinstance(provider, Hetzner):
            raise UsageError(f"{settings.provider} has no prices to ask for: edit the price file")
        fresh = refreshed(read_prices(settings.price_file), provider, settings.hetzner.type)
        write_bytes(settings.price_file, tomli_w.dumps(msgspec.to_builtins(fresh)).encode())
    found = fleet.status(settings).cost
    _print(
        [
            {"machine": one.name, "type": one.kind, "hours": one.hours(now()),
             "cost": round(one.cost(now()), 4), "deleted": one.deleted or ""}
            for one in found.machines
        ],
        as_json=as_json,
    )  # fmt: skip
    print(found.text(), file=sys.stderr)


@app.command()
def rebuild(
    job: JobArgument,
    machines: Annotated[
        Path | None,
        typer.Option("--machines", metavar="MACHINES.TOML", help="Default: beside the job file."),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Up, ingest, build, verify, fetch, down, load, publish; whatever fails, no machine stays."""
    settings = read_settings(machines or job.parent / "machines.toml")
    if dry_run:
        _print(rebuilding.plan_rebuild(settings, job), as_json=as_json)
        _say_cost(fleet.status(settings))
        return
    _print(asdict(rebuilding.rebuild(settings, job)), as_json=as_json)


def _print_fleet(found: Fleet, *, as_json: bool) -> None:
    listed = [
        {"machine": one.name, "run": one.run, "state": one.state, "type": one.kind,
         "ssh": f"{one.ssh}:{one.port}"}
        for one in (*found.machines, *found.others)
    ]  # fmt: skip
    if as_json:
        _print({"machines": listed, "deleted": found.deleted, "cost": asdict(found.cost)}, True)
        return
    _print(listed, as_json=False)
    if found.others:
        runs = sorted({one.run for one in found.others})
        print(f"machines of other runs exist: {', '.join(runs)}", file=sys.stderr)
    _say_cost(found)


def _print_files(found: list[tuple[str, int]], *, as_json: bool) -> None:
    _print([{"file": name, "bytes": size} for name, size in found], as_json=as_json)


def _say_cost(found: Fleet) -> None:
    print(found.cost.text(), file=sys.stderr)


def _print(result: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, default=str, indent=2))
    elif isinstance(result, dict):
        for name, value in result.items():
            print(f"{name}: {value}")
    else:
        for line in result:
            print("  ".join(f"{name} {value}" for name, value in line.items()))


def main() -> None:
    """Run a command; errors end in one sentence and the exit code of their class."""
    # a timer that stops us, or a closed terminal, must not leave machines behind
    raise_on_signals(signal.SIGHUP)
    try:
        with errors_end("vm_scripts"):
            app()
    except Interrupted:
        print("vm_scripts: interrupted; `vm_scripts/status` says what exists", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
