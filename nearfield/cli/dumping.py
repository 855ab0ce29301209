"""`nearfield dump`: the matrix as files for others, and the check of such files."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearfield.cli.output import AsJson, DryRun, examples, print_json, print_pairs, size
from nearfield.errors import DamagedArtefact, UsageError

if TYPE_CHECKING:
    from dumps.dump.check import DumpCheck
    from dumps.dump.write import DumpReport
    from nearfield.api.products import DumpPlan

POSTGRES_ONLY = (
    *("no_publish", "connections", "reverse_index"),
    *("min_coverage", "max_recall_drop", "max_changed", "max_changed_rows"),
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "nearfield dump run --out dumps --licence CC0-1.0",
            "nearfield dump run --out dumps --formats parquet --flat --keep newest=2,monthly=12",
            "nearfield dump --check dumps",
        )
    )(dump)


def dump(  # noqa: PLR0913  (a command has as many parameters as it has options)
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]", help="Run directory, or its s3:// address.", show_default=False
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder that holds the dumps.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Examine a dump instead of writing one.")
    ] = None,
    formats: Annotated[str, typer.Option(help="Out of hdf5, parquet, csv.")] = "hdf5,parquet,csv",
    flat: Annotated[
        bool, typer.Option("--flat", help="Also Parquet with a row per pair (large).")
    ] = False,
    licence: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="CC0-1.0, or a file with the text.")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="Delete older dumps: 3, or newest=2,daily=7,weekly=4,monthly=12. Default: none.",
        ),
    ] = None,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="Leave titles and other labels out.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Dump although verification is missing or failed.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write a verified run as files for others, or examine such files (--check)."""
    from dumps.dump.retention import parse_keep
    from dumps.dump.write import DumpOptions, parse_formats
    from nearfield import api

    if check is not None:
        if run is not None or out is not None:
            raise UsageError("expected either RUN and --out, or --check DIR alone")
        found = api.check_dump(check)
        print_json(found) if as_json else _print_check(found)
        if not found.passed:
            raise DamagedArtefact(
                f"{found.path} isn't a sound dump: the report says what is wrong. Don't use it: "
                "download it again, or ask its publisher"
            )
        return
    if run is None or out is None:
        raise UsageError("expected RUN and --out DIR (or --check DIR alone)")
    options = DumpOptions(
        formats=parse_formats(formats),
        flat=flat,
        labels=not no_labels,
        licence=licence,
        force=force,
    )
    policy = None if keep is None else parse_keep(keep)
    if dry_run:
        plan = api.plan_dump(run, out, options, keep=policy)
        print_json(plan) if as_json else _print_plan(plan)
        return
    report = api.dump(run, out, options, keep=policy)
    print_json(report) if as_json else _print_report(report)


def refuse_options_of_postgres(context: typer.Context) -> None:
    """Raise `UsageError` for options of `nearfield load` that mean nothing to Redis."""
    for name in POSTGRES_ONLY:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--" + name.replace("_", "-")
            raise UsageError(
                f"{option} is of Postgres: into Redis a run is loaded without labels, published "
                "at once, and the runs before it go. Leave it out"
            )


def load_redis(run: Path, url: str, *, force: bool, dry_run: bool, as_json: bool) -> None:
    """`nearfield load RUN --redis URL`."""
    from nearfield import api

    if dry_run:
        plan = api.plan_load_redis(run, url)
        print_json(plan) if as_json else print_pairs(
            [
                ("run", f"{plan.rows:,} recordings x {plan.k} neighbours, {plan.stage}"),
                ("memory", f"about {size(plan.bytes)} there"),
                ("into", plan.target),
            ]
        )
        return
    report = api.load_redis(run, url, force=force)
    if as_json:
        print_json(report)
        return
    took = f"in {report.seconds:.1f} s"
    if report.resumed_from:
        took += f", from row {report.resumed_from:,} on"
    print_pairs(
        [
            ("published", f"run {report.run}, {report.rows:,} recordings x {report.k} neighbours"),
            ("loaded", "before" if report.already_loaded else took),
            *(("removed", f"run {name}") for name in report.removed),
        ]
    )


def _print_plan(plan: "DumpPlan") -> None:
    print_pairs(
        [
            ("run", f"{plan.rows:,} recordings x {plan.k} neighbours, {plan.stage}"),
            ("formats", ", ".join(plan.formats)),
            (
                "to write",
                f"nothing: {plan.same} holds the same"
                if plan.same
                else f"about {size(plan.bytes)} into {plan.out}, {size(plan.free_bytes)} are free",
            ),
            ("to delete", ", ".join(plan.delete) or "nothing"),
        ]
    )


def _print_report(report: "DumpReport") -> None:
    took = f"in {report.seconds:.1f} s" if report.made else "there already, nothing to do"
    print_pairs(
        [
            ("dump", f"{report.path}  ({took})"),
            ("content", f"{report.n:,} recordings x {report.k} neighbours, {size(report.bytes)}"),
            *((f"  {name}", size(amount)) for name, amount in report.files.items()),
            *(("deleted", name) for name in report.deleted),
            ("next", f"nearfield dump --check {shlex.quote(str(report.path))}"),
        ]
    )


def _print_check(found: "DumpCheck") -> None:
    print_pairs(
        [
            ("dump", f"{found.path}"),
            ("verdict", "sound" if found.passed else "NOT SOUND"),
            ("files", f"{found.files}, {size(found.bytes)}"),
            ("content", f"{found.n:,} recordings x {found.k} neighbours"),
            *(("problem", problem) for problem in found.problems),
        ]
    )
