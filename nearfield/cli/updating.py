"""`nearfield update`, `compact` and `compare`."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearfield.cli.output import AsJson, DryRun, examples, print_json, print_pairs, size
from nearfield.errors import InputRejected, MissingFile, QualityGate, UsageError

if TYPE_CHECKING:
    from dumps.changes import ChangeReport
    from nearfield.api.updates import UpdatePlan, UpdateReport


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog=examples(
            "nearfield update run --add today.npy --ids today.txt --out run2",
            "nearfield update run --add new-vectors --remove gone.txt --out run2",
        )
    )(update)
    app.command(epilog=examples("nearfield compact run9/vectors --out fresh"))(compact)
    app.command(epilog=examples("nearfield compare run run2 --min-overlap 0.8"))(compare)


def update(  # noqa: PLR0913  (a command has as many parameters as it has options)
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    *,
    out: Annotated[Path, typer.Option(metavar="RUN2", help="Directory of the new run.")],
    add: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="VECTORS|SOURCE",
            help="A vector set, or sources to ingest with the statistics of the run's own set.",
        ),
    ] = None,
    remove: Annotated[
        Path | None,
        typer.Option(metavar="IDS", help="File with a recording id a line; - is stdin."),
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(help="File with one recording id per row, for arrays.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="Tables: column with the id.")] = None,
    no_matrix: Annotated[
        bool,
        typer.Option("--no-matrix", help="Stop at the delta; run again without it to go on."),
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Extend a run by recordings, remove some, without building it again: rows keep numbers."""
    from nearfield import api
    from nearfield.ingest.options import IngestOptions, TableOptions
    from nearfield.machine import available_cores

    if not add and remove is None:
        raise UsageError("expected recordings to --add, or ids to --remove; got neither")
    gone = _ids(remove)
    if dry_run:
        _print_plan(api.plan_update(run, add=add or [], remove=gone), as_json=as_json)
        return
    options = IngestOptions(
        ids=ids, workers=available_cores(), tables=TableOptions(id_column=id_column)
    )
    report = api.update(run, out, add=add or [], remove=gone, matrix=not no_matrix, options=options)
    if as_json:
        print_json(report)
        return
    _print_report(report)


def compact(
    vectors: Annotated[Path, typer.Argument(metavar="VECTORS", help="Vector set directory.")],
    *,
    out: Annotated[Path, typer.Option(metavar="VECTORS2", help="The set to write.")],
    as_json: AsJson = False,
) -> None:
    """Write a vector set without its removed recordings, to build a new run from."""
    from nearfield import api

    made = api.compact(vectors, out)
    if as_json:
        print_json({"path": made.path, "n": made.n, "d": made.d, "fingerprint": made.fingerprint})
        return
    print_pairs(
        [
            ("vector set", f"{made.path}  ({made.n:,} recordings x {made.d} numbers)"),
            ("next", f"nearfield build {shlex.quote(str(made.path))} --out RUN"),
        ]
    )


def compare(  # noqa: PLR0913  (a command has as many parameters as it has options)
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run as it was.")],
    run2: Annotated[Path, typer.Argument(metavar="RUN2", help="The run as it is now.")],
    *,
    sample: Annotated[int, typer.Option(min=1, help="Lists that are compared.")] = 100_000,
    min_overlap: Annotated[
        float | None, typer.Option(help="Alarm below this mean share of kept neighbours.")
    ] = None,
    max_shift: Annotated[
        float | None, typer.Option(help="Alarm above this relative shift of the mean distance.")
    ] = None,
    max_removed: Annotated[
        float | None, typer.Option(help="Alarm above this share of recordings that are gone.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what differs between two runs; exit 4 when it passes a threshold."""
    from nearfield import api

    report = api.compare(
        run, run2, sample=sample, min_overlap=min_overlap, max_shift=max_shift,
        max_removed=max_removed,
    )  # fmt: skip
    if as_json:
        print_json(report)
    else:
        _print_changes(report)
    if report.alarms:
        raise QualityGate(
            f"{run2} differs too much from {run}: {'; '.join(report.alarms)}. Look at the changes"
            " before it is loaded"
        )


def _ids(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingFile(f"expected a file of ids to remove at {path}, found none") from error
    except UnicodeDecodeError as error:
        raise InputRejected(f"{path} isn't UTF-8 text ({error}): one id a line") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _print_report(report: "UpdateReport") -> None:
    recall = "not measured: no matrix yet" if report.recall is None else f"{report.recall:.4f}"
    where = shlex.quote(str(report.run))
    later = f"nearfield verify {where}"
    print_pairs(
        [
            ("run", f"{report.run}  ({report.n:,} rows x {report.k} neighbours)"),
            (
                "recordings",
                f"{report.added:,} added, {report.changed:,} changed, {report.removed:,} removed,"
                f" {report.unchanged:,} unchanged{_relabelled(report)}",
            ),
            *(
                [("rejected", f"{report.rejected:,}: {report.run / 'rejects.csv'}")]
                if report.rejected
                else []
            ),
            (
                "lists",
                f"{report.lists:,} differ: {report.entered:,} were entered,"
                f" {report.lost:,} lost members, {report.refilled:,} of these were searched again",
            ),
            ("recall", recall),
            *((f"  {name}", f"{seconds:.1f} s") for name, seconds in report.seconds.items()),
            ("next", later if report.recall is not None else "the same without --no-matrix"),
        ]
    )


def _relabelled(found: "UpdateReport | UpdatePlan") -> str:
    return f" ({found.relabelled:,} of them with other labels)" if found.relabelled else ""


def _print_plan(plan: "UpdatePlan", *, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    print_pairs(
        [
            ("extends", f"{plan.base}"),
            (
                "recordings",
                f"{plan.added:,} to add, {plan.changed:,} to change, {plan.removed:,} to remove,"
                f" {plan.unchanged:,} unchanged{_relabelled(plan)}",
            ),
            ("afterwards", f"{plan.n:,} rows x {plan.k} neighbours"),
            ("disk", f"{size(plan.matrix_bytes)} of lists, {size(plan.vectors_bytes)} of vectors"),
        ]
    )


def _print_changes(report: "ChangeReport") -> None:
    print_pairs(
        [
            (
                "recordings",
                f"{report.before:,} before, {report.after:,} now: {report.added:,} added,"
                f" {report.removed:,} removed",
            ),
            ("lists", f"{report.changed:,} of {report.compared:,} compared differ"),
            (
                "overlap",
                f"{report.overlap:.4f} of the neighbours stayed"
                f" (worst percent of lists: {report.overlap_low:.4f})",
            ),
            (
                "distances",
                f"mean {report.distance_before:.6g} before, {report.distance_after:.6g} now"
                f" ({100 * report.distance_shift:+.3f}%)",
            ),
            *(("alarm", text) for text in report.alarms),
        ]
    )
