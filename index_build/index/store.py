"""Shards in memory: loaded when they are asked for, the least recently used given up for others.

Owns the memory limit. What counts is the size of the library's files, mapped or not, which is about
what the library holds in memory; vectors and rows are mapped, so the system takes their pages back
when it needs them. Refuses to search.
"""

from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, RLock

import numpy as np

from benchmark.methods import Index
from index_build.index.layout import (
    LIBRARY,
    IndexConfig,
    checked_shard,
    library_bytes,
    shard_path,
)
from index_build.index.libraries import load_library
from nearfield.errors import UsageError
from nearfield.space import Float32s, Int32s

Places = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class LoadedShard:
    """rows int32 [m] and mapped vectors float32 [m, d].

    places: by the k for which they were chosen, ascending, the place on the ladder of efforts.
    """

    rows: Int32s
    vectors: Float32s
    index: Index
    places: Places
    _turn: Lock = field(default_factory=Lock)

    def search(self, queries: Float32s, places: int, k: int) -> Int32s:
        """Places int32 [q, places] in the shard of what its library finds, with the effort for k
        neighbours; see `Index.search`.

        Callers take turns where the library knows one effort at a time.
        """
        effort = self._effort(k)
        with nullcontext() if self.index.method.concurrent else self._turn:
            return self.index.search(queries, places, effort)

    def _effort(self, k: int) -> int:
        """That of the nearest k that were measured: recall is promised by the next larger one, so
        no less than for that; beyond all, the place on the ladder of `k` itself.
        """
        below = max((known for known, _ in self.places if known <= k), default=self.places[0][0])
        beyond = min((known for known, _ in self.places if known >= k), default=below)

        def of(known: int, place: int) -> int:
            ladder = self.index.efforts(max(k, min(known, len(self.rows))))
            return ladder[min(place, len(ladder) - 1)]

        return max(of(known, place) for known, place in self.places if known in (below, beyond))


class ShardStore:
    """Shards of one index, at most `memory_bytes` of libraries' files open at once.

    Safe to call from several threads; a shard in use isn't freed before its user lets go of it.
    """

    def __init__(self, path: Path, config: IndexConfig, memory_bytes: int, threads: int) -> None:
        self.path, self.config = path, config
        self.memory_bytes, self.threads = memory_bytes, threads
        self.loads = 0
        self._loaded: OrderedDict[int, LoadedShard] = OrderedDict()
        self._bytes: dict[int, int] = {}
        self._checked: dict[int, tuple[tuple[int, ...], Places]] = {}
        self._lock = RLock()

    @property
    def used_bytes(self) -> int:
        """Sizes of the files that are loaded now."""
        return sum(self._bytes.values())

    @property
    def loaded(self) -> frozenset[int]:
        """The shards in memory."""
        return frozenset(self._loaded)

    def check_limit(self, largest: int) -> None:
        """Raise `UsageError` when not even one shard fits."""
        if largest > self.memory_bytes:
            raise UsageError(
                f"expected a memory limit of at least {largest:,} bytes, the largest shard of"
                f" {self.path}; got {self.memory_bytes:,}. Give more, or make the index with"
                " smaller shards (--shard-rows)"
            )

    def shard(self, number: int) -> LoadedShard:
        """The shard, loaded if it isn't. `DamagedArtefact` comes before a library sees its file."""
        with self._lock:
            found = self._loaded.get(number)
            if found is None:
                found = self._load(number)
            self._loaded.move_to_end(number)
            return found

    def arrays(self, number: int) -> tuple[Int32s, Float32s]:
        """Rows and vectors of a shard, checked, without its library."""
        with self._lock:
            self._check(number)
        folder = shard_path(self.path, number)
        rows, vectors = (
            np.load(folder / name, mmap_mode="r", allow_pickle=False)
            for name in ("rows.npy", "vectors.npy")
        )
        return np.asarray(rows), vectors

    def _load(self, number: int) -> LoadedShard:
        places = self._check(number)
        size = library_bytes(self.path, number)
        self.check_limit(size)
        while self._loaded and self.used_bytes + size > self.memory_bytes:
            oldest, _ = self._loaded.popitem(last=False)
            del self._bytes[oldest]
        rows, vectors = self.arrays(number)
        folder = shard_path(self.path, number) / LIBRARY
        index = load_library(folder, self.config, threads=self.threads)
        loaded = LoadedShard(rows, vectors, index, places)
        self._loaded[number], self._bytes[number] = loaded, size
        self.loads += 1
        return loaded

    def _check(self, number: int) -> Places:
        """Compare checksums, unless the very files were compared before; places of efforts."""
        folder = shard_path(self.path, number)
        before = self._checked.get(number)
        mark = _mark(folder)
        if before is None or before[0] != mark:
            efforts = checked_shard(self.path, self.config, number)["efforts"]
            places = sorted((int(k), int(place)) for k, place in efforts.items())
            self._checked[number] = before = (mark, tuple(places))
        return before[1]


def _mark(folder: Path) -> tuple[int, ...]:
    """Changes whenever one of a shard's files is replaced or written to."""
    found: list[int] = []
    for path in sorted((*folder.glob("*"), *(folder / LIBRARY).glob("*"))):
        status = path.stat()
        found += [status.st_ino, status.st_size, status.st_mtime_ns]
    return tuple(found)
