"""Arrays of vectors: .npy (also compressed) and .npz, with ids from a file or row numbers.

Owns what an array must look like and which arrays of an .npz mean what. Never unpickles.

In an .npz the vectors are the only two-dimensional array, or the first of VECTOR_NAMES; ids are the
first of `nearfield.ingest.ids.ID_NAMES` plus `ids` that is there; every other one-dimensional array
as long as the vectors is a label column.
"""

import shutil
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearfield.errors import InputRejected, UsageError
from nearfield.ingest.compressed import COPY_BYTES, unpacked
from nearfield.ingest.ids import ID_NAMES, ROW_NUMBERS, array_ids, row_numbers
from nearfield.ingest.ids_file import read_ids, refuse_other_count
from nearfield.ingest.labels import as_label, stacked
from nearfield.ingest.options import Gathered, IngestOptions
from nearfield.ingest.raw import RawRows, finished
from nearfield.ingest.rejects import RejectLog
from nearfield.ingest.sources import content_suffix
from nearfield.space import SpaceName
from nearfield.vectorset import ID_COLUMN

VECTOR_NAMES = ("vectors", "x", "embeddings", "features", "data", "train", "arr_0")


@dataclass(frozen=True)
class LoadedArray:
    """One source: real vectors [n, d] of any width of number, perhaps its ids and labels."""

    source: Path
    vectors: NDArray[Any]
    ids: pa.ChunkedArray | None = None
    labels: dict[str, pa.ChunkedArray] = field(default_factory=dict)


def gather_arrays(
    sources: Sequence[Path], options: IngestOptions, work: Path, rejects: RejectLog
) -> Gathered:
    """The vectors of .npy and .npz files, one after the other.

    Raises `InputRejected` for what isn't an array of real numbers [n, d] with one d throughout, and
    for ids that don't fit. Cost: O(n d), one block in memory at a time.
    """
    loaded = [_load(source, work) for source in sources]
    return gather_loaded(loaded, options, work, rejects)


def gather_loaded(
    loaded: Sequence[LoadedArray],
    options: IngestOptions,
    work: Path,
    rejects: RejectLog,
    *,
    space: SpaceName = "l2",
) -> Gathered:
    """The vectors of arrays that are open already; `space` is what the file says, if anything."""
    width = _common_width(loaded)
    recordings, given = _recordings(loaded, options)
    starts = np.cumsum([0, *(len(array.vectors) for array in loaded)])

    def origin(row: int) -> tuple[str, str]:
        index = int(np.searchsorted(starts, row, side="right")) - 1
        return str(loaded[index].source), f"row {row - int(starts[index])}"

    raw = RawRows(
        parts=[array.vectors for array in loaded],
        names=[str(column) for column in range(width)],
        recordings=recordings,
        origin=origin,
        kind="array",
        layout={"width": width},
        scale="none",
        space=space,
    )
    gathered = finished(raw, options, work, rejects)
    gathered.facts["ids"] = given
    return gathered


