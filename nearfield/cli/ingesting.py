"""`nearfield ingest`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nearfield.cli.output import AsJson, DryRun, examples, print_json, print_pairs, size

if TYPE_CHECKING:
    from nearfield.ingest.options import IngestOptions

EXAMPLES = (
    "nearfield ingest dump/*.tar.zst --out vectors --space combined",
    "nearfield ingest tracks.csv --out vectors --id-column track_id --labels title,artist",
    "nearfield ingest embeddings.npy --ids ids.txt --out vectors --space cosine",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples(*EXAMPLES))(ingest)


def ingest(  # noqa: PLR0913  (a command has as many parameters as it has options)
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="AcousticBrainz archives, documents or folders of them; CSV or Parquet tables; "
            ".npy or .npz arrays; ann-benchmarks HDF5 files. One kind per call.",
        ),
    ],
    *,
    out: Annotated[
        Path, typer.Option(metavar="VECTORS", help="Vector set: a directory, or an s3:// address.")
    ],
    space: Annotated[
        str | None,
        typer.Option(
            help="Documents: a metric (bpm, mfccs, ...), a combination (combined, timbre, "
            "lowlevel, all) or weights (mfccs=2,bpm=1). Tables and arrays: l2, cosine or ip."
        ),
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(help="File with one recording id per row, for arrays.")
    ] = None,
    labels_from: Annotated[
        Path | None, typer.Option(help="Table with further labels, joined by recording id.")
    ] = None,
    extend: Annotated[
        Path | None,
        typer.Option(
            metavar="VECTORS",
            help="Vector set to extend: its rows keep their numbers, its statistics are reused.",
        ),
    ] = None,
    zero: Annotated[
        Literal["drop", "keep"] | None,
        typer.Option(
            help="Zero vectors, but of documents (default: drop under cosine, else keep)."
        ),
    ] = None,
    max_rejected: Annotated[
        float, typer.Option(help="Share of items that may be rejected before ingest stops.")
    ] = 0.05,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that read archives (default: one per core)."),
    ] = None,
    submissions: Annotated[
        Literal["lowest", "median"] | None,
        typer.Option(
            help="Documents: which submission stands for a recording (default: lowest, or as in "
            "the set that is extended)."
        ),
    ] = None,
    first_cepstral: Annotated[
        int, typer.Option(min=0, max=1, help="Documents: 1 drops the loudness coefficient.")
    ] = 0,
    id_column: Annotated[str | None, typer.Option(help="Tables: column with the id.")] = None,
    columns: Annotated[
        str, typer.Option(help="Tables: numeric columns, by comma (default: all).")
    ] = "",
    categorical: Annotated[str, typer.Option(help="Tables: columns to encode one-hot.")] = "",
    labels: Annotated[
        str, typer.Option(help="Tables: columns that travel as labels (default: all of text).")
    ] = "",
    scale: Annotated[
        Literal["standard", "robust", "none"] | None,
        typer.Option(help="Tables: standard by default; arrays: none by default."),
    ] = None,
    pca: Annotated[int | None, typer.Option(min=1, help="Project to this many numbers.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="CSV: found out unless given.")] = None,
    header_rows: Annotated[
        int | None, typer.Option(min=0, help="CSV: found out (0 or 1) unless given.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Turn recordings into a vector set: float32 vectors, ids, labels, statistics."""
    from nearfield.api import ingest as run_ingest
    from nearfield.ingest.options import DocumentOptions, IngestOptions, TableOptions
    from nearfield.machine import available_cores

    options = IngestOptions(
        space=space,
        ids=ids,
        labels_from=labels_from,
        zero=zero,
        max_rejected=max_rejected,
        workers=workers or available_cores(),
        documents=DocumentOptions(
            submissions=submissions, first_cepstral=1 if first_cepstral else 0
        ),
        tables=TableOptions(
            id_column=id_column,
            columns=_names(columns),
            categorical=_names(categorical),
            labels=_names(labels),
            scale=scale,
            pca=pca,
            delimiter=delimiter,
            header_rows=header_rows,
        ),
    )
    if dry_run:
        _print_plan(sources, out, options, extend, as_json=as_json)
        return
    report = run_ingest(sources, out, options, extend=extend)
    if as_json:
        print_json(report)
        return
    print_pairs(
        [
            ("vector set", f"{report.path}  ({report.n:,} recordings x {report.d} numbers)"),
            ("geometry", report.space),
            *((name.replace("_", " "), _fact(value)) for name, value in report.facts.items()),
            ("rejected", _counts(report.rejected)),
            ("rejects file", str(report.rejects_file)),
            ("next", f"nearfield build {shlex.quote(str(report.path))} --out RUN"),
        ]
    )


def _print_plan(
    sources: list[Path], out: Path, options: "IngestOptions", extend: Path | None, *, as_json: bool
) -> None:
    from nearfield.ingest import check_out
    from nearfield.ingest.sources import one_kind, refuse_foreign_options

    kind = one_kind(sources)
    refuse_foreign_options(kind, options)
    check_out(out, extend)
    files = [
        file
        for source in sources
        for file in (source.rglob("*") if source.is_dir() else [source])
        if file.is_file()
    ]
    read = sum(file.stat().st_size for file in files)
    if as_json:
        print_json({"kind": kind, "files": len(files), "bytes": read, "out": str(out)})
        return
    print_pairs(
        [
            ("kind", kind),
            ("to read", f"{len(files):,} files, {size(read)}"),
            ("vector set", f"{out}{' (replaced)' if (out / 'manifest.json').exists() else ''}"),
        ]
    )


def _fact(value: object) -> str:
    if isinstance(value, dict):
        return _counts(value) if all(isinstance(v, int) for v in value.values()) else str(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _counts(rejected: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in rejected.items()) or "none"
