"""hnswlib's HNSW. The module comes with chroma-hnswlib, whose wheels need no compiler.

hnswlib reports no failed write, so room for more is proved after a save (`_check_written`).
"""

import errno
import os
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from benchmark.methods.base import Holds, Index, Method, ladder
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s, SpaceName

FACTORS = (1, 1.5, 2, 3, 4, 6, 8, 16)
LEAST = 16
FILE = "index.hnswlib"
SPACE_NAMES: dict[SpaceName, str] = {"l2": "l2", "cosine": "l2", "ip": "ip"}
"""Prepared vectors have unit length under cosine, where Euclidean order is the order of angles."""
HEADER = struct.Struct("<6Q2i3QdQ")
"""Fields of the file's head; the third is n, the fourth the bytes per element, then the places of
its id and of its vector. Elements follow, then the upper layers."""
PROBE_BYTES = 1 << 16
"""More than hnswlib buffers before it writes."""
INSTALL = (
    Method.install
    if sys.version_info < (3, 13)
    else "no wheel for this Python; pip install hnswlib needs a C++ compiler"
)


class _Hnswlib(Index):
    def efforts(self, k: int) -> Sequence[int]:
        return ladder(k, FACTORS, least=LEAST)

    def _search(self, queries: Float32s, k: int, effort: int) -> Int32s:
        self.native.set_ef(effort)
        try:
            return self._asked(queries, k)
        except RuntimeError:  # some query found fewer than k, and hnswlib gives none then
            if len(queries) == 1:
                return self._fewer(queries, k)
        half = len(queries) // 2
        return np.concatenate(
            [self._search(part, k, effort) for part in (queries[:half], queries[half:])]
        )

    def _asked(self, queries: Float32s, k: int) -> Int32s:
        found = self.native.knn_query(queries, k, num_threads=self.threads)[0]
        return found.astype(np.int32)  # hnswlib's are uint64

    def _fewer(self, query: Float32s, k: int) -> Int32s:
        """As many as one query finds, by bisection."""
        found, least, most = np.full((1, k), EMPTY, np.int32), 0, k
        while most - least > 1:
            middle = (least + most) // 2
            try:
                found[:, :middle] = self._asked(query, middle)
                least = middle
            except RuntimeError:
                most = middle
        return found

    def _add(self, vectors: Float32s) -> None:
        n = self.holds.n
        self.native.resize_index(n + len(vectors))
        self.native.add_items(vectors, np.arange(n, n + len(vectors)), num_threads=self.threads)

    def _save(self, folder: Path) -> Sequence[str]:
        self.native.save_index(str(folder / FILE))
        _check_written(folder / FILE, self.holds)
        return (FILE,)


@dataclass(frozen=True)
class Hnswlib(Method):
    """Effort is ef. Built with several threads, the graph differs from build to build.

    Where many vectors are equal, their links lead only to each other and searches find fewer than
    k; those lists end with -1.
    """

    links: Annotated[int, Meta(ge=2, le=512)] = 16
    build_effort: Annotated[int, Meta(ge=1)] = 200

    name: ClassVar[str] = "hnswlib"
    library: ClassVar[str] = "hnswlib"
    spaces: ClassVar[frozenset[SpaceName]] = frozenset({"l2", "cosine", "ip"})
    effort: ClassVar[str] = "ef"
    adds: ClassVar[bool] = True
    install: ClassVar[str] = INSTALL

    def bytes_per_row(self, d: int) -> float:
        """The vectors and twice the links, as int32."""
        return 4 * d + 8 * self.links + 24

    def _build(self, vectors: Float32s, space: SpaceName, *, threads: int, seed: int) -> Index:
        n, d = vectors.shape
        native = self.require().Index(SPACE_NAMES[space], d)
        native.init_index(n, self.links, self.build_effort, seed + 1)
        native.add_items(vectors, np.arange(n), num_threads=threads)
        return _Hnswlib(native, self, Holds(space, n, d), threads)

    def _load(self, folder: Path, holds: Holds, *, threads: int, mapped: bool) -> Index:
        _check_head(folder / FILE, holds)
        native = self.require().Index(SPACE_NAMES[holds.space], holds.d)
        native.load_index(str(folder / FILE), holds.n)
        return _Hnswlib(native, self, holds, threads)


def _check_head(path: Path, holds: Holds) -> None:
    """Raise `ValueError` for another n or d: hnswlib would read out of bounds."""
    with path.open("rb") as stream:
        head = stream.read(HEADER.size)
    if len(head) < HEADER.size:
        raise ValueError("it has no head")
    _, _, n, element_bytes, id_place, vector_place, *_ = HEADER.unpack(head)
    if (n, id_place - vector_place) != (holds.n, 4 * holds.d):
        raise ValueError(f"it holds {n} vectors of {(id_place - vector_place) // 4} dimensions")
    if path.stat().st_size < HEADER.size + n * element_bytes:
        raise ValueError("it was cut")


def _check_written(path: Path, holds: Holds) -> None:
    """Raise `OSError` where the disk took less than the whole file.

    A write that failed leaves no room behind it, so some more is written, and removed again.
    """
    probe = path.with_name(f"{path.name}.probe")
    try:
        with probe.open("wb") as stream:
            stream.write(bytes(PROBE_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        _check_head(path, holds)
    except ValueError as error:
        raise OSError(errno.ENOSPC, f"No space left on device: {error}") from error
    finally:
        probe.unlink(missing_ok=True)
