"""What is searched and what is asked: base rows, held-out queries, rows to add, as mapped files.

    DATA/vectors.npy   float32 [base + reserve, d], prepared, in one seeded order: the first n rows
                       are the sample of size n, so samples nest; rows from `base` are held out
    DATA/queries.npy   float32 [q, d]: the first of the held-out rows, or the queries that an
                       ann-benchmarks file brings (which are the reserve, too)
    DATA/rows.npy      int64 [base]: which row of the source each base row is
    DATA/given.npy     int32 [q, columns]: nearest base rows of the queries, if the source has them
    DATA/manifest.json

Owns the split and the reading of each kind of source. Refuses to search.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearfield.errors import InputRejected, MissingFile, NearfieldError, UsageError
from nearfield.files import atomic_path, sha256_of
from nearfield.ingest import ingest
from nearfield.ingest.ann_benchmarks import read_matrix
from nearfield.ingest.options import IngestOptions
from nearfield.manifest import Manifest, fingerprint, read_manifest, write_manifest
from nearfield.space import Float32s, Int32s, SpaceName, prepared, space_named
from nearfield.vectorset import VectorSet, open_vector_set

KIND = "benchmark data"
QUERIES = 1_000
LEAST_ROWS = 3
BLOCK_ROWS = 65_536
HDF5_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True)
class Data:
    """The data of a benchmark, in the directory `path`; `base` of `whole` rows, `asked` queries.

    `vectors_fingerprint` is that of the vector set that was split.
    """

    path: Path
    fingerprint: str
    name: str
    space: SpaceName
    base: int
    whole: int
    d: int
    asked: int
    distinct: int
    vectors_fingerprint: str

    @property
    def vectors(self) -> Float32s:
        """Mapped float32 [base + reserve, d]."""
        return mapped(self.path / "vectors.npy")

    @property
    def queries(self) -> Float32s:
        """Mapped float32 [asked, d]."""
        return mapped(self.path / "queries.npy")

    @property
    def given(self) -> Int32s | None:
        """int32 [asked, columns]: nearest base rows of the queries as the source states them."""
        path = self.path / "given.npy"
        return mapped(path) if path.exists() else None


def prepare_data(source: Path, directory: Path, *, space: str | None, seed: int) -> Data:
    """Split `source` (vector set, ann-benchmarks HDF5, .npy or .npz) into `directory`, or open
    what is there already. `space` is for files; a vector set brings its own.

    Raises `UsageError` where it holds other vectors, `InputRejected` for fewer than 3 vectors or
    zero vectors under cosine, `MissingFile`, `DiskFull`. Cost: one copy of the vectors.
    """
    if not source.exists():
        raise MissingFile(
            f"expected a vector set, .npy or ann-benchmarks HDF5 file at {source}; there is nothing"
        )
    if source.is_dir():
        content, space = _named(source, space).fingerprint, None
    else:
        content = sha256_of(source)
    mark = fingerprint(content=content, space=space, seed=seed, queries=QUERIES, format=1)
    manifest = _manifest(directory)
    if manifest is not None and manifest.fingerprint != mark:
        raise UsageError(
            f"{directory.parent} holds the benchmark of other vectors ({manifest.facts['name']}, "
            "or another state of them): choose another --out, or remove that one"
        )
    if manifest is not None:
        return _opened(directory, manifest)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    opened = _vector_set(source, directory / "source", space)
    facts = _write_split(opened, source, directory, seed)
    shutil.rmtree(directory / "source", ignore_errors=True)
    manifest = write_manifest(
        directory / "manifest.json",
        kind=KIND,
        fingerprint=mark,
        format_version=1,
        files=sorted(path.name for path in directory.glob("*.npy")),
        facts={"name": dataset_name(source), **facts},
    )
    return _opened(directory, manifest)


def dataset_name(source: Path) -> str:
    """What the data is called: the name of the file or directory, without suffix."""
    resolved = source.resolve()
    return resolved.name if resolved.is_dir() else resolved.name.partition(".")[0]


def mapped(path: Path) -> NDArray[Any]:
    """A read-only map of an .npy file."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def is_prepared(directory: Path) -> bool:
    """Whether `prepare_data` finds data of some source there, and so writes nothing."""
    return _manifest(directory) is not None


def _manifest(directory: Path) -> Manifest | None:
    try:
        return read_manifest(directory / "manifest.json", kind=KIND)
    except NearfieldError:
        return None


def _named(source: Path, space: str | None) -> VectorSet:
    """A vector set, in whose own space alone it is measured."""
    opened = open_vector_set(source)
    if space is not None and space_named(space) != opened.geometry.space:
        raise InputRejected(
            f"expected the space of {source}, which is {opened.geometry.space}; got {space}. "
            "A vector set's space is decided when it is made"
        )
    return opened


