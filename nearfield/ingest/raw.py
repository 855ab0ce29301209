"""From raw rows to what ingest hands on: drop bad rows, fit the transform, make the vectors.

Owns the policies that tables, arrays and HDF5 share: what isn't finite, a repeated id, a missing id
and a zero vector under cosine. Memory holds ids and labels; numbers stream through scratch files.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nearfield.errors import InputRejected, UsageError
from nearfield.ingest.columns import Scale, Transform, fitted_projection, fitted_scale
from nearfield.ingest.ids import first_occurrences
from nearfield.ingest.options import Gathered, IngestOptions
from nearfield.ingest.rejects import Reject, RejectLog
from nearfield.progress import progress
from nearfield.space import Float32s, SpaceName, space_named
from nearfield.vectorset import ID_COLUMN, Geometry

BLOCK_BYTES = 32 << 20
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class RawRows:
    """Rows as they were read.

    parts: real arrays [m, columns + categoricals], memory maps mostly. names: one per column.
    recordings: one row each, `recording_id` and labels. `origin(row)`: source and place in it.
    kind, layout: what the columns are; kept with the vector set, so that an extension can be held
    against them. scale, space: what to do when the user doesn't say.
    """

    parts: Sequence[NDArray[Any]]
    names: Sequence[str]
    recordings: pa.Table
    origin: Callable[[int], tuple[str, str]]
    kind: str
    layout: Mapping[str, Any]
    scale: Scale
    space: SpaceName = "l2"
    categories: tuple[tuple[str, ...], ...] = ()

    @property
    def n(self) -> int:
        """Number of rows."""
        return sum(len(part) for part in self.parts)

    def blocks(self, keep: Mask) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Row numbers and values of the rows to keep, a block at a time."""
        first = 0
        for part in self.parts:
            step = max(1, BLOCK_BYTES // (8 * max(1, part.shape[1])))
            for start in range(0, len(part), step):
                block = part[start : start + step]
                chosen = np.flatnonzero(keep[first + start : first + start + len(block)])
                if len(chosen) == len(block):
                    yield first + start + chosen, block
                elif len(chosen):
                    yield first + start + chosen, block[chosen]
            first += len(part)


def finished(raw: RawRows, options: IngestOptions, work: Path, rejects: RejectLog) -> Gathered:
    """Vectors, recordings and geometry of the usable rows, in the order of `raw`.

    Vectors are a memory map of a file inside `work`. Reasons of rejection: `no id`, `id with a
    character 0`, `duplicate id`, `not finite`, `zero vector`. Cost: a handful of passes over the
    numbers.
    """
    space = _chosen_space(raw, options)
    keep = _usable_ids(raw, _finite_rows(raw, rejects), rejects)
    transform = _transform(raw, options, space, keep)
    path = work / "vectors.f32"
    drop_zero = _drops_zero(space, options)
    with path.open("wb") as stream, progress("vectors", raw.n, "rows") as advance:
        for rows, block in raw.blocks(keep):
            vectors = transform.apply(block)
            usable = _usable_vectors(raw, rows, vectors, drop_zero, rejects)
            keep[rows[~usable]] = False
            stream.write(vectors[usable].data)
            advance(len(rows))
            d = vectors.shape[1]
    n = int(keep.sum())
    return Gathered(
        vectors=np.memmap(path, np.float32, "r", shape=(n, d)) if n else np.empty((0, 1), "f4"),
        recordings=raw.recordings.filter(pa.array(keep)),
        geometry=options.base
        or Geometry(space, statistics={"kind": raw.kind, **raw.layout, **transform.statistics()}),
        facts={"rows_read": raw.n, **_notes(transform, raw)},
    )


def _chosen_space(raw: RawRows, options: IngestOptions) -> SpaceName:
    asked = space_named(options.space) if options.space else None
    if options.base is None:
        return asked or raw.space
    if asked not in (None, options.base.space):
        raise UsageError(
            f"expected the space of the set being extended, {options.base.space}; got {asked}"
        )
    _check_base(raw, options.base)
    return options.base.space


def _check_base(raw: RawRows, base: Geometry) -> None:
    for key, found in {"kind": raw.kind, **raw.layout}.items():
        expected = base.statistics.get(key)
        if expected != found:
            raise InputRejected(
                f"can't extend: the set was made with {key} {expected!r}, these sources have"
                f" {found!r}. Give sources of the same kind and columns, or make a new set"
            )


def _drops_zero(space: SpaceName, options: IngestOptions) -> bool:
    if space == "cosine" and options.zero == "keep":
        raise UsageError(
            "zero vectors can't be kept under cosine: they have no direction."
            " Drop them (--zero drop), or choose --space l2"
        )
    return (options.zero or ("drop" if space == "cosine" else "keep")) == "drop"


def _finite_rows(raw: RawRows, rejects: RejectLog) -> Mask:
    keep = np.ones(raw.n, dtype=np.bool_)
    for rows, block in raw.blocks(keep.copy()):
        if block.dtype.kind == "f":
            finite = np.isfinite(block)
            for place in np.flatnonzero(~finite.all(axis=1)):
                column = int(np.argmin(finite[place]))
                detail = f"{_column_name(raw, column)}: {block[place, column]}"
                _reject(raw, int(rows[place]), "not finite", detail, rejects)
                keep[rows[place]] = False
    return keep


def _usable_ids(raw: RawRows, keep: Mask, rejects: RejectLog) -> Mask:
    ids = raw.recordings[ID_COLUMN]
    present = pc.is_valid(ids).to_numpy()
    for row in np.flatnonzero(keep & ~present):
        _reject(raw, int(row), "no id", "", rejects)
    keep = keep & present
    if pa.types.is_string(ids.type):
        # neither HDF5 nor Postgres can hold one
        holed = pc.fill_null(pc.match_substring(ids, "\0"), False).to_numpy()
        for row in np.flatnonzero(keep & holed):
            _reject(raw, int(row), "id with a character 0", repr(ids[int(row)].as_py()), rejects)
        keep = keep & ~holed
    rows = np.flatnonzero(keep)
    repeated = rows[~first_occurrences(ids.filter(pa.array(keep)))]
    for row in repeated:
        _reject(raw, int(row), "duplicate id", "the first one is kept", rejects)
    keep[repeated] = False
    return keep


def _usable_vectors(
    raw: RawRows, rows: NDArray[np.int64], vectors: Float32s, drop_zero: bool, rejects: RejectLog
) -> Mask:
    finite = np.asarray(np.isfinite(vectors).all(axis=1))
    for row in rows[~finite]:
        _reject(raw, int(row), "not finite", "too large for float32", rejects)
    if not drop_zero:
        return finite
    zero = np.logical_not(vectors.any(axis=1))
    for row in rows[zero]:
        _reject(raw, int(row), "zero vector", "", rejects)
    return finite & ~zero


def _reject(raw: RawRows, row: int, reason: str, detail: str, rejects: RejectLog) -> None:
    source, place = raw.origin(row)
    recording_id = raw.recordings[ID_COLUMN][row].as_py()
    item = place if recording_id is None else str(recording_id)
    rejects.add(Reject(source, item, reason, f"{place}, {detail}" if detail else place))


def _column_name(raw: RawRows, column: int) -> str:
    return f"column {raw.names[column]}"


def _transform(raw: RawRows, options: IngestOptions, space: SpaceName, keep: Mask) -> Transform:
    choice = options.tables
    if options.base is not None:
        return _stored_transform(options, Transform.from_statistics(options.base.statistics))
    transform = Transform(choice.scale or raw.scale, categories=raw.categories)
    if not keep.any():
        return transform

    def blocks() -> Iterator[NDArray[Any]]:
        return (block for _, block in raw.blocks(keep))

    if transform.scale != "none":
        centre, factor = fitted_scale(blocks, transform.scale, raw.names)
        transform = replace(transform, centre=centre, factor=factor)
    if choice.pca is not None:
        projection = fitted_projection(
            lambda: map(transform.apply_wide, blocks()), choice.pca, centred=space == "l2"
        )
        transform = replace(transform, projection=projection)
    return transform


def _stored_transform(options: IngestOptions, stored: Transform) -> Transform:
    choice = options.tables
    p = None if stored.projection is None else stored.projection.components.shape[1]
    if choice.scale not in (None, stored.scale) or choice.pca not in (None, p):
        raise UsageError(
            f"an extension is scaled as the set was (scale {stored.scale}, PCA {p}):"
            " leave out --scale and --pca"
        )
    return stored


def _notes(transform: Transform, raw: RawRows) -> dict[str, object]:
    notes: dict[str, object] = {"scale": transform.scale}
    if transform.factor is not None and not transform.factor.all():
        constant = np.flatnonzero(transform.factor == 0)
        notes["constant_columns"] = [raw.names[int(column)] for column in constant]
    if transform.projection is not None:
        notes["pca_variance_kept"] = round(transform.projection.explained, 6)
    return notes
