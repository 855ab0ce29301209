"""`nearfield build`, `verify` and `status`."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearfield.cli.output import (
    AsJson,
    DryRun,
    examples,
    print_json,
    print_pairs,
    print_steps,
    size,
)
from nearfield.cli.quantities import bytes_of, seconds_of
from nearfield.errors import QualityGate, UsageError

if TYPE_CHECKING:
    from dumps.verify import Verification
    from index_build.estimate import BuildEstimate
    from nearfield.api import Wanted

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run directory, or its s3:// address.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog=examples(
            "nearfield build vectors --out run -k 100 --recall 0.95",
            "nearfield build vectors --out run --scheduler tcp://10.0.0.1:8786",
            "nearfield build s3://bucket/vectors --out s3://bucket/run --scheduler cluster.toml",
            "nearfield build vectors --out run --choice bench/choice.toml --memory 8GiB --time 2h",
            "nearfield build vectors --out run --dry-run",
        )
    )(build)
    app.command(epilog=examples("nearfield verify run --sample 2000"))(verify)
    app.command(epilog=examples("nearfield status run"))(status)


def build(  # noqa: PLR0913  (a command has as many parameters as it has options)
    vectors: Annotated[
        Path, typer.Argument(metavar="VECTORS", help="Vector set, or its s3:// address.")
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Run directory, or an s3:// address.")],
    k: Annotated[int, typer.Option("-k", help="Neighbours per recording.")] = 100,
    recall: Annotated[float, typer.Option(help="Share of true neighbours to find.")] = 0.95,
    method: Annotated[
        str,
        typer.Option(
            help="auto, exact, selfjoin, or a library's method such as faiss-ivf or "
            "'faiss-hnsw(links=32)'."
        ),
    ] = "auto",
    choice: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What a benchmark recommends; auto follows it (default: bench/choice.toml beside "
            "the vector set, if it is about these vectors).",
        ),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Memory that the chosen method may take, such as 8GiB.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Time that the chosen method may take, such as 2h.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Local worker processes that share the work (default: as is fastest)."),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a running Dask scheduler, instead of local.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Build the matrix; run again after an interruption, it resumes."""
    from nearfield import api
    from nearfield.cluster import ClusterOptions

    wanted = api.Wanted(k, recall, bytes_of(memory, "--memory"), seconds_of(time, "--time"))
    method = _followed(vectors, method, wanted, choice)
    if dry_run:
        if scheduler is not None:
            print("a plan asks no scheduler: this is of this machine's workers", file=sys.stderr)
        estimate = api.estimate(vectors, k=k, recall=recall, method=method, workers=workers)
        _print_estimate(estimate, as_json=as_json)
        return
    report = api.build(
        vectors,
        out,
        k=k,
        recall=recall,
        method=method,
        cluster=ClusterOptions(workers, scheduler),
    )
    if as_json:
        print_json(report)
        return
    kept = "built already, nothing to do" if not report.made else f"kept {report.kept} of them"
    print_pairs(
        [
            ("matrix", f"{report.matrix}  ({report.n:,} recordings x {report.k} neighbours)"),
            ("method", f"{report.method} ({report.reason})"),
            ("parts", f"{report.parts}; {kept}"),
            ("recall", f"about {report.recall_estimate:.4f} on the build's own sample"),
            *((f"  {name}", f"{seconds:.1f} s") for name, seconds in report.seconds.items()),
            ("moved", f"{size(report.bytes_per_recording)} a recording, to and from files"),
            ("next", f"nearfield verify {shlex.quote(str(report.run))}"),
        ]
    )
    if report.k < k:
        print(f"note: {report.n:,} recordings have only {report.k} neighbours each, not {k}")


def _followed(vectors: Path, method: str, wanted: "Wanted", choice: Path | None) -> str:
    """The method to build with: what a choice says where it is left to us."""
    from nearfield import api

    if method != "auto":
        if choice is not None or wanted.memory_bytes is not None or wanted.time_s is not None:
            raise UsageError(f"--choice, --memory and --time go with --method auto, not {method}")
        return method
    chosen = api.chosen_method(vectors, wanted, choice=choice)
    if chosen is None:
        return method
    by = "by " if chosen.candidate is not None else ""
    print(f"method {chosen.method}, {by}{chosen.reason}", file=sys.stderr)
    return chosen.method


def verify(
    run: RunArgument,
    *,
    sample: Annotated[int, typer.Option(min=1, help="Rows compared with exact search.")] = 1000,
    recall: Annotated[
        float | None, typer.Option(help="Recall to demand (default: what the build was asked).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a matrix with code that shares nothing with the builder; exit 4 if it fails."""
    from nearfield import api

    report = api.verify(run, sample=sample, recall=recall)
    if as_json:
        print_json(report)
    else:
        _print_verification(report)
    if not report.passed:
        raise QualityGate(
            f"{run} did not pass: {'; '.join(report.problems)}. It will not be loaded. "
            "Build again with a higher --recall or --method exact into another directory"
        )


def status(run: RunArgument, *, as_json: AsJson = False) -> None:
    """Say how far a run is, what each step took, and what to do next."""
    from nearfield import api

    report = api.status(run)
    if as_json:
        print_json(report)
        return
    config = report.config
    print_pairs(
        [
            ("run", f"{report.run}: {report.stage}"),
            (
                "vectors",
                f"{config['vectors']}  ({config['n']:,} x {config['d']})",
            ),
            ("asked", f"k = {config['k']}, recall {config['recall']}, method {config['method']}"),
            *(("rebuild due", why) for why in report.rebuild),
            ("next", report.advice),
        ]
    )
    if report.steps:
        print_steps(report.steps)


def _print_estimate(report: "BuildEstimate", *, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    print_pairs(
        [
            ("recordings", f"{report.n:,}, {report.distinct:,} of them distinct"),
            ("method", f"{report.method} ({report.reason})"),
            ("parts", str(report.parts)),
            ("time", f"about {report.seconds:.1f} s on this machine, plus start and writing"),
            ("memory", f"up to {size(report.memory_bytes)} {_by_whom(report)}"),
            ("disk", f"up to {size(report.disk_bytes)}, of which half stays"),
            ("assumed", report.assumptions),
        ]
    )


def _by_whom(report: "BuildEstimate") -> str:
    if report.one_task:
        return "in one task, on all cores"
    return f"per worker, {report.workers} workers"


def _print_verification(report: "Verification") -> None:
    print_pairs(
        [
            ("verdict", "passed" if report.passed else "FAILED"),
            (
                "recall",
                f"{report.recall:.4f} ({report.recall_low:.4f} to {report.recall_high:.4f}, "
                f"95% interval, {report.sample:,} rows); asked {report.asked}",
            ),
            ("rows checked", f"{report.checked_rows:,}"),
            *(("problem", problem) for problem in report.problems),
            *(
                (
                    f"same {label}",
                    f"{100 * found['share']:.1f}% of the first 10 neighbours; "
                    f"{100 * found['chance']:.2f}% by chance ({found['values']:,} values)",
                )
                for label, found in report.label_shares.items()
            ),
        ]
    )
