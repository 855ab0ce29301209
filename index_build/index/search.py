"""Search over a sharded index: route, ask shards, recompute distances, merge.

Owns what an answer is. Distances are recomputed from the vectors in float64; lists are sorted by
(distance, row). Equal vectors are one entry of a library and all of them in the answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index_build.index.cells import route
from index_build.index.layout import (
    FILES,
    IndexConfig,
    finished_index,
    library_bytes,
    read_config,
)
from index_build.index.store import ShardStore
from nearfield.distances import list_distances, sort_lists
from nearfield.errors import InputRejected, UsageError
from nearfield.exact import exact_search
from nearfield.ingest.queries import vectors_of
from nearfield.jit import compiled
from nearfield.machine import available_cores
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s, prepared
from nearfield.vectorset import ID_COLUMN, check_finite, read_geometry, wide

MEMORY_BYTES = 4 << 30
BATCH = 16_384

ShardSearch = Callable[[int, Float32s, int, int], tuple[Int32s, Float32s]]


@dataclass(frozen=True)
class Found:
    """rows int32 [q, c], distances float32 [q, c], c = min(k, n): each list by (distance, row).

    Places without a find hold -1 and infinity. `shards`: how many were asked per query.
    """

    rows: Int32s
    distances: Float32s
    shards: int


@dataclass(frozen=True)
class Groups:
    """Which rows share a vector: group g is members[starts[g] : starts[g + 1]]."""

    members: Int32s
    starts: NDArray[np.int64]

    @property
    def any_equal(self) -> bool:
        """Whether a group has several rows."""
        return len(self.members) > len(self.starts) - 1


class ShardedIndex:
    """An opened index. Shards are loaded when they are needed, within `memory_bytes`."""

    def __init__(self, path: Path, store: ShardStore, facts: dict[str, Any]) -> None:
        self.path, self.store, self.facts = path, store, facts
        self.config: IndexConfig = store.config
        arrays = (np.load(path / name, allow_pickle=False) for name in FILES[:3])
        self.centres, members, starts = arrays
        self.groups = Groups(members, starts)

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return len(self.centres)

    @property
    def recordings(self) -> pa.Table:
        """Ids and labels of the indexed recordings, in row order."""
        return pq.read_table(self.path / "recordings.parquet")

    @cached_property
    def _ids(self) -> pa.ChunkedArray:
        ids = pq.read_table(self.path / "recordings.parquet", columns=[ID_COLUMN])[ID_COLUMN]
        return wide(ids)

    def ids(self, rows: Int32s) -> list[list[str | int | None]]:
        """Recording ids of rows [q, c]; None where there is no row. Keeps all ids from then on."""
        flat = pa.array(rows.ravel(), mask=rows.ravel() == EMPTY)
        width = rows.shape[1]
        listed = self._ids.take(flat).to_pylist()
        return [listed[at : at + width] for at in range(0, len(listed), width or 1)]

    def scaled(self, numbers: NDArray[Any]) -> Float32s:
        """Vectors float32 [q, d] of raw rows [q, columns], as the set's sources have them; see
        `vectors_of`.
        """
        return vectors_of(numbers, read_geometry(self.path))

    def search(
        self,
        vectors: NDArray[Any],
        k: int,
        *,
        shards: int | None = None,
        recall: float | None = None,
        exact: bool = False,
    ) -> Found:
        """The k nearest recordings of each of the vectors [q, d], in the scale of the set: those of
        raw numbers are `scaled`.

        shards: how many to ask per query; recall: or as few as reach it, as measured when the
        index was built (default 0.95); exact: compare with everything. Raises `InputRejected` for
        vectors of another width, not finite, or without direction under cosine, and `UsageError`
        for a recall that was never reached.
        """
        queries = self._ready(vectors)
        if k < 1:
            raise UsageError(f"expected k of at least 1, got {k}")
        if (shards is not None) + (recall is not None) + exact > 1:
            raise UsageError("expected one of shards, recall and exact; got several")
        if exact:
            return self._answer(queries, k, self.shards, self._compared)
        asked = shards
        if asked is None:
            asked = self.shards_for(0.95 if recall is None else recall, k)
        if not 1 <= asked <= self.shards:
            raise UsageError(f"expected shards in 1..{self.shards}, got {asked}")
        return self._answer(queries, k, asked, self._asked)

    def shards_for(self, recall: float, k: int) -> int:
        """The fewest shards whose measured recall at k reaches `recall`; `UsageError` if none."""
        measured = sorted(int(width) for width in self.facts["recall"])
        widths = [width for width in measured if width >= min(k, self.config.n - 1)]
        if not widths:
            raise UsageError(
                f"recall was measured up to k = {measured[-1]}, not {k}: say how many shards to"
                f" ask (--shards, of {self.shards}), or make the index with -k {k}"
            )
        points = self.facts["recall"][str(widths[0])]
        enough = [int(p) for p, found in points.items() if found >= recall]
        if not enough:
            best = max(points.values())
            raise UsageError(
                f"the index reached a recall of {best:.4f} at k = {widths[0]}, not {recall}: ask"
                " for less, or for the exact method (--exact)"
            )
        return min(enough)

    def lists(
        self, queries: Float32s, k: int, shards: int, own: Int32s | None = None
    ) -> tuple[Int32s, Float32s]:
        """Lists of groups [q, k] of prepared queries; `own` [q], unless -1, is left out of them."""
        return self._merged(queries, k, route(queries, self.centres, shards, self.config.space),
                            self._asked, own)  # fmt: skip

    def _ready(self, vectors: NDArray[Any]) -> Float32s:
        if vectors.ndim != 2 or vectors.shape[1] != self.config.d:
            raise InputRejected(
                f"expected vectors of {self.config.d} numbers, as the index {self.path} has; got"
                f" an array of shape {vectors.shape}"
            )
        with np.errstate(over="ignore"):
            narrowed = np.ascontiguousarray(vectors, np.float32)
        check_finite(narrowed)
        return prepared(narrowed, self.config.space)

    def _answer(self, queries: Float32s, k: int, shards: int, search: ShardSearch) -> Found:
        parts = []
        for first in range(0, len(queries), BATCH):
            block = queries[first : first + BATCH]
            routes = route(block, self.centres, shards, self.config.space)
            parts.append(self._rows(*self._merged(block, k, routes, search, None), k))
        rows, distances = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Found(rows, distances, shards)

    def _merged(
        self, queries: Float32s, k: int, routes: Int32s, search: ShardSearch, own: Int32s | None
    ) -> tuple[Int32s, Float32s]:
        # a place for the vector itself, which is no reason for more effort
        places = k if own is None else k + 1
        groups = np.full((len(queries), k), EMPTY, np.int32)
        distances = np.full((len(queries), k), np.inf, np.float32)
        # what is in memory comes first, before it makes room for the others
        for number in sorted(np.unique(routes), key=lambda it: it not in self.store.loaded):
            chosen = np.flatnonzero((routes == number).any(axis=1))
            new, far = search(int(number), np.ascontiguousarray(queries[chosen]), places, k)
            if own is not None:
                itself = new == own[chosen, None]
                new[itself], far[itself] = EMPTY, np.inf
            both = sort_lists(
                np.concatenate([groups[chosen], new], axis=1),
                np.concatenate([distances[chosen], far], axis=1),
            )
            groups[chosen], distances[chosen] = both[0][:, :k], both[1][:, :k]
        return groups, distances

    def _asked(
        self, number: int, queries: Float32s, places: int, k: int
    ) -> tuple[Int32s, Float32s]:
        shard = self.store.shard(number)
        width = min(places, len(shard.rows))
        local = shard.search(queries, width, min(k, width))
        distances = list_distances(queries, shard.vectors, local, self.config.space)
        return np.where(local == EMPTY, np.int32(EMPTY), shard.rows[local]), distances

    def _compared(
        self, number: int, queries: Float32s, places: int, k: int
    ) -> tuple[Int32s, Float32s]:
        del k  # it has no effort
        rows, vectors = self.store.arrays(number)
        local, distances = exact_search(queries, vectors, places, space=self.config.space)
        return rows[local], distances

    def _rows(self, groups: Int32s, distances: Float32s, k: int) -> tuple[Int32s, Float32s]:
        columns = min(k, len(self.groups.members))
        if not self.groups.any_equal:
            return groups[:, :columns], distances[:, :columns]
        out = np.full((len(groups), columns), EMPTY, np.int32)
        far = np.full(out.shape, np.inf, np.float32)
        _expand(groups, distances, self.groups.members, self.groups.starts, out, far)
        return out, far


def open_index(
    path: Path,
    *,
    memory_bytes: int | None = None,
    usual_bytes: int = MEMORY_BYTES,
    threads: int | None = None,
) -> ShardedIndex:
    """Open a finished index; no library is opened before its shard is asked for.

    memory_bytes: of libraries' files open at once (None: `usual_bytes`, or one shard's). Raises
    `MissingFile`, `DamagedArtefact`, and `UsageError` when `memory_bytes` holds no shard.
    """
    config = read_config(path)
    manifest = finished_index(path, config)
    shards = range(int(manifest.facts["shards"]))
    largest = max((library_bytes(path, number) for number in shards), default=0)
    limit = max(usual_bytes, largest) if memory_bytes is None else memory_bytes
    store = ShardStore(path, config, limit, threads or available_cores())
    store.check_limit(largest)
    return ShardedIndex(path, store, dict(manifest.facts))


@compiled()
def _expand(
    groups: Int32s,
    distances: Float32s,
    members: Int32s,
    starts: NDArray[np.int64],
    out: Int32s,
    far: Float32s,
) -> None:
    columns = out.shape[1]
    for i in range(len(groups)):
        rows = np.empty(columns * groups.shape[1], np.int32)
        found = np.empty(len(rows), np.float32)
        count = 0
        for j in range(groups.shape[1]):
            group = groups[i, j]
            if group < 0 or (count >= columns and distances[i, j] > found[count - 1]):
                break
            # of equal vectors the lowest rows come first
            for place in range(starts[group], min(starts[group + 1], starts[group] + columns)):
                rows[count], found[count] = members[place], distances[i, j]
                count += 1
        by_row = np.argsort(rows[:count], kind="mergesort")
        order = by_row[np.argsort(found[:count][by_row], kind="mergesort")]
        for j in range(min(columns, count)):
            out[i, j], far[i, j] = rows[order[j]], found[order[j]]
