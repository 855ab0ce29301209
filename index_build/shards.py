"""Shards on disk and the tasks that run on workers: pure functions of paths and parameters.

Owns `RUN/shards/NNNNN/` (rows and vectors of one shard, so that a task reads nothing else) and
the tasks that turn a shard or a block of rows into a part file. Each returns the part's name.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import faiss
import numba
import numpy as np

from benchmark.methods import Asked
from index_build.child import child_arguments, run_child
from index_build.joining import joined
from index_build.merge import merge_parts
from index_build.vector_file import mapped_vectors
from nearfield.exact import exact_search
from nearfield.files import atomic_path
from nearfield.locations import Location, local_file, location
from nearfield.manifest import check_file, file_entry, read_manifest, write_manifest
from nearfield.neighbours import EMPTY, NeighbourTable, read_part_rows, write_part
from nearfield.space import Float32s, Int32s, SpaceName
from nearfield.traffic import note_read, note_written

SHARD_KIND = "shard"
SHARD_FORMAT_VERSION = 1


@dataclass(frozen=True)
class PartTask:
    """What every task needs to know: where its part goes, and what it answers."""

    part: str
    fingerprint: str
    k: int
    space: SpaceName
    recall: float
    seed: int


def write_shard(directory: Location, rows: Int32s, vectors: Float32s, *, fingerprint: str) -> None:
    """Write a shard's rows int32 [m] and vectors float32 [m, d]; the manifest comes last."""
    files = {}
    for name, values in (("rows.npy", rows), ("vectors.npy", vectors)):
        with atomic_path(directory / name) as temporary:
            with temporary.open("wb") as stream:
                np.save(stream, values)
            files[name] = file_entry(temporary)
    write_manifest(
        directory / "manifest.json",
        kind=SHARD_KIND,
        fingerprint=fingerprint,
        format_version=SHARD_FORMAT_VERSION,
        files=files,
        facts={"rows": len(rows)},
    )


def read_shard(directory: Location) -> tuple[Int32s, Float32s]:
    """Rows and mapped vectors of a shard, checked against its manifest."""
    manifest = read_manifest(directory / "manifest.json", kind=SHARD_KIND, verify=False)
    arrays = []
    for name in ("rows.npy", "vectors.npy"):
        # what is mapped stays readable when the copy of an object is gone
        with local_file(directory / name) as file:
            check_file(file, manifest.files[name])
            arrays.append(np.load(file, mmap_mode="r", allow_pickle=False))
    rows, vectors = arrays
    return np.asarray(rows), vectors


def exact_part(vectors: str, block: tuple[int, int], task: PartTask, *, threads: int) -> str:
    """Task: exact lists of the rows `block` against all of the file `vectors`."""
    use_threads(threads)
    everything = mapped_vectors(vectors)
    note_read(everything.nbytes)
    rows = np.arange(*block, dtype=np.int32)
    neighbours, distances = exact_search(
        everything[slice(*block)], everything, task.k, space=task.space, own_rows=rows
    )
    _write(NeighbourTable(rows, neighbours, distances), task)
    return task.part


def shard_part(directory: str, method: str, task: PartTask, *, threads: int) -> str:
    """Task: lists of a shard's rows among themselves, computed in a child process.

    A native crash in the library ends the child, not the worker; the error names the shard.
    """
    run_child(
        "index_build.shards",
        f"{method} on {directory}",
        {"directory": directory, "method": method, "threads": threads, **asdict(task)},
    )
    # the child counts nothing for us: it reads the whole shard and writes the part
    note_read(sum(file.stat().st_size for file in location(directory).glob("*.npy")))
    note_written(location(task.part).stat().st_size)
    return task.part


def merged_part(
    parts: Sequence[str], vectors: str, block: tuple[int, int], task: PartTask, *, threads: int
) -> str:
    """Task: the final lists of the rows `block` out of all parts that name them.

    A row whose shards were too small to give k neighbours is searched in all of `vectors`.
    """
    use_threads(threads)
    table = merge_parts((read_part_rows(location(part), *block) for part in parts), *block, task.k)
    short = np.flatnonzero((table.neighbours == EMPTY).any(axis=1))
    if len(short):
        everything = mapped_vectors(vectors)
        note_read(everything.nbytes)
        table.neighbours[short], table.distances[short] = exact_search(
            everything[table.rows[short]],
            everything,
            task.k,
            space=task.space,
            own_rows=table.rows[short],
        )
    _write(table, task)
    return task.part


def use_threads(threads: int) -> None:
    """Set the threads of the native libraries: a Dask nanny leaves them at one."""
    faiss.omp_set_num_threads(threads)
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


def _write(table: NeighbourTable, task: PartTask) -> None:
    write_part(location(task.part), table, fingerprint=task.fingerprint)


def _join(directory: str, method: str, threads: int, task: PartTask) -> None:
    use_threads(threads)
    rows, vectors = read_shard(location(directory))
    asked = Asked(task.k, task.space, task.recall, threads, task.seed)
    local, distances = joined(method, np.ascontiguousarray(vectors), asked)
    neighbours = np.where(local == EMPTY, np.int32(EMPTY), rows[local])
    # rows ascend, so local order within equal distances is the order of the rows
    _write(NeighbourTable(rows, neighbours, distances), task)


def _main() -> None:
    arguments = child_arguments()
    place = {name: arguments.pop(name) for name in ("directory", "method", "threads")}
    _join(**place, task=PartTask(**arguments))


if __name__ == "__main__":
    _main()
