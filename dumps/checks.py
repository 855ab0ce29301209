"""What must hold for a matrix file without knowing the truth: layout, and every row's list.

Owns the faults that a list can have and how they are counted. Reads with plain h5py and numpy;
refuses recall, which needs the vectors.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import h5py
import numpy as np
from numpy.typing import NDArray

from nearfield.run import RunConfig

MATRIX_VERSION = 1


@dataclass
class Faults:
    """Rows with each kind of fault, counted, with the first of them."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, faulty: NDArray[np.bool_], rows: NDArray[np.integer]) -> None:
        """Count those of the rows [m] with the fault: flags [m], or [m, places] of which any."""
        found = rows[faulty.reshape(len(faulty), -1).any(axis=1)]
        if len(found):
            self.counts[kind] += len(found)
            self.first.setdefault(kind, int(found[0]))

    def problems(self) -> list[str]:
        """One sentence per kind."""
        return [
            f"{count:,} rows {kind} (first: row {self.first[kind]:,})"
            for kind, count in self.counts.items()
        ]


def layout_problems(file: h5py.File, config: RunConfig) -> Iterator[str]:
    """What is wrong with links, shapes, types, storage and attributes, before a value is read."""
    for name in file:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            yield f"{name} is a link to somewhere else: refused"
    lists, one_each = (config.n, config.columns), (config.n,)
    for name, shape, kinds in (
        ("neighbours", lists, ("int32",)),
        ("distances", lists, ("float32",)),
        ("recording_ids", one_each, ("int64", "text")),
    ):
        if isinstance(file.get(name, getlink=True), h5py.HardLink):
            yield from _dataset_problems(file[name], name, shape, kinds)
        else:
            yield f"there is no dataset {name} in the file itself"
    if "removed" in file:
        yield from _removed_problems(file, config)
    for name, value in _expected_attributes(config).items():
        if not np.array_equal(file.attrs.get(name), value):
            yield f"attribute {name} is {file.attrs.get(name)!r} where the run says {value!r}"


def _removed_problems(file: h5py.File, config: RunConfig) -> Iterator[str]:
    removed = file["removed"]
    if not isinstance(removed, h5py.Dataset) or removed.ndim != 1:
        yield "removed isn't a list of rows"
        return
    yield from _dataset_problems(removed, "removed", removed.shape, ("int32",))
    if removed.shape[0] > config.n:
        yield f"{removed.shape[0]:,} of {config.n:,} rows are said to be removed"


def _dataset_problems(
    dataset: h5py.Dataset, name: str, shape: tuple[int, ...], kinds: tuple[str, ...]
) -> Iterator[str]:
    if not isinstance(dataset, h5py.Dataset):
        yield f"{name} isn't a dataset"
    elif dataset.is_virtual or dataset.external:
        yield f"the values of {name} lie in other files: refused"
    elif dataset.shape != shape:
        yield f"{name} has shape {dataset.shape} where the run says {shape}"
    elif _kind(dataset) not in kinds:
        yield f"{name} holds {_kind(dataset)} instead of {' or '.join(kinds)}"
    elif dataset.chunks is not None:
        there = dataset.id.get_num_chunks()
        expected = math.prod(-(-a // b) for a, b in zip(shape, dataset.chunks, strict=True))
        if there != expected:
            yield f"{name} has holes: {there:,} of {expected:,} chunks were written"


def _kind(dataset: h5py.Dataset) -> str:
    return "text" if h5py.check_string_dtype(dataset.dtype) else dataset.dtype.name


def _expected_attributes(config: RunConfig) -> dict[str, int | str]:
    return {
        "format_version": MATRIX_VERSION,
        "n": config.n,
        "k": config.columns,
        "space": config.space,
        "run_fingerprint": config.fingerprint,
    }


def check_lists(
    faults: Faults,
    rows: NDArray[np.integer],
    neighbours: NDArray[np.int32],
    distances: NDArray[np.float32],
    config: RunConfig,
    removed: Callable[[NDArray[np.integer]], NDArray[np.bool_]],
) -> None:
    """Add the faults of the lists [m, k] of the rows [m]. Cost O(m k log k).

    removed: says which of some rows, of any shape, have no recording: they are nobody's neighbours,
    and have none themselves.
    """
    gone = removed(rows)[:, None]
    faults.add(
        "are removed and have neighbours",
        gone & ((neighbours != -1) | ~np.isposinf(distances)),
        rows,
    )
    inside = np.clip(neighbours, 0, config.n - 1)
    ordered = np.sort(neighbours, axis=1)
    near, far = distances[:, :-1], distances[:, 1:]
    tied_wrong = (near == far) & (neighbours[:, :-1] > neighbours[:, 1:])
    found = {
        "have an empty place": neighbours == -1,
        f"name a row outside 0..{config.n - 1}": (neighbours < -1) | (neighbours >= config.n),
        "name themselves": neighbours == rows[:, None],
        "name a removed recording": removed(inside) & (neighbours >= 0),
        "name a neighbour twice": (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0),
        "have a distance that isn't a finite number": ~np.isfinite(distances),
        "have a negative distance": (distances < 0) & (config.space != "ip"),
        "aren't sorted by (distance, neighbour)": (near > far) | tied_wrong,
    }
    for kind, faulty in found.items():
        faults.add(kind, faulty & ~gone, rows)


def countable(
    rows: NDArray[np.integer], neighbours: NDArray[np.int32], n: int
) -> NDArray[np.bool_]:
    """Places [m, k] that may count as found: in range, not the row itself, not named before."""
    usable = (neighbours >= 0) & (neighbours < n) & (neighbours != rows[:, None])
    order = np.argsort(neighbours, axis=1, kind="stable")
    ordered = np.take_along_axis(neighbours, order, axis=1)
    repeated = np.zeros(neighbours.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return usable & ~repeated
