"""`nearfield load` and `query`, the runs in a database, and `database`: the matrix in Postgres."""

import json
import shlex
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearfield.cli.building import RunArgument
from nearfield.cli.dumping import load_redis, refuse_options_of_postgres
from nearfield.cli.indexing import (
    AnswersFile,
    AskedIndex,
    AskedRecall,
    Exact,
    MemoryMib,
    Scaled,
    Shards,
    Vector,
    VectorQuery,
    query_by_vector,
)
from nearfield.cli.output import (
    AsJson,
    DryRun,
    examples,
    print_json,
    print_pairs,
    print_table,
    size,
    warn_of_password,
)
from nearfield.errors import UsageError
from nearfield.interrupts import Interrupted

if TYPE_CHECKING:
    from dumps.postgres.gates import Gate
    from nearfield.api import LoadReport, PublishedRun

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
RunOption = Annotated[
    Path | None, typer.Option("--run", metavar="RUN", help="The embedded database of this run.")
]
MinCoverage = Annotated[
    float,
    typer.Option(help="Gate: least share of the published recordings that must still be there."),
]
MaxRecallDrop = Annotated[
    float, typer.Option(help="Gate: most that recall may fall below the published run's.")
]
MaxChanged = Annotated[
    float, typer.Option(help="Gate: largest share of neighbours that may be new to a recording.")
]
MaxChangedRows = Annotated[
    float, typer.Option(help="Gate: largest share of lists that may have changed at all.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=examples("nearfield load run", "nearfield load run --database db"))(load)
    app.command(
        epilog=examples("nearfield query 0dad432b-16cc-4bf0-8961-fd31d124b01b -k 10 --run run")
    )(query)
    app.command(epilog=examples("nearfield publish 3 --run run"))(publish)
    app.command(epilog=examples("nearfield rollback --run run"))(rollback)
    app.command(epilog=examples("nearfield runs --run run"))(runs)
    app.command(epilog=examples("nearfield prune --keep 3 --dry-run --run run"))(prune)
    app.command(epilog=examples("nearfield database run/postgres"))(database)


def load(  # noqa: PLR0913  (a command has as many parameters as it has options)
    context: typer.Context,
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
    no_publish: Annotated[
        bool, typer.Option("--no-publish", help="Only load; `nearfield publish` shows it.")
    ] = False,
    connections: Annotated[
        int, typer.Option(min=1, max=16, help="How many parts are copied at a time.")
    ] = 2,
    reverse_index: Annotated[
        bool,
        typer.Option("--reverse-index", help="Index who names a recording: slower, half as large."),
    ] = False,
    min_coverage: MinCoverage = 0.9,
    max_recall_drop: MaxRecallDrop = 0.02,
    max_changed: MaxChanged = 0.9,
    max_changed_rows: MaxChangedRows = 1.0,
    redis: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Into Redis instead: redis://host:6379/0, or env: NEARFIELD_REDIS."
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Load a verified run into Postgres and publish it: readers switch to it at once.

    Interrupted, the same command goes on after the last part that was copied whole. Gates compare
    it with the published run before readers see it; a run that fails stays loaded, unpublished.
    """
    from nearfield import api

    if redis is not None:
        if dsn or database:
            raise UsageError("expected either --redis, or --dsn or --database, got both")
        refuse_options_of_postgres(context)
        load_redis(run, redis, force=force, dry_run=dry_run, as_json=as_json)
        return
    warn_of_password(dsn)
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
    options = api.LoadOptions(
        publish=not no_publish,
        connections=connections,
        reverse_index=reverse_index,
        limits=api.Limits(min_coverage, max_recall_drop, max_changed_rows, max_changed),
    )
    report = api.load(
        run, dsn=dsn, database=database, force=force, labels=not no_labels, options=options
    )
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    _say_forced(report.failed_gates)
    if as_json:
        print_json(report)
        return
    print_pairs(
        [
            (
                "published" if report.published else "unpublished",
                f"run {report.run_id}, {report.rows:,} recordings",
            ),
            ("loaded", _how_loaded(report)),
            (
                "next",
                f"nearfield query RECORDING_ID -k 10{_place(run, dsn, database)}"
                if report.published
                else f"nearfield publish {report.run_id}{_place(run, dsn, database)}",
            ),
        ]
    )


def query(  # noqa: PLR0913  (as above)
    recording_id: Annotated[str | None, typer.Argument(metavar="RECORDING_ID")] = None,
    *,
    k: Annotated[int, typer.Option("-k", help="How many neighbours.")] = 10,
    run: RunOption = None,
    dsn: Dsn = None,
    database: Database = None,
    vector: Vector = None,
    index: AskedIndex = None,
    shards: Shards = None,
    recall: AskedRecall = None,
    exact: Exact = False,
    scaled: Scaled = False,
    memory_mib: MemoryMib = None,
    out: AnswersFile = None,
    as_json: AsJson = False,
) -> None:
    """Print the nearest recordings of one, through SQL, or of vectors in a file, by an index."""
    from nearfield import api

    asked = VectorQuery(index, shards, recall, exact, scaled, memory_mib, out)
    if (recording_id is None) == (vector is None):
        raise UsageError("expected either a RECORDING_ID or --vector FILE with --index INDEX")
    if vector is not None and (run or dsn or database):
        raise UsageError("expected --index with --vector; --run, --dsn and --database are for ids")
    if vector is not None:
        query_by_vector(vector, asked, k, as_json=as_json)
        return
    if asked != VectorQuery():
        raise UsageError("expected --vector FILE with --index and the options that go with it")
    warn_of_password(dsn)
    found = api.query(str(recording_id), k, dsn=dsn, database=_chosen(run, database))
    if len(found) < k:
        print(f"note: the published run has {len(found):,} neighbours of it", file=sys.stderr)
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


def publish(  # noqa: PLR0913  (as above)
    run_id: Annotated[int, typer.Argument(metavar="RUN_ID", help="As `nearfield runs` lists it.")],
    *,
    run: RunOption = None,
    dsn: Dsn = None,
    database: Database = None,
    force: Annotated[
        bool, typer.Option("--force", help="Publish although gates fail, which is recorded.")
    ] = False,
    min_coverage: MinCoverage = 0.9,
    max_recall_drop: MaxRecallDrop = 0.02,
    max_changed: MaxChanged = 0.9,
    max_changed_rows: MaxChangedRows = 1.0,
    as_json: AsJson = False,
) -> None:
    """Make a loaded run the one that readers see, if it passes the gates."""
    from nearfield import api

    limits = api.Limits(min_coverage, max_recall_drop, max_changed_rows, max_changed)
    warn_of_password(dsn)
    done = api.publish(run_id, dsn=dsn, database=_chosen(run, database), force=force, limits=limits)
    _say_forced(done.failed_gates)
    _print_published(done, as_json=as_json)


def rollback(
    *, run: RunOption = None, dsn: Dsn = None, database: Database = None, as_json: AsJson = False
) -> None:
    """Go back to the run that was published before the current one; again goes further back."""
    from nearfield import api

    warn_of_password(dsn)
    _print_published(api.rollback(dsn=dsn, database=_chosen(run, database)), as_json=as_json)


def runs(
    *, run: RunOption = None, dsn: Dsn = None, database: Database = None, as_json: AsJson = False
) -> None:
    """List what is loaded: which run is current, since when, its recall and size."""
    from nearfield import api

    warn_of_password(dsn)
    found = api.runs(dsn=dsn, database=_chosen(run, database))
    if as_json:
        print_json([asdict(each) for each in found])
        return
    print_table(
        ("run", "state", "since", "recordings", "k", "recall", "size", "loaded", "remarks"),
        (
            (
                each.run_id,
                each.state,
                each.since or "",
                f"{each.n:,}" if each.rows == each.n else f"{each.rows:,} of {each.n:,}",
                each.k,
                "unknown" if each.recall is None else each.recall,
                size(each.bytes),
                each.loaded or "",
                ", ".join([*(["forced"] if each.forced else []), *_failed(each.failed_gates)]),
            )
            for each in found
        ),
    )


def prune(
    *,
    keep: Annotated[int, typer.Option(help="How many runs stay, the current one among them.")] = 3,
    run: RunOption = None,
    dsn: Dsn = None,
    database: Database = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Drop the oldest runs and what interrupted loads have left.

    Never the current run. One that somebody still reads is left to the next call after 10 seconds;
    nobody who reads is blocked meanwhile.
    """
    from nearfield import api

    warn_of_password(dsn)
    done = api.prune(keep, dsn=dsn, database=_chosen(run, database), dry_run=dry_run)
    if as_json:
        print_json(done)
        return
    pairs = [
        ("would drop" if dry_run else "dropped", done.dropped),
        ("kept", done.kept),
        ("still read", done.still_read),
    ]
    print_pairs((name, ", ".join(map(str, ids)) or "none") for name, ids in pairs)


def _chosen(run: Path | None, database: Path | None) -> Path | None:
    """The embedded database that --run or --database names."""
    if run is not None and database is not None:
        raise UsageError("expected either --run or --database, got both")
    return database if run is None else run / "postgres"


def _print_published(done: "PublishedRun", *, as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    recall = "unknown" if done.recall is None else f"{done.recall:.4f}"
    print_pairs(
        [
            ("published", f"run {done.run_id}, {done.n:,} recordings x {done.k}, recall {recall}"),
            *((gate.gate, _gate_line(gate)) for gate in done.gates),
        ]
    )


def _gate_line(gate: "Gate") -> str:
    figure = "not measured" if gate.figure is None else f"{gate.figure:.6g}"
    return f"{figure} ({gate.detail})"


def _how_loaded(report: "LoadReport") -> str:
    if report.already_loaded:
        return "before"
    kept = f", {report.kept_rows:,} lists kept of an earlier try" if report.kept_rows else ""
    return f"in {report.seconds:.1f} s{kept}"


def _failed(gates: Iterable[str]) -> list[str]:
    return [f"failed {gate}" for gate in gates]


def _say_forced(gates: Iterable[str]) -> None:
    if names := ", ".join(gates):
        print(f"note: published although these gates failed: {names} (recorded)", file=sys.stderr)


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
