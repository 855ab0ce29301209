"""Data sets in the HDF5 layout of ann-benchmarks: dataset `train`, attribute `distance`.

Owns the reading of such a file, which may come from anywhere: what it names outside itself, what it
declares but doesn't hold, and distances that nearfield doesn't know are refused.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from nearfield.errors import InputRejected
from nearfield.ingest.arrays import LoadedArray, gather_loaded, require_matrix
from nearfield.ingest.options import Gathered, IngestOptions
from nearfield.ingest.raw import BLOCK_BYTES
from nearfield.ingest.rejects import RejectLog
from nearfield.space import SpaceName

DATASET = "train"
SPACES: dict[str, SpaceName] = {
    "euclidean": "l2",
    "angular": "cosine",
    "cosine": "cosine",
    "ip": "ip",
    "dot": "ip",
}


def gather_ann_benchmarks(
    sources: Sequence[Path], options: IngestOptions, work: Path, rejects: RejectLog
) -> Gathered:
    """The `train` vectors of the files, one after the other; the space is the first file's.

    A space among the options wins over the file's; a file without the attribute is l2. Raises
    `InputRejected`. Cost: one copy of the vectors into the directory `work`.
    """
    loaded = [LoadedArray(path, _copied(path, work / f"{i}.npy")) for i, path in enumerate(sources)]
    spaces = {_space(path) for path in sources}
    if len(spaces) > 1:
        raise InputRejected(f"expected files of one distance, got {', '.join(sorted(spaces))}")
    return gather_loaded(loaded, options, work, rejects, space=spaces.pop())


def _space(path: Path) -> SpaceName:
    with _opened(path) as file:
        distance = file.attrs.get("distance", "euclidean")
    distance = distance.decode() if isinstance(distance, bytes) else str(distance)
    if distance not in SPACES:
        raise InputRejected(
            f"{path} is meant for the distance {distance!r}, which has no space here; known:"
            f" {', '.join(SPACES)}"
        )
    return SPACES[distance]


def _copied(path: Path, target: Path) -> NDArray[Any]:
    """A memory map of the vectors, copied out of HDF5 block by block."""
    _space(path)
    with _opened(path) as file:
        dataset = _checked_dataset(file, path)
        with target.open("wb") as stream:
            header = {"descr": dataset.dtype.newbyteorder("<").str, "fortran_order": False}
            np.lib.format.write_array_header_1_0(stream, {**header, "shape": dataset.shape})
            step = max(1, BLOCK_BYTES // (dataset.dtype.itemsize * dataset.shape[1]))
            for start in range(0, len(dataset), step):
                block = _read(dataset, slice(start, start + step), path)
                stream.write(block.astype(block.dtype.newbyteorder("<")).data)
    return np.load(target, mmap_mode="r", allow_pickle=False)


def _read(dataset: Any, rows: slice, path: Path) -> NDArray[Any]:
    try:
        return dataset[rows]
    except OSError as error:
        raise InputRejected(f"{path} is damaged at rows {rows.start}...: {error}") from error


def read_matrix(path: Path, name: str, rows: int) -> NDArray[Any] | None:
    """The first `rows` rows of another matrix [m, c] of such a file (`test`, `neighbors`).

    None where the file has none of that name; refused for the same reasons as `train`.
    """
    with _opened(path) as file:
        if name not in file:
            return None
        return _read(_checked_dataset(file, path, name), slice(0, rows), path)


def _checked_dataset(file: Any, path: Path, name: str = DATASET) -> Any:
    link = file.get(name, getlink=True)
    if link is None:
        raise InputRejected(
            f"expected a dataset {name!r} in {path}, as ann-benchmarks has it; found"
            f" {', '.join(file) or 'nothing'}"
        )
    if not isinstance(link, h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
        raise InputRejected(f"{name!r} in {path} isn't a dataset of the file itself")
    dataset = file[name]
    if dataset.external or dataset.is_virtual:
        raise InputRejected(f"{name!r} in {path} keeps its data in other files: not followed")
    require_matrix(dataset.dtype, dataset.shape, f"{path} ({name})")
    if not _is_filled(dataset):
        raise InputRejected(
            f"{name!r} in {path} declares {dataset.shape} but the file doesn't hold all of it:"
            " it was never finished. Fetch it again"
        )
    return dataset


def _is_filled(dataset: Any) -> bool:
    """Whether every number is in the file, so that none is a fill value."""
    if dataset.chunks is None:
        return bool(dataset.id.get_storage_size() >= dataset.nbytes)
    chunks = [-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    return bool(dataset.id.get_num_chunks() == int(np.prod(chunks)))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputRejected(f"{path} can't be read as HDF5 ({error}): fetch it again") from error
    with file:
        yield file
