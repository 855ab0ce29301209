"""What the join works on: the distinct, prepared vectors, in a file that workers can reach.

Owns `RUN/shards/distinct.npy`, written only when it differs from the vector set's own file, and
`RUN/shards/vectors` of a run in an object store.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from index_build.duplicates import Collapsed, apart, collapse
from index_build.segments import write_segments
from index_build.vector_file import send_vectors
from nearfield.files import atomic_path
from nearfield.locations import Location, scratch_folder
from nearfield.manifest import fingerprint
from nearfield.objects import ObjectPath
from nearfield.space import Float32s, prepared
from nearfield.vectorset import VectorSet, row_blocks

SEVERAL = "several"


@dataclass(frozen=True)
class JoinInput:
    """`vectors` float32 [u, d], mapped by the driver; tasks find them at `path`.

    `collapsed` leads back from them to all recordings. `several`: the file that says which of them
    stand for several rows, bool [u], where a join by products has to know; else none.
    """

    path: Location
    vectors: Float32s
    collapsed: Collapsed
    several: Location | None = None


def join_input(vector_set: VectorSet, directory: Location, *, merge: bool = True) -> JoinInput:
    """Collapse equal vectors, prepare them for their space, and leave them where workers can read.

    Not `merge`: every row stays on its own. Equality is judged on the prepared vectors.
    Cost O(n d + n log n); memory O(n) and one block, the file is paged in and out.
    """
    found = _reachable_input(vector_set, directory, merge=merge)
    if vector_set.geometry.space != "ip" or not found.collapsed.any_equal:
        return found
    several = directory / SEVERAL
    arrays = {SEVERAL: np.diff(found.collapsed.starts) > 1}
    write_segments(several, [(0, arrays)], fingerprint=vector_set.fingerprint)
    return replace(found, several=several)


def _reachable_input(vector_set: VectorSet, directory: Location, *, merge: bool) -> JoinInput:
    if isinstance(directory, ObjectPath):
        with scratch_folder() as folder:
            # what is mapped stays readable when its folder is gone
            found = _local_input(vector_set, folder, merge=merge)
        path, space = directory / "vectors", vector_set.geometry.space
        mark = fingerprint(vectors=vector_set.fingerprint, space=space, merge=merge)
        send_vectors(path, found.vectors, fingerprint=mark)
        return JoinInput(path, found.vectors, found.collapsed)
    found = _local_input(vector_set, directory, merge=merge)
    if vector_set.fetched and found.path == vector_set.path / "vectors.npy":
        # this machine's copy, which other machines can't see
        shared = directory / "vectors.npy"
        _write_rows(shared, found.vectors.shape, row_blocks(found.vectors))
        return JoinInput(shared, found.vectors, found.collapsed)
    return found


def _local_input(vector_set: VectorSet, directory: Path, *, merge: bool) -> JoinInput:
    space = vector_set.geometry.space
    path = vector_set.path / "vectors.npy"
    vectors = vector_set.vectors
    if space == "cosine":
        path = directory / "unit.npy"
        _write_rows(path, vectors.shape, (prepared(block, space) for block in row_blocks(vectors)))
        vectors = _mapped(path)
    collapsed = collapse(vectors) if merge else apart(len(vectors))
    if collapsed.any_equal:
        chosen = collapsed.representatives
        path = directory / "distinct.npy"
        blocks = (vectors[part] for part in np.array_split(chosen, 1 + len(chosen) // 65_536))
        _write_rows(path, (len(chosen), vectors.shape[1]), blocks)
        vectors = _mapped(path)
    return JoinInput(path, vectors, collapsed)


def _mapped(path: Path) -> Float32s:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _write_rows(path: Path, shape: tuple[int, ...], blocks: Iterable[Float32s]) -> None:
    with atomic_path(path) as temporary:
        out = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
        first = 0
        for block in blocks:
            out[first : first + len(block)] = block
            first += len(block)
        out.flush()
