"""A vector set plus new recordings: old rows keep their numbers, new ones come after them.

Owns what happens to a recording that is in both, and how labels merge.
The new vectors come from a reader that used the old set's statistics.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearfield.errors import InputRejected
from nearfield.ingest.ids import ROW_NUMBERS, ids_beside, rows_beside
from nearfield.ingest.labels import placed
from nearfield.ingest.options import Gathered
from nearfield.space import Float32s
from nearfield.vectorset import ID_COLUMN, VectorSet, row_blocks


@dataclass(frozen=True)
class Match:
    """`place` int64 [m]: the row that each new recording has in the result, old rows first."""

    place: NDArray[np.int64]
    old_n: int

    @property
    def known(self) -> NDArray[np.bool_]:
        """Mask [m]: the recording is in the old set."""
        return self.place < self.old_n


def merged(old: VectorSet, new: Gathered, work: Path) -> Gathered:
    """The recordings of `old` at their rows, updated where `new` has them, then the rest of `new`.

    Facts: `added`, `changed` (its vector differs), `unchanged`. A label of `new` replaces the old
    one unless it is null. Raises `InputRejected` when the vectors can't be compared, `UsageError`
    when row numbers would meet ids. Cost: O((n + m) d), streamed; ids and labels in memory.
    """
    _check_comparable(old, new)
    new = _identified(old, new)
    match = Match(rows_beside(old.ids, new.recordings[ID_COLUMN]), old.n)
    path = work / "extended.f32"
    with path.open("wb") as stream:
        changed = 0
        for block, differing in _updated(old.vectors, new.vectors, match):
            stream.write(block.data)
            changed += differing
        for block in _chosen(new.vectors, np.flatnonzero(~match.known)):
            stream.write(block.data)
    known = int(match.known.sum())
    added = len(match.place) - known
    return Gathered(
        vectors=np.memmap(path, np.float32, "r", shape=(old.n + added, old.d)),
        recordings=placed(old.recordings, new.recordings, match.place, old.n + added),
        geometry=old.geometry,
        facts={
            **new.facts,
            "extended": old.fingerprint,
            "kept": old.n - known,
            "added": added,
            "changed": changed,
            "unchanged": known - changed,
        },
    )


def _check_comparable(old: VectorSet, new: Gathered) -> None:
    found = (new.geometry.space, new.geometry.blocks, int(new.vectors.shape[1]))
    expected = (old.geometry.space, old.geometry.blocks, old.d)
    if found != expected:
        raise InputRejected(
            f"can't extend {old.path}: it has {old.d} numbers per recording under"
            f" {old.geometry.space}, the new sources give {found[2]} under {found[0]}."
            " Ingest them in the way in which the set was made"
        )


def _identified(old: VectorSet, new: Gathered) -> Gathered:
    numbered = new.facts.get("ids") == ROW_NUMBERS
    ids = ids_beside(old, new.recordings[ID_COLUMN], numbered=numbered, where="the new sources")
    place = new.recordings.column_names.index(ID_COLUMN)
    return replace(new, recordings=new.recordings.set_column(place, ID_COLUMN, ids))


def _updated(old: Float32s, new: Float32s, match: Match) -> Iterator[tuple[Float32s, int]]:
    """Blocks of the old vectors with new ones in their places, and how many of those differ."""
    rows = np.flatnonzero(match.known)
    rows = rows[np.argsort(match.place[rows])]
    places = match.place[rows]
    start = 0
    for block in row_blocks(old):
        low, high = np.searchsorted(places, (start, start + len(block)))
        updated = np.array(block)
        within = places[low:high] - start
        updated[within] = new[rows[low:high]]
        differs = (updated[within].view(np.uint32) != block[within].view(np.uint32)).any(axis=1)
        yield updated, int(differs.sum())
        start += len(block)


def _chosen(vectors: Float32s, rows: NDArray[np.int64]) -> Iterator[Float32s]:
    """The vectors of some rows (ascending), a block at a time."""
    first = 0
    for block in row_blocks(vectors):
        low, high = np.searchsorted(rows, (first, first + len(block)))
        yield np.ascontiguousarray(block[rows[low:high] - first])
        first += len(block)
