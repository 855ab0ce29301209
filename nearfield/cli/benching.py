"""`nearfield bench`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearfield.cli.output import (
    AsJson,
    DryRun,
    examples,
    print_json,
    print_pairs,
    size,
)
from nearfield.cli.quantities import bytes_of, seconds_of
from nearfield.errors import UsageError

if TYPE_CHECKING:
    from nearfield.api.benchmarks import BenchOptions, BenchPlan, BenchReport

MOST_NAMED = 8
EXAMPLES = (
    "nearfield bench vectors --out bench --quick",
    "nearfield bench vectors --out bench --budget 30m --methods faiss-hnsw,annoy",
    "nearfield bench sift-128-euclidean.hdf5 --out bench -k 10,100 --rows 10000,100000",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples(*EXAMPLES))(bench)


def bench(  # noqa: PLR0913  (a command has as many parameters as it has options)
    vectors: Annotated[
        Path,
        typer.Argument(
            metavar="VECTORS",
            help="Vector set directory, .npy or .npz file, or HDF5 file as ann-benchmarks has it.",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory of the benchmark.")],
    methods: Annotated[
        str, typer.Option(help="Methods, by comma (default: all of the grid).")
    ] = "",
    grid: Annotated[
        Path | None, typer.Option(help="Grid file with methods and parameters, instead of ours.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A first answer: the small grid, sizes and k.")
    ] = False,
    full: Annotated[
        bool,
        typer.Option("--full", help="Each effort of all the grid at every size: takes days."),
    ] = False,
    k: Annotated[
        str, typer.Option("-k", "--k", help="Values of k, by comma (10,100,300,1000).")
    ] = "",
    rows: Annotated[
        str, typer.Option(help="Sizes, by comma (10000,100000,1000000 and all rows).")
    ] = "",
    workloads: Annotated[
        str, typer.Option(help="all (neighbours of every row), queries (held-out vectors).")
    ] = "all,queries",
    space: Annotated[
        str | None, typer.Option(help="l2, cosine or ip, for a file that doesn't say.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time for everything, such as 30m; the rest is dropped.")
    ] = None,
    timeout: Annotated[str, typer.Option(help="Time for one measured process.")] = "20m",
    memory: Annotated[
        str | None,
        typer.Option(help="Memory for one measured process (default: 80% of the machine's)."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Native threads (default: one per core).")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Dask scheduler; each of its machines measures alone.")
    ] = None,
    container: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Measure in containers of this image.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Measure which method, with which parameters, suits these vectors."""
    from nearfield import api
    from nearfield.api.benchmarks import BenchOptions

    options = BenchOptions(
        methods=_words(methods),
        grid=grid,
        quick=quick,
        full=full,
        ks=_numbers(k, "-k"),
        rows=_numbers(rows, "--rows"),
        workloads=_words(workloads),  # type: ignore[arg-type]  # checked in there
        space=space,
        budget_s=seconds_of(budget, "--budget"),
        timeout_s=seconds_of(timeout, "--timeout") or 0.0,
        memory_bytes=bytes_of(memory, "--memory"),
        threads=threads,
        container=container,
    )
    if dry_run:
        _print_plan(api.plan_of_bench(vectors, out, options), options, as_json=as_json)
        return
    report = api.bench(vectors, out, options, scheduler=scheduler)
    print_json(report) if as_json else _print_report(report, vectors, space)


def _print_plan(plan: "BenchPlan", options: "BenchOptions", *, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    most = options.timeout_s
    print_pairs(
        [
            ("data set", f"{plan.dataset}  ({plan.rows:,} vectors x {plan.d} numbers)"),
            ("sizes", _listed(plan.sizes)),
            ("k", _listed(plan.ks)),
            ("indexes", f"{plan.groups} ({len(plan.configurations)} configurations per size)"),
            ("time", f"known after the first ones; at most {most:,.0f} s per process"),
            ("disk", f"about {size(plan.disk_bytes)}, an estimate: kept lists, one index, data"),
            *(("note", note) for note in plan.notes),
            *(("", configuration) for configuration in plan.configurations),
        ]
    )


def _print_report(report: "BenchReport", vectors: Path, space: str | None = None) -> None:
    print_pairs(
        [
            ("benchmark", f"{report.out}  ({report.dataset}, sizes {_listed(report.sizes)})"),
            ("rows", ", ".join(f"{count:,} {status}" for status, count in report.rows.items())),
            ("measured", f"{report.measured:,} points; {report.kept:,} were there"),
            ("choice", f"{report.choice}  ({report.candidates} candidates)"),
            ("report", str(report.page)),
            *_dropped(report.dropped),
            *(("note", note) for note in report.notes),
            *_next(report, vectors, space),
        ]
    )


def _next(report: "BenchReport", vectors: Path, space: str | None) -> list[tuple[str, str]]:
    """The build that follows the choice, if there is one; it takes vector sets, not files."""
    source = shlex.quote(str(vectors))
    follow = f" --choice {shlex.quote(str(report.choice))}" if report.candidates else ""
    if vectors.is_dir():
        return [("next", f"nearfield build {source} --out RUN{follow}")]
    said = f" --space {space}" if space else ""
    return [
        ("next", f"nearfield ingest {source} --out VECTORS{said}"),
        ("then", f"nearfield build VECTORS --out RUN{follow}"),
    ]


def _dropped(labels: Sequence[str]) -> list[tuple[str, str]]:
    """What the budget left out of, by name as far as that can be taken in."""
    rest = len(labels) - MOST_NAMED
    named = labels if rest <= 1 else labels[:MOST_NAMED]
    more = [f"and of {rest} others; outcomes.csv names what"] if rest > 1 else []
    return [("dropped", words) for words in (*named, *more)]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(text: str, option: str) -> tuple[int, ...] | None:
    try:
        return tuple(int(word.replace("_", "")) for word in _words(text)) or None
    except ValueError as error:
        raise UsageError(f"expected whole numbers by comma for {option}; got {text!r}") from error


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(f"{number:,}" for number in numbers)