def require_matrix(dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> None:
    """Raise `InputRejected` unless an array of that dtype and shape is real [n, d >= 1]."""
    if dtype.kind not in "fiu":
        raise InputRejected(f"expected numbers (floats or integers) in {where}; found {dtype}")
    if len(shape) != 2 or shape[1] == 0:
        raise InputRejected(
            f"expected a two-dimensional array [n, d] in {where}; found shape {shape}."
            " Reshape it, one row per recording: a.reshape(len(a), -1)"
        )


def _load(source: Path, work: Path) -> LoadedArray:
    if content_suffix(source) == ".npz":
        return _load_npz(source, work)
    array = _mapped(unpacked(source, work), str(source))
    require_matrix(array.dtype, array.shape, str(source))
    return LoadedArray(source, array)


def _mapped(path: Path, where: str) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputRejected(f"expected a .npy array of numbers in {where}: {error}") from error
    if not isinstance(array, np.ndarray):
        raise InputRejected(f"expected one .npy array in {where}; found an archive of several")
    return array


def _load_npz(source: Path, work: Path) -> LoadedArray:
    arrays = {
        name: _mapped(path, f"{source} ({name})") for name, path in _members(source, work).items()
    }
    vectors = _vectors_name(arrays, source)
    matrix = arrays[vectors]
    require_matrix(matrix.dtype, matrix.shape, f"{source} ({vectors})")
    columns = {
        name: array
        for name, array in arrays.items()
        if array.shape == (len(matrix),) and array.dtype.kind in "biufUS"
    }
    id_name = next((name for name in ("ids", *ID_NAMES) if name in columns), None)
    return LoadedArray(
        source,
        matrix,
        None if id_name is None else array_ids(columns[id_name], f"{source} ({id_name})"),
        {name: _label(array) for name, array in columns.items() if name != id_name},
    )


def _members(source: Path, work: Path) -> dict[str, Path]:
    """Unpack the arrays of an .npz into `work`, by name."""
    found = {}
    # another source may have the same name, and the first is mapped
    folder = Path(mkdtemp(dir=work))
    try:
        with zipfile.ZipFile(source) as archive:
            for index, name in enumerate(archive.namelist()):
                target = folder / f"{index}.npy"
                with archive.open(name) as stream, target.open("wb") as out:
                    shutil.copyfileobj(stream, out, COPY_BYTES)
                found[name.removesuffix(".npy")] = target
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputRejected(f"{source} isn't a whole .npz archive: {error}") from error
    return found


def _vectors_name(arrays: dict[str, NDArray[Any]], source: Path) -> str:
    matrices = [name for name, array in arrays.items() if array.ndim == 2]
    if len(matrices) == 1:
        return matrices[0]
    lowered = {name.lower(): name for name in matrices}
    for known in VECTOR_NAMES:
        if known in lowered:
            return lowered[known]
    listed = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "none"
    raise InputRejected(
        f"expected one two-dimensional array in {source}, or one of the names"
        f" {', '.join(VECTOR_NAMES)}; found {listed}"
    )


def _label(values: NDArray[Any]) -> pa.ChunkedArray:
    values = np.asarray(values)
    if values.dtype.kind == "S":
        values = np.char.decode(values.astype(np.bytes_), "utf-8")
    return as_label(pa.chunked_array([pa.array(values)]))


def _common_width(loaded: Sequence[LoadedArray]) -> int:
    width = int(loaded[0].vectors.shape[1])
    for array in loaded[1:]:
        if array.vectors.shape[1] != width:
            raise InputRejected(
                f"expected {width} numbers per row as in {loaded[0].source};"
                f" {array.source} has {array.vectors.shape[1]}"
            )
    return width


def _recordings(loaded: Sequence[LoadedArray], options: IngestOptions) -> tuple[pa.Table, str]:
    """Ids and labels of all rows, and whether the ids were `given` or are `row numbers`."""
    n = sum(len(array.vectors) for array in loaded)
    labels = _common_labels(loaded)
    if options.ids is not None:
        table, given = read_ids(options.ids, options.tables), "given"
        refuse_other_count(table, options.ids, expected=n)
    elif all(array.ids is not None for array in loaded):
        ids = [array.ids for array in loaded if array.ids is not None]
        table, given = pa.table({ID_COLUMN: stacked(ids)}), "given"
    else:
        table, given = pa.table({ID_COLUMN: row_numbers(n)}), ROW_NUMBERS
    for name, column in labels.items():
        if name not in table.column_names:
            table = table.append_column(name, column)
    return _chosen_labels(table, options), given


def _common_labels(loaded: Sequence[LoadedArray]) -> dict[str, pa.ChunkedArray]:
    first = loaded[0].labels
    shared = [name for name in first if all(name in array.labels for array in loaded)]
    return {name: stacked([array.labels[name] for array in loaded]) for name in shared}


def _chosen_labels(table: pa.Table, options: IngestOptions) -> pa.Table:
    asked = options.tables.labels
    missing = [name for name in asked if name not in table.column_names]
    if missing:
        there = ", ".join(table.column_names[1:]) or "none"
        raise UsageError(f"there is no label {missing[0]!r}; there are: {there}")
    return table.select([ID_COLUMN, *asked]) if asked else table
