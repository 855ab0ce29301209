"""How many ids come more than once, among more of them than fit in memory.

Owns the search: by keyed 64-bit hashes, which are sorted in parts and lie on the disk until then.
Equal hashes are a suspicion only; while there are few, the ids themselves are compared.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from tempfile import TemporaryFile

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

PART_IDS, MOST_PARTS = 1 << 20, 256
"""Hashes that are sorted at once, 8 MiB; more where their files would become too many."""
FEW = 10_000
"""Of so many equal hashes all can't be coincidence, unless there are billions of ids."""

Batches = Callable[[], Iterator[pa.StringArray]]


def repeated_ids(batches: Batches, count: int) -> int:
    """Of `count` ids, none null, those that an earlier one equals; `batches` reads all of them.

    Memory: a part, 64 MiB for as many ids as there can be rows. Disk: 8 bytes an id.
    """
    parts = max(1, min(MOST_PARTS, -(-count // PART_IDS)))
    with ExitStack() as stack:
        files = [stack.enter_context(TemporaryFile()) for _ in range(parts)]
        for batch in batches():
            hashes = _hashes(batch)
            for part, file in enumerate(files):
                file.write(hashes[hashes % np.uint64(parts) == part].tobytes())
        suspects = []
        for file in files:
            file.seek(0)
            values = np.fromfile(file, np.uint64)
            values.sort()
            suspects.append(values[1:][values[1:] == values[:-1]])
    found = np.concatenate(suspects)
    return _compared(batches, np.unique(found)) if 0 < len(found) <= FEW else len(found)


def _compared(batches: Batches, suspects: NDArray[np.uint64]) -> int:
    seen: set[str] = set()
    count = 0
    for batch in batches():
        chosen = batch.filter(pa.array(np.isin(_hashes(batch), suspects))).to_pylist()
        count += len(chosen)
        seen.update(chosen)
    return count - len(seen)


def _hashes(ids: pa.StringArray) -> NDArray[np.uint64]:
    """Python's own hashes: their key is of this process, so that nobody can aim at them."""
    return np.fromiter(map(hash, ids.to_pylist()), np.int64, len(ids)).view(np.uint64)
