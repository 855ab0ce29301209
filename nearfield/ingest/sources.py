"""Which reader a source is for.

Owns the decision, by the path alone, and the refusal of paths that aren't there, of sources of
different kinds in one call, and of choices that mean nothing for them. Reads no file.
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal

from nearfield.errors import MissingFile, UsageError
from nearfield.ingest.documents import is_document_source
from nearfield.ingest.options import DocumentOptions, IngestOptions, TableOptions

Kind = Literal["documents", "table", "array", "ann-benchmarks HDF5"]

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
TEXT_TABLES = (".csv", ".tsv", ".txt")
COMPRESSIBLE = (*TEXT_TABLES, ".npy")
KINDS: dict[str, Kind] = {
    **dict.fromkeys((*TEXT_TABLES, ".parquet"), "table"),
    **dict.fromkeys((".npy", ".npz"), "array"),
    **dict.fromkeys((".hdf5", ".h5"), "ann-benchmarks HDF5"),
}


def content_suffix(path: Path) -> str:
    """The suffix that tells the format, in lower case, without one of compression: `.csv`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def kind_of(path: Path) -> Kind:
    """The reader for one source. Raises `MissingFile`, or `UsageError` for an unknown format."""
    if not path.exists():
        raise MissingFile(f"there is no file or directory {path}: check the path")
    suffix = content_suffix(path)
    as_it_is = path.suffix.lower() == suffix
    if path.is_file() and suffix in KINDS and (as_it_is or suffix in COMPRESSIBLE):
        return KINDS[suffix]
    if is_document_source(path):
        return "documents"
    raise UsageError(
        f"don't know how to read {path} by its name. Expected AcousticBrainz documents (a folder of"
        " them, .json, .tar, .tar.zst, .tar.bz2, .tar.xz, .tar.gz), a table (.csv, .tsv, .txt,"
        " .parquet), an array (.npy, .npz) or ann-benchmarks HDF5 (.hdf5, .h5);"
        " text and .npy may be compressed (.gz, .bz2, .xz, .zst)"
    )


def one_kind(sources: Sequence[Path]) -> Kind:
    """The reader for all `sources`. Raises `UsageError` when there is none or they differ."""
    if not sources:
        raise UsageError("expected at least one source, got none")
    kinds = {kind_of(path): path for path in reversed(sources)}
    if len(kinds) > 1:
        listed = ", ".join(f"{path} ({kind})" for kind, path in kinds.items())
        raise UsageError(
            f"expected sources of one kind, got {listed}. Ingest each kind into a vector set of its"
            " own"
        )
    return next(iter(kinds))


def refuse_foreign_options(kind: Kind, options: IngestOptions) -> None:
    """Raise `UsageError` for a choice that means nothing for sources of that kind."""
    if not 0 <= options.max_rejected <= 1:
        raise UsageError(f"expected --max-rejected from 0 to 1; got {options.max_rejected}")
    foreign = _foreign(kind, options)
    if foreign:
        raise UsageError(f"{foreign[0]} means nothing for {kind}: leave it out")


def _foreign(kind: Kind, options: IngestOptions) -> list[str]:
    plain, chosen = TableOptions(), options.tables
    names = [
        field.name
        for field in fields(TableOptions)
        if getattr(chosen, field.name) != getattr(plain, field.name)
    ]
    if kind == "documents":
        given = {"--ids": options.ids, "--zero": options.zero}
        return [*(name for name, value in given.items() if value), *map(_flag, names)]
    unused = [] if options.documents == DocumentOptions() else ["a choice for documents"]
    if kind == "table":
        return unused
    only_tables = {"columns", "categorical", "header_rows", "delimiter"}
    only_tables |= set() if options.ids else {"id_column"}
    return [*unused, *(_flag(name) for name in names if name in only_tables)]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
