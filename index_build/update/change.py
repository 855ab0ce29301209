"""What an update changes: which recordings are new, changed or gone, and at which rows.

Pure decisions from two vector sets and a list of ids. Rows keep their numbers: a changed recording
stays at its row, one that comes back takes the row that it had, new ones follow. Refuses vectors
that can't be compared with the set's.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nearfield.errors import InputRejected
from nearfield.ingest.ids import ROW_NUMBERS, ids_beside, rows_beside, rows_of
from nearfield.space import Int32s
from nearfield.vectorset import ID_COLUMN, VectorSet, wide


@dataclass(frozen=True)
class Change:
    """rows int32 [m] ascending get the vectors `source` int64 [m] of the added set.

    added, changed, returned: how many of them are new, had another vector, or were removed before.
    relabelled_rows: int32 [r], with the same vector and the labels `labels_from` int64 [r] of the
    added set. gone: rows int32 that leave now; removed: all rows without a recording afterwards,
    ascending. unchanged: how many were there with the same vector. n: rows afterwards. ids: of
    `recorded`, in the form of the run's.
    """

    rows: Int32s
    source: NDArray[np.int64]
    relabelled_rows: Int32s
    labels_from: NDArray[np.int64]
    added: int
    changed: int
    returned: int
    unchanged: int
    gone: Int32s
    removed: Int32s
    n: int
    ids: pa.ChunkedArray

    @property
    def recorded(self) -> Int32s:
        """Rows that get an id and labels: `rows`, then `relabelled_rows`."""
        return np.concatenate([self.rows, self.relabelled_rows])

    @property
    def relabelled(self) -> int:
        """How many recordings have other labels alone."""
        return len(self.relabelled_rows)


def changes(base: VectorSet, add: VectorSet | None, remove: Sequence[str]) -> Change:
    """The change that `add` and `remove` ask for.

    Raises `InputRejected` for vectors of another geometry, unknown ids to remove, and ids that are
    named twice; `UsageError` when ids can't be matched. Cost: a hash of all ids, and a look at the
    vectors and labels that are in both.
    """
    was_removed = np.zeros(base.n, bool)
    was_removed[base.removed] = True
    gone = _rows_to_remove(base, was_removed, remove)
    if add is None:
        rows, source = np.empty(0, np.int32), np.empty(0, np.int64)
        return Change(
            rows, source, rows, source, 0, 0, 0, 0, gone, _removed(base, gone, rows), base.n,
            base.ids.slice(0, 0),
        )  # fmt: skip
    check_comparable(base, add)
    numbered = add.manifest.facts.get("ids") == ROW_NUMBERS
    ids = ids_beside(base, add.ids, numbered=numbered, where=str(add.path))
    place = rows_beside(base.ids, ids)
    _refuse_both(base, gone, place)
    known = np.flatnonzero(place < base.n)
    back = known[was_removed[place[known]]]
    there = known[~was_removed[place[known]]]
    differs = _differs(base, add, place, there)
    fresh = np.flatnonzero(place >= base.n)
    source = np.concatenate([there[differs], back, fresh])
    source = source[np.argsort(place[source], kind="stable")]
    rows = place[source].astype(np.int32)
    same = there[~differs]
    labels_from = same[_other_labels(base, add, place[same], same)]
    return Change(
        rows=rows,
        source=source,
        relabelled_rows=place[labels_from].astype(np.int32),
        labels_from=labels_from,
        added=len(fresh),
        changed=int(differs.sum()),
        returned=len(back),
        unchanged=int((~differs).sum()),
        gone=gone,
        removed=_removed(base, gone, rows),
        n=base.n + len(fresh),
        ids=ids.take(pa.array(np.concatenate([source, labels_from]))),
    )


def check_comparable(base: VectorSet, add: VectorSet) -> None:
    """Raise `InputRejected` unless both sets have the same width, space, blocks and statistics."""
    if (add.d, add.geometry.space) != (base.d, base.geometry.space):
        raise InputRejected(
            f"expected vectors of {base.d} numbers under {base.geometry.space}, as {base.path} has;"
            f" {add.path} has {add.d} under {add.geometry.space}"
        )
    if add.geometry != base.geometry:
        parts = [
            name
            for name in ("blocks", "statistics")
            if getattr(add.geometry, name) != getattr(base.geometry, name)
        ]
        raise InputRejected(
            f"{add.path} has other {' and '.join(parts)} than {base.path}: its vectors were scaled"
            " otherwise, so distances between the two mean nothing. Name the sources in place of"
            " the set, then they are transformed with the statistics of the run's own set"
        )


def _rows_to_remove(
    base: VectorSet, was_removed: NDArray[np.bool_], remove: Sequence[str]
) -> Int32s:
    if len(set(remove)) < len(remove):
        twice = next(name for name, times in Counter(remove).items() if times > 1)
        raise InputRejected(f"{twice!r} is named twice among the ids to remove: name each once")
    if not remove:
        return np.empty(0, np.int32)
    wanted = pa.chunked_array([pa.array(list(remove), pa.string())])
    rows = rows_of(base.ids.cast(pa.string()), wanted)
    unknown = rows < 0
    unknown[~unknown] = was_removed[rows[~unknown]]
    if unknown.any():
        first = remove[int(np.argmax(unknown))]
        raise InputRejected(
            f"{int(unknown.sum()):,} of {len(remove):,} ids to remove aren't in the run"
            f" (first: {first!r}). Nothing was changed; take them out of the list"
        )
    return np.sort(rows).astype(np.int32)


def _refuse_both(base: VectorSet, gone: Int32s, place: NDArray[np.int64]) -> None:
    both = np.intersect1d(gone, place)
    if len(both):
        raise InputRejected(
            f"{len(both):,} recordings are to be added and removed at once (first:"
            f" {base.ids[int(both[0])].as_py()!r}): decide for one"
        )


def _removed(base: VectorSet, gone: Int32s, rows: Int32s) -> Int32s:
    return np.setdiff1d(np.union1d(base.removed, gone), rows).astype(np.int32)


def _differs(
    base: VectorSet, add: VectorSet, place: NDArray[np.int64], known: NDArray[np.int64]
) -> NDArray[np.bool_]:
    out = np.zeros(len(known), bool)
    for first in range(0, len(known), 65_536):
        part = known[first : first + 65_536]
        same = base.vectors[place[part]].view(np.uint32) == add.vectors[part].view(np.uint32)
        out[first : first + len(part)] = ~same.all(axis=1)
    return out


def _other_labels(
    base: VectorSet, add: VectorSet, rows: NDArray[np.int64], source: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which of the recordings at `rows` of `base` have another label at `source` of `add`; one that
    isn't there says nothing.
    """
    out = np.zeros(len(rows), bool)
    if not len(rows):
        return out
    old, new = base.recordings, add.recordings
    for name in new.column_names:
        if name == ID_COLUMN:
            continue
        after = wide(new[name]).take(pa.array(source)).cast(pa.large_string())
        differs = pc.is_valid(after)
        if name in old.column_names:
            before = wide(old[name]).take(pa.array(rows)).cast(pa.large_string())
            differs = pc.and_(differs, pc.fill_null(pc.not_equal(after, before), True))
        out |= np.asarray(differs.to_numpy(), bool)
    return out
