"""What must hold inside a dump: every list sound, and all formats equal to the bit.

Owns the comparison, a block of rows at a time. Each format is read by dumps/dump/readers.py, whose
code shares nothing with the writers.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dumps.checks import Faults, check_lists
from dumps.dump.known import KnownIds
from dumps.dump.readers import (
    Block,
    flat_pairs,
    lists_of,
    read_recordings,
    recordings_of,
    sample_of,
)
from dumps.dump.repeated import repeated_ids
from nearfield.errors import InputRejected
from nearfield.progress import progress
from nearfield.run import RunConfig

PLACES, MOST_ROWS = 1 << 20, 1 << 16
"""A block of lists has as many places and rows as these at most."""
RECORDINGS = "recordings.parquet"
LISTS = ("matrix.h5", "matrix.parquet", "matrix.csv.zst")
FLAT = "matrix-flat.parquet"
SAMPLE = "sample.parquet"
Problem = (
    *(OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, MemoryError),
    *(OverflowError, pa.ArrowException),
)
"""What libraries raise over files that aren't what they seem."""


def content_problems(path: Path, provenance: Mapping[str, Any]) -> tuple[int, int, list[str]]:
    """Recordings, k, and a sentence per fault inside the files of the dump at `path`."""
    try:
        config = RunConfig(vectors="", **provenance["run"])
        if not (type(config.n) is type(config.k) is int and 2 <= config.n < 2**31 and config.k > 0):
            raise ValueError(f"n is {config.n!r}, k is {config.k!r}")
    except (*Problem, AttributeError) as error:
        return 0, 0, [f"provenance.json doesn't describe a run ({error})"]
    comparison = _Comparison(path, config)
    try:
        comparison.run()
    except (*Problem, InputRejected) as error:
        comparison.problems.append(f"{comparison.reading} can't be read: {error}")
    return comparison.count, config.columns, [*comparison.problems, *comparison.counted()]


class _Comparison:
    """Reads all formats side by side; `reading` is the file that is being read."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path, self.config = path, config
        self.step = max(1, min(MOST_ROWS, PLACES // config.columns))
        self.count = 0
        self.problems: list[str] = []
        self.faults = Faults()
        self.differ: Counter[str] = Counter()
        self.first: dict[str, int] = {}
        self.reading = RECORDINGS

    def run(self) -> None:
        """Compare everything; raises what the file being `reading` makes its library raise."""
        with KnownIds(self.config.n) as known:
            self.problems = read_recordings(self.path, self.config, self.step, known)
            self._compare(known)

    def _compare(self, known: KnownIds) -> None:
        self.count = known.count
        self._check_unique()
        self.reading = SAMPLE
        sample = sample_of(self.path / SAMPLE, self.config, known)
        there = [name for name in LISTS if (self.path / name).exists()]
        readers = {name: lists_of(self.path / name, self.config, self.step) for name in there}
        with progress("contents", self.count, "recordings") as advance:
            for rows, ids in recordings_of(self.path, self.step):
                blocks = {name: self._next(name, reader) for name, reader in readers.items()}
                self._compare_block(blocks, rows, ids)
                self._check_lists(blocks[there[0]], known)
                self._compare_sample(sample, blocks[there[0]])
                advance(len(blocks[there[0]].rows))
        for name, reader in readers.items():
            self._ends(name, reader)
        if (self.path / FLAT).exists():
            self._check_flat(known, there[0])

    def counted(self) -> Iterator[str]:
        """A sentence per kind of fault in the lists, and per file that differs."""
        yield from (f"the lists: {text}" for text in self.faults.problems())
        for text, count in self.differ.items():
            yield f"{text}: {count:,} recordings (first: row {self.first[text]:,})"

    def _next(self, name: str, reader: Iterator[Block]) -> Block:
        self.reading = name
        block = next(reader, None)
        if block is None:
            raise InputRejected(f"it ends before the {self.count:,} recordings do")
        return block

    def _ends(self, name: str, reader: Iterator[Block]) -> None:
        self.reading = name
        if next(reader, None) is not None:
            self.problems.append(f"{name} has more than {self.count:,} recordings")

    def _check_unique(self) -> None:
        def ids() -> Iterator[pa.StringArray]:
            return (ids for _, ids in recordings_of(self.path, self.step))

        repeated = repeated_ids(ids, self.count)
        if repeated:
            self.problems.append(f"{RECORDINGS}: {repeated:,} recording ids come more than once")

    def _compare_block(
        self, blocks: Mapping[str, Block], rows: NDArray[np.int32], ids: pa.StringArray
    ) -> None:
        for name, block in blocks.items():
            self.reading = name
            if not np.array_equal(block.rows, rows):
                raise InputRejected(f"it has other rows than {RECORDINGS} from {rows[0]:,} on")
            wrong = pc.fill_null(pc.not_equal(block.ids, ids), True)
            text = f"{name} has other recording ids than {RECORDINGS}"
            self._differ(text, rows, wrong.to_numpy(zero_copy_only=False))
        (name, one), *others = blocks.items()
        for other, block in others:
            wrong = (block.neighbours != one.neighbours).any(axis=1)
            self._differ(f"{other} has other neighbours than {name}", rows, wrong)
            self._differ(f"{other} has other distances than {name}", rows, _bits_differ(block, one))

    def _check_lists(self, one: Block, known: KnownIds) -> None:
        config, removed = self.config, known.removed
        check_lists(self.faults, one.rows, one.neighbours, one.distances, config, removed)

    def _differ(self, text: str, rows: NDArray[np.int32], wrong: NDArray[np.bool_]) -> None:
        found = rows[wrong]
        if len(found):
            self.differ[text] += len(found)
            self.first.setdefault(text, int(found[0]))

    def _compare_sample(self, sample: Block, one: Block) -> None:
        start, stop = np.searchsorted(sample.rows, (one.rows[0], one.rows[-1] + 1))
        chosen = np.searchsorted(one.rows, sample.rows[start:stop])
        wrong = (sample.neighbours[start:stop] != one.neighbours[chosen]).any(axis=1)
        own, same = sample.distances[start:stop], one.distances[chosen]
        wrong |= (own.view(np.uint32) != same.view(np.uint32)).any(axis=1)
        self._differ(f"{SAMPLE} has other lists than the matrix", sample.rows[start:stop], wrong)

    def _check_flat(self, known: KnownIds, other: str) -> None:
        k = self.config.columns
        lists = lists_of(self.path / other, self.config, self.step)
        pairs = flat_pairs(self.path / FLAT, self.config, self.step)
        for _ in range(0, self.count, self.step):
            one, flat = self._next(other, lists), self._next(FLAT, pairs)
            if len(flat.neighbours) != len(one.rows):
                raise InputRejected(f"it doesn't have {k} pairs for each recording")
            own, expected = known.at(np.repeat(one.rows, k)), known.at(one.neighbours)
            same = pc.and_(pc.equal(flat.ids[0], own), pc.equal(flat.ids[1], expected))
            flags = pc.fill_null(same, False).to_numpy(zero_copy_only=False)
            wrong = ~flags.reshape(-1, k).all(axis=1) | _bits_differ(flat, one)
            wrong |= (flat.neighbours != np.arange(1, k + 1)).any(axis=1)
            self._differ(f"{FLAT} has other pairs than {other}", one.rows, wrong)
        self._ends(FLAT, pairs)


def _bits_differ(block: Block, one: Block) -> NDArray[np.bool_]:
    return (block.distances.view(np.uint32) != one.distances.view(np.uint32)).any(axis=1)
