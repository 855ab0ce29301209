"""The matrix out of an index: every row is asked, and left out of its own list by its number.

A task asks the rows of one shard, in a child process, and writes a part. Owns the order of the rows
that come out. Run as a module it is the child. Refuses the format of the matrix.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from distributed import Client, get_worker
from numpy.typing import NDArray

from index_build.child import child_arguments, run_child
from index_build.duplicates import Collapsed
from index_build.expanded import BLOCK_ROWS, Block, expanded_blocks
from index_build.index.search import BATCH, MEMORY_BYTES, ShardedIndex, open_index
from index_build.merge import merge_parts
from index_build.shards import use_threads
from nearfield.cluster import Task, run_tasks
from nearfield.errors import UsageError
from nearfield.manifest import fingerprint
from nearfield.neighbours import EMPTY, NeighbourTable, part_is_finished, read_part_rows, write_part
from nearfield.run import Run
from nearfield.space import Int32s

MODULE = "index_build.index.matrix"


def index_parts(index: ShardedIndex, run: Run, shards: int, client: Client) -> list[Path]:
    """Ask for every row, `shards` shards each; parts that are there are kept.

    Raises `ShardFailed`; what was finished stays.
    """
    mark = fingerprint(run=run.config.fingerprint, index=index.config.fingerprint, shards=shards)
    parts = [run.folder.resolve() / "parts" / f"{number:05d}.h5" for number in range(index.shards)]
    tasks = [
        Task(
            f"rows of shard {number:05d}",
            asked_part,
            (str(index.path.resolve()), number, str(part), mark, (run.config.k, shards)),
        )
        for number, part in enumerate(parts)
        if not part_is_finished(part, fingerprint=mark)
    ]
    run_tasks(client, "ask", tasks)
    return parts


def asked_part(
    index: str, number: int, part: str, mark: str, asked: tuple[int, int], *, threads: int
) -> str:
    """Task: the lists of the rows of one shard as a part file; returns its name."""
    given = {"index": index, "number": number, "part": part, "mark": mark, "memory": _share()}
    k, shards = asked
    run_child(
        MODULE,
        f"rows of shard {number}",
        given | {"k": k, "shards": shards, "threads": threads},
    )
    return part


def _share() -> int:
    """Bytes of libraries that a child of this worker may hold: half of the worker's, which counts
    none of its children's.
    """
    limit = get_worker().memory_manager.memory_limit
    return MEMORY_BYTES if limit is None else min(MEMORY_BYTES, limit // 2)


def index_blocks(index: ShardedIndex, parts: list[Path], run: Run) -> Iterator[Block]:
    """(first row, neighbours [m, k], distances [m, k]) of all rows, without gaps.

    Memory: a block; with equal vectors lists wait on the run's disk. Raises `DiskFull`.
    """
    k = run.config.columns
    return expanded_blocks(
        _collapsed(index.groups.members, index.groups.starts),
        _tables(index, parts, k),
        k,
        own_first=index.config.space != "ip",
        beside=run.path,
    )


def _tables(index: ShardedIndex, parts: list[Path], k: int) -> Iterator[NeighbourTable]:
    """The lists of the distinct vectors, block by block."""
    several = _several(index)
    for first in range(0, len(several), BLOCK_ROWS):
        rows = first, min(len(several), first + BLOCK_ROWS)
        found = (read_part_rows(part, *rows) for part in parts)
        table = merge_parts(found, *rows, _places(several, k))
        _check_full(table, several)
        yield table


def _several(index: ShardedIndex) -> NDArray[np.bool_]:
    """Which vectors stand in their own lists, bool [distinct]: by products, where equal ones aren't
    nearest, those of several rows.
    """
    sizes = np.diff(index.groups.starts)
    return (sizes > 1) & (index.config.space == "ip")


def _places(several: NDArray[np.bool_], k: int) -> int:
    """Vectors that are asked for with each."""
    return min(k, len(several) - 1 + int(several.any()))


def _check_full(table: NeighbourTable, several: NDArray[np.bool_]) -> None:
    # of all vectors, one that doesn't stand in its own list has a place less
    others = len(several) - 1 + several[table.rows]
    short = (table.neighbours != EMPTY).sum(axis=1) < np.minimum(table.k, others)
    if short.any():
        raise UsageError(
            f"{int(short.sum()):,} rows found fewer than {table.k} neighbours in the shards that"
            f" they asked (first: row {table.rows[int(np.argmax(short))]}): ask for more recall"
        )


def _collapsed(members: Int32s, starts: NDArray[np.int64]) -> Collapsed:
    group_of = np.empty(len(members), np.int32)
    group_of[members] = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    return Collapsed(members[starts[:-1]], group_of, members, starts)


def _ask(index: ShardedIndex, number: int, k: int, shards: int) -> NeighbourTable:
    rows, vectors = index.store.arrays(number)
    several = _several(index)
    left_out, places = np.where(several[rows], np.int32(EMPTY), rows), _places(several, k)
    near, far = [], []
    for first in range(0, len(rows), BATCH):
        part = slice(first, first + BATCH)
        found = index.lists(np.ascontiguousarray(vectors[part]), places, shards, left_out[part])
        near.append(found[0])
        far.append(found[1])
    return NeighbourTable(rows, np.concatenate(near), np.concatenate(far))


def main() -> None:
    """The child."""
    given = child_arguments()
    use_threads(given["threads"])
    index = open_index(Path(given["index"]), usual_bytes=given["memory"], threads=given["threads"])
    table = _ask(index, given["number"], given["k"], given["shards"])
    write_part(Path(given["part"]), table, fingerprint=given["mark"])


if __name__ == "__main__":
    main()