def _opened(directory: Path, manifest: Manifest) -> Data:
    return Data(directory, manifest.fingerprint, **manifest.facts)


def _vector_set(source: Path, work: Path, space: str | None) -> VectorSet:
    if not source.is_dir():
        ingest([source], work, IngestOptions(space=space))
        return open_vector_set(work, verify=False)
    return open_vector_set(source, verify=False)


def _write_split(opened: VectorSet, source: Path, directory: Path, seed: int) -> dict[str, Any]:
    if opened.n < LEAST_ROWS:
        raise InputRejected(
            f"a benchmark needs at least {LEAST_ROWS} vectors; {source} has {opened.n}"
        )
    space = opened.geometry.space
    order = np.random.default_rng(seed).permutation(opened.n)
    brought = read_matrix(source, "test", QUERIES) if source.suffix in HDF5_SUFFIXES else None
    if brought is None:
        base = opened.n - max(_held_out(opened.n), -(-opened.n // 100))
        queries = prepared(opened.vectors[order[base:][: _held_out(opened.n)]], space)
        reserve = queries[:0]
    else:
        base = opened.n
        reserve = queries = _checked_queries(brought, opened, source)
    _save_rows(directory / "vectors.npy", _blocks(opened, order, reserve), opened.n + len(reserve))
    _save(directory / "queries.npy", queries)
    _save(directory / "rows.npy", order[:base])
    if brought is not None:
        _save_given(directory, source, opened, order)
    return {
        "space": space,
        "base": base,
        "whole": opened.n,
        "d": opened.d,
        "asked": len(queries),
        "distinct": _distinct(mapped(directory / "vectors.npy")[:base]),
        "vectors_fingerprint": opened.fingerprint,
    }


def _held_out(n: int) -> int:
    return min(QUERIES, max(1, n // 10))


def _checked_queries(brought: NDArray[Any], opened: VectorSet, source: Path) -> Float32s:
    queries = brought.astype(np.float32)
    if queries.shape[1] != opened.d or not np.isfinite(queries).all():
        raise InputRejected(
            f"expected test queries of {opened.d} finite numbers in {source}, as its train rows "
            f"have; got {queries.shape[1]}, or a NaN"
        )
    return prepared(queries, opened.geometry.space)


def _save_given(directory: Path, source: Path, opened: VectorSet, order: NDArray[Any]) -> None:
    """Keep the stated neighbours unless rows were rejected, which they may name."""
    stated = read_matrix(source, "neighbors", QUERIES)
    if stated is None or sum(opened.manifest.facts.get("rejected", {}).values()):
        return
    queries = len(mapped(directory / "queries.npy"))
    if stated.dtype.kind not in "iu" or len(stated) != queries:
        raise InputRejected(
            f"expected whole numbers for each of the {queries:,} test queries in neighbors of "
            f"{source}; found {stated.dtype} for {len(stated):,}. Remove `neighbors` from it, then "
            "they are computed"
        )
    if stated.min() < 0 or stated.max() >= opened.n:
        raise InputRejected(f"neighbors in {source} name rows beyond its {opened.n} train rows")
    place = np.empty(opened.n, np.int32)
    place[order] = np.arange(opened.n, dtype=np.int32)
    _save(directory / "given.npy", place[stated.astype(np.int64)])


def _blocks(opened: VectorSet, order: NDArray[Any], reserve: Float32s) -> Iterator[Float32s]:
    for start in range(0, len(order), BLOCK_ROWS):
        yield prepared(opened.vectors[order[start : start + BLOCK_ROWS]], opened.geometry.space)
    yield reserve


def _distinct(vectors: Float32s) -> int:
    """Different rows, counted by a 64-bit hash of each. Cost O(n d)."""
    random = np.random.default_rng(0)
    factors = random.integers(1, 2**63, vectors.shape[1], dtype=np.uint64) | np.uint64(1)
    hashes = [
        (vectors[start : start + BLOCK_ROWS].view(np.uint32) * factors).sum(axis=1, dtype=np.uint64)
        for start in range(0, len(vectors), BLOCK_ROWS)
    ]
    return len(np.unique(np.concatenate(hashes)))


def _save(path: Path, values: NDArray[Any]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.ascontiguousarray(values))


def _save_rows(path: Path, blocks: Iterator[Float32s], rows: int) -> None:
    first = next(blocks)
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, first.shape[1])}
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for block in (first, *blocks):
            stream.write(np.ascontiguousarray(block, "<f4").data)
