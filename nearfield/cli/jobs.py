"""`nearfield run`, `demo` and `doctor`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearfield.cli.databases import Database, Dsn
from nearfield.cli.output import (
    AsJson,
    DryRun,
    examples,
    print_json,
    print_pairs,
    print_steps,
    print_table,
    warn_of_password,
)
from nearfield.errors import Infrastructure

if TYPE_CHECKING:
    from nearfield.job import JobReport


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=examples("nearfield run job.toml", "nearfield run job.toml --dry-run"))(run)
    app.command(epilog=examples("nearfield demo --out demo --recordings 5000"))(demo)
    app.command(
        epilog=examples("nearfield doctor", "nearfield doctor --database run/postgres --json")
    )(doctor)


def run(
    job: Annotated[Path, typer.Argument(metavar="JOB.TOML", help="Job file.")],
    *,
    load: Annotated[
        bool, typer.Option("--load/--no-load", help="Load and publish, or stop once verified.")
    ] = True,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Do all stages of a job file: ingest, build, verify, load and publish. What a timer calls."""
    from nearfield.job import plan_job, run_job

    if dry_run:
        plan = plan_job(job)
        print_json(plan) if as_json else print_pairs(plan.items())
        return
    report = run_job(job, load=load)
    print_json(report) if as_json else _print_job(report)


def demo(
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where everything goes.")] = Path("demo"),
    recordings: Annotated[int, typer.Option(min=100, help="Size of the made-up archive.")] = 20_000,
    as_json: AsJson = False,
) -> None:
    """Make an archive of made-up recordings, run the main job on it, and ask for neighbours."""
    from nearfield.demo.tour import run_demo

    report = run_demo(out, recordings=recordings)
    if as_json:
        print_json(report)
        return
    _print_job(report.job)
    labels, shown = report.asked.labels, ("title", "artist", "genre")
    print(f"\nThe ten nearest of {labels['title']!r} by {labels['artist']} ({labels['genre']}):\n")
    print_table(
        ("rank", *shown, "distance"),
        (
            (
                hit.rank,
                *(hit.labels.get(name, "") for name in shown),
                hit.distance,
            )
            for hit in report.neighbours
        ),
    )
    print("\nTry next:")
    for command in report.try_next:
        print(f"  {command}")


def doctor(*, dsn: Dsn = None, database: Database = None, as_json: AsJson = False) -> None:
    """Look at processor, memory, disk, libraries and database rights; say what is amiss."""
    from nearfield import api

    warn_of_password(dsn)
    diagnosis = api.doctor(dsn=dsn, database=database)
    if as_json:
        print_json(diagnosis)
    else:
        print_table(
            ("", "what", "found", "advice"),
            (
                (finding.level, finding.name, finding.found, finding.advice)
                for finding in diagnosis.findings
            ),
        )
    if diagnosis.level == "fail":
        raise Infrastructure("something that nearfield needs is amiss: see the lines marked fail")


def _print_job(report: "JobReport") -> None:
    print_steps(report.steps)
    print()
    print_pairs(
        [
            ("vector set", str(report.vectors)),
            ("matrix", str(report.matrix)),
            ("database", report.database),
            ("recall", f"{report.recall:.4f}"),
            ("published", "no" if report.run_id is None else f"run {report.run_id}"),
        ]
    )
