"""`nearfield load`, `query` and `database`: the matrix in Postgres."""

import json
import shlex
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from nearfield.cli.building import RunArgument
from nearfield.cli.interrupts import Interrupted
from nearfield.cli.output import (
    AsJson,
    DryRun,
    examples,
    print_json,
    print_pairs,
    print_table,
    size,
)
from nearfield.errors import UsageError

FIRST_LABELS = ("title", "artist")
Dsn = Annotated[
    str | None,
    typer.Option(
        help="Postgres server. Better in the environment variable NEARFIELD_DSN, where "
        "a password isn't seen by others. Without one an embedded server is used."
    ),
]
Database = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder of the embedded database (load: RUN/postgres by default)."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=examples("nearfield load run", "nearfield load run --database db"))(load)
    app.command(
        epilog=examples("nearfield query 0dad432b-16cc-4bf0-8961-fd31d124b01b -k 10 --run run")
    )(query)
    app.command(epilog=examples("nearfield database run/postgres"))(database)


def load(  # noqa: PLR0913  (a command has as many parameters as it has options)
    run: RunArgument,
    *,
    dsn: Dsn = None,
    database: Database = None,
    force: Annotated[
        bool, typer.Option("--force", help="Load although verification is missing or failed.")
    ] = False,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="Leave titles and other labels out.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Load a verified run into Postgres and publish it: readers switch to it at once."""
    from nearfield import api

    if dry_run:
        plan = api.plan_load(run, dsn=dsn, database=database)
        print_json(plan) if as_json else print_pairs(
            [
                ("run", f"{plan.rows:,} recordings x {plan.k} neighbours, {plan.stage}"),
                ("to copy", f"about {size(plan.bytes)}"),
                ("into", plan.target),
            ]
        )
        return
    _warn_of_password(dsn)
    report = api.load(run, dsn=dsn, database=database, force=force, labels=not no_labels)
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print_json(report)
        return
    print_pairs(
        [
            ("published", f"run {report.run_id}, {report.rows:,} recordings"),
            ("loaded", "before" if report.already_loaded else f"in {report.seconds:.1f} s"),
            ("next", f"nearfield query RECORDING_ID -k 10{_place(run, dsn, database)}"),
        ]
    )


def query(
    recording_id: Annotated[str, typer.Argument(metavar="RECORDING_ID")],
    *,
    k: Annotated[int, typer.Option("-k", help="How many neighbours.")] = 10,
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Ask the embedded database of this run.")
    ] = None,
    dsn: Dsn = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Print the nearest recordings of one, from the published run, through SQL."""
    from nearfield import api

    if run is not None:
        if database is not None:
            raise UsageError("expected either --run or --database, got both")
        database = run / "postgres"
    _warn_of_password(dsn)
    found = api.query(recording_id, k, dsn=dsn, database=database)
    if as_json:
        print_json(found)
        return
    used = {name for neighbour in found for name in neighbour.labels}
    names = [*(name for name in FIRST_LABELS if name in used), *sorted(used - set(FIRST_LABELS))]
    print_table(
        ("rank", "distance", *names, "recording_id"),
        (
            (
                neighbour.rank,
                neighbour.distance,
                *(neighbour.labels.get(name) or "" for name in names),
                neighbour.recording_id,
            )
            for neighbour in found
        ),
    )


def database(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Such as RUN/postgres.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Keep an embedded database up for psql and other programs until Ctrl-C."""
    from nearfield import api

    with api.embedded(directory) as dsn:
        print(json.dumps({"dsn": dsn}) if as_json else f'psql "{dsn}"', flush=True)
        with suppress(Interrupted):
            signal.pause()


def _place(run: Path, dsn: str | None, database: Path | None) -> str:
    """The option that makes `query` ask where `load` with these options has put the run."""
    from nearfield import api

    server, directory = api.place_of(dsn, database, default=None)
    if server:
        return " --dsn DSN" if dsn else ""
    name, path = ("--database", directory) if directory else ("--run", run)
    return f" {name} {shlex.quote(str(path))}"


def _warn_of_password(dsn: str | None) -> None:
    from dumps.postgres.connection import has_password

    if dsn and has_password(dsn):
        print(
            "warning: others on this machine can read a password on the command line; "
            "put the address into NEARFIELD_DSN",
            file=sys.stderr,
        )
