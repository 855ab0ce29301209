"""`nearfield index`, and what `nearfield query --vector` does."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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

if TYPE_CHECKING:
    from index_build.index import IndexPlan
    from index_build.index.build import BuiltIndex
    from nearfield.api.indexes import Answers


Vector = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Recordings as they are ingested (documents, tables with ids), or numbers alone as "
        "their sources have them (.npy, .json, .csv): brought to the scale of the index' set.",
    ),
]
AskedIndex = Annotated[Path | None, typer.Option(metavar="INDEX", help="The index to ask.")]
Shards = Annotated[int | None, typer.Option(help="How many shards to ask per vector.")]
AskedRecall = Annotated[
    float | None,
    typer.Option(help="Or: as few shards as reach this measured recall (default 0.95)."),
]
Exact = Annotated[bool, typer.Option("--exact", help="Compare with every vector of the index.")]
Scaled = Annotated[
    bool, typer.Option("--scaled", help="The numbers are vectors of the set already.")
]
MemoryMib = Annotated[
    int | None,
    typer.Option(help="MiB of libraries' files open at once (default: 4096, or one shard)."),
]
AnswersFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write answers there: .npy or .parquet.")
]


@dataclass(frozen=True)
class VectorQuery:
    """The options of `nearfield query` that only a query by vector has."""

    index: Path | None = None
    shards: int | None = None
    recall: float | None = None
    exact: bool = False
    scaled: bool = False
    memory_mib: int | None = None
    out: Path | None = None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "nearfield index vectors --out index --method faiss-hnsw",
            "nearfield index vectors --out index --matrix run -k 100 --recall 0.95",
            "nearfield query --vector new.npy --index index -k 10 --recall 0.95",
        )
    )(index)


def index(  # noqa: PLR0913  (a command has as many parameters as it has options)
    vectors: Annotated[Path, typer.Argument(metavar="VECTORS", help="Vector set directory.")],
    *,
    out: Annotated[Path, typer.Option(metavar="INDEX", help="Directory of the index.")],
    method: Annotated[
        str, typer.Option(help="auto, faiss-hnsw, faiss-ivf, nmslib-hnsw, annoy or hnswlib.")
    ] = "auto",
    k: Annotated[
        int, typer.Option("-k", help="Most neighbours that recall is measured for.")
    ] = 100,
    shard_rows: Annotated[int, typer.Option(min=1, help="Most recordings in a shard.")] = 50_000,
    matrix: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Also ask it for every row, and write the matrix there."),
    ] = None,
    recall: Annotated[float, typer.Option(help="Of the matrix: true neighbours to find.")] = 0.95,
    workers: Annotated[
        int | None, typer.Option(help="Local worker processes (default: one per core).")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a running Dask scheduler, instead of local.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Build the sharded index that answers for new vectors; run again to resume."""
    from index_build.index.build import IndexOptions
    from nearfield import api
    from nearfield.api.indexes import check_matrix_place
    from nearfield.cluster import ClusterOptions

    options = IndexOptions(method=method, shard_rows=shard_rows, k=k)
    if matrix is not None:
        check_matrix_place(vectors, out, matrix, options, recall=recall)
    if dry_run:
        _print_plan(api.plan_index(vectors, options), k, matrix, as_json=as_json)
        return
    cluster = ClusterOptions(workers, scheduler)
    report = api.index(vectors, out, options, cluster=cluster)
    if matrix is not None:
        api.matrix_from_index(vectors, out, matrix, k=k, recall=recall, cluster=cluster)
    if as_json:
        print_json(report)
        return
    _print_report(report, matrix)


def query_by_vector(vector: Path, asked: VectorQuery, k: int, *, as_json: bool) -> None:
    """Print, or write to `--out`, the neighbours of the vectors in a file."""
    from nearfield import api
    from nearfield.api.indexes import QueryOptions, check_answers_file, write_answers

    if asked.index is None:
        raise UsageError(
            "expected --index INDEX with --vector: nearfield index VECTORS --out INDEX"
        )
    if asked.out is not None:
        check_answers_file(asked.out)
    options = QueryOptions(
        k=k,
        shards=asked.shards,
        recall=asked.recall,
        exact=asked.exact,
        memory_bytes=None if asked.memory_mib is None else asked.memory_mib << 20,
        scaled=asked.scaled,
    )
    answers = api.query_vectors(vector, asked.index, options)
    if asked.out is not None:
        write_answers(answers, asked.out)
        print_pairs(
            [("answers", f"{asked.out}  ({len(answers.names):,} queries)"), _asked(answers)]
        )
        return
    lines = [
        (name, rank + 1, float(answers.found.distances[place, rank]), found)
        for place, name in enumerate(answers.names)
        for rank, found in enumerate(answers.ids[place])
        if found is not None
    ]
    columns = ("query", "rank", "distance", "recording_id")
    if as_json:
        print_json([dict(zip(columns, line, strict=True)) for line in lines])
        return
    print_table(columns, lines)


def _asked(answers: "Answers") -> tuple[str, str]:
    return "shards", f"{answers.found.shards} asked per query"


def _print_report(report: "BuiltIndex", matrix: Path | None) -> None:
    kept = "built already, nothing to do" if not report.made else f"kept {report.kept} of them"
    points = report.facts["recall"]
    widest = max(points, key=int)
    measured = ", ".join(f"{found:.3f} with {p}" for p, found in points[widest].items())
    following = (
        f"nearfield query --vector FILE --index {shlex.quote(str(report.path))}"
        if matrix is None
        else f"nearfield verify {shlex.quote(str(matrix))}"
    )
    print_pairs(
        [
            ("index", f"{report.path}  ({report.config.n:,} recordings x {report.config.d})"),
            ("method", f"{report.config.method} ({report.reason})"),
            ("shards", f"{report.shards}; {kept}"),
            (f"recall at {widest}", f"{measured} shards asked"),
            ("next", following),
        ]
    )


def _lists(matrix: Path, n: int, columns: int) -> str:
    return f"{matrix}  ({n:,} x {columns} neighbours, {size(8 * n * columns)} beside the index)"


def _print_plan(plan: "IndexPlan", k: int, matrix: Path | None, *, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    print_pairs(
        [
            ("recordings", f"{plan.n:,} x {plan.d}"),
            ("method", f"{plan.method} ({plan.reason})"),
            ("shards", f"about {plan.shards}"),
            ("disk", f"about {size(plan.disk_bytes)}"),
            ("memory", f"about {size(plan.memory_bytes)} per worker"),
            *([] if matrix is None else [("matrix", _lists(matrix, plan.n, min(k, plan.n - 1)))]),
        ]
    )
