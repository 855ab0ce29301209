"""The sharded index: build it, ask it for new vectors, make a matrix out of it."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dumps.matrix import write_matrix
from index_build.index import Found, IndexPlan, ShardedIndex
from index_build.index import build_index as build_it
from index_build.index import open_index as open_it
from index_build.index import plan_index as plan_it
from index_build.index.build import BuiltIndex, IndexOptions, configured
from index_build.index.layout import IndexConfig
from index_build.index.matrix import index_blocks, index_parts
from nearfield import ingest as reading
from nearfield.cluster import ClusterOptions, connected
from nearfield.errors import DamagedArtefact, InputRejected, MissingFile, UsageError
from nearfield.files import atomic_path
from nearfield.ingest.options import IngestOptions
from nearfield.lock import locked
from nearfield.machine import available_cores
from nearfield.run import Run, RunConfig, create_run, run_there
from nearfield.space import Float32s
from nearfield.vectorset import ID_COLUMN, VectorSet, open_vector_set, read_geometry

SEED = 0
PLAIN = (".npy", ".json", ".jsonl", ".csv", ".txt")
FORMATS = ("npy", "parquet")


@dataclass(frozen=True)
class QueryOptions:
    """How to ask: k, one of `shards`, `recall` and `exact`, and the most bytes of libraries in
    memory (None: 4 GiB, or the largest shard). scaled: numbers alone are vectors of the set
    already.
    """

    k: int = 10
    shards: int | None = None
    recall: float | None = None
    exact: bool = False
    memory_bytes: int | None = None
    scaled: bool = False


@dataclass(frozen=True)
class Answers:
    """names: of the q queries; ids: of what was found, [q][c], None where nothing was; `found`."""

    names: list[str]
    ids: list[list[str | int | None]]
    found: Found


def index(
    vectors: Path | str,
    out: Path | str,
    options: IndexOptions | None = None,
    *,
    cluster: ClusterOptions | None = None,
) -> BuiltIndex:
    """Build the sharded index `out` of a vector set, or resume it.

    Raises `UsageError`, `InputRejected`, `ShardFailed` (resumable), `DiskFull`, `RunLocked`.
    """
    vector_set = _whole(vectors)
    plan_it(vector_set, options or IndexOptions())
    with locked(Path(out)), connected(cluster or ClusterOptions()) as client:
        return build_it(vector_set, Path(out), options or IndexOptions(), client)


def plan_index(vectors: Path | str, options: IndexOptions | None = None) -> IndexPlan:
    """What `index` would make; writes nothing."""
    return plan_it(_whole(vectors), options or IndexOptions())


def open_index(path: Path | str, *, memory_bytes: int | None = None) -> ShardedIndex:
    """Open an index for searching; see `ShardedIndex.search`."""
    return open_it(Path(path), memory_bytes=memory_bytes)


def query_vectors(
    source: Path | str, index_path: Path | str, options: QueryOptions | None = None
) -> Answers:
    """Ask an index for the neighbours of each recording in a file.

    source: numbers alone, a row each, as the sources of the index' set have them (.npy [q, columns]
    or [columns], .json or .jsonl with a list a line, .csv, .txt), or tables and documents as they
    are ingested: all are brought to the scale of that set, unless the options say that numbers are.
    A vector set must have the same statistics. Raises `InputRejected`, `UsageError`, `MissingFile`,
    `DamagedArtefact`.
    """
    asked = options or QueryOptions()
    opened = open_index(index_path, memory_bytes=asked.memory_bytes)
    names, vectors = read_queries(Path(source), opened, scaled=asked.scaled)
    found = opened.search(
        vectors, asked.k, shards=asked.shards, recall=asked.recall, exact=asked.exact
    )
    return Answers(names, opened.ids(found.rows), found)


def read_queries(
    path: Path, opened: ShardedIndex, *, scaled: bool
) -> tuple[list[str], NDArray[Any]]:
    """Names and vectors [q, d] of the queries in a file; see `query_vectors`."""
    if not path.exists():
        raise MissingFile(f"expected vectors at {path}, found nothing")
    if path.suffix not in PLAIN or path.is_dir():
        return _ingested(path, opened, scaled=scaled)
    try:
        numbers = _plain(path)
    except (ValueError, TypeError, OverflowError, EOFError, RecursionError) as error:
        # a table with ids or a header, a document of a recording
        if path.suffix == ".csv" or isinstance(error, _DocumentError):
            return _ingested(path, opened, scaled=scaled)
        raise InputRejected(
            f"{path} can't be read as vectors ({error}): expected .npy, a list of numbers a line,"
            " or numbers with commas"
        ) from error
    if numbers.ndim == 1:
        numbers = numbers[None, :]
    names = [str(place) for place in range(len(numbers))]
    return names, numbers if scaled else opened.scaled(numbers)


def check_answers_file(out: Path) -> None:
    """Raise `UsageError` for a file that answers can't be written to."""
    if out.suffix not in tuple(f".{name}" for name in FORMATS):
        raise UsageError(f"expected --out to end in .npy or .parquet, got {out}")


def write_answers(answers: Answers, out: Path) -> None:
    """Write answers to `out`: .parquet (query, rank, recording_id, distance) or .npy.

    .npy: a structured array [q, c] of `row` int32 and `distance` float32.
    """
    check_answers_file(out)
    rows, distances = answers.found.rows, answers.found.distances
    with atomic_path(out) as temporary:
        if out.suffix == ".npy":
            both = np.empty(rows.shape, [("row", "<i4"), ("distance", "<f4")])
            both["row"], both["distance"] = rows, distances
            with temporary.open("wb") as stream:
                np.save(stream, both)
            return
        here = (rows >= 0).ravel()
        q, c = rows.shape
        table = pa.table(
            {
                "query": pa.array(np.repeat(answers.names, c)[here]),
                "rank": pa.array(np.tile(np.arange(1, c + 1, dtype=np.int32), q)[here]),
                ID_COLUMN: pa.array(
                    [one for line in answers.ids for one in line if one is not None]
                ),
                "distance": pa.array(distances.ravel()[here]),
            }
        )
        pq.write_table(table, temporary, compression="zstd")


def check_matrix_place(
    vectors: Path | str, index_path: Path, out: Path, options: IndexOptions, *, recall: float
) -> None:
    """Raise `UsageError` for what `matrix_from_index`, with the k of the index, would refuse once
    the index is built.
    """
    if not 0 < recall <= 1:
        raise UsageError(f"expected a recall above 0 and at most 1, got {recall}")
    if out.resolve() == index_path.resolve():
        raise UsageError(f"expected a directory of its own for the matrix, got {out} for both")
    vector_set = _whole(vectors)
    index, _ = configured(vector_set, options)
    there = run_there(out, _run_config(vector_set, index.method, k=options.k, recall=recall))
    if there is not None:
        _has_matrix(there, index)


def matrix_from_index(
    vectors: Path | str,
    index_path: Path | str,
    out: Path | str,
    *,
    k: int = 100,
    recall: float = 0.95,
    cluster: ClusterOptions | None = None,
) -> Run:
    """The matrix of a vector set by asking its index for every row; the run `out`, or resume it.

    Raises as `index` and `ShardedIndex.shards_for` do.
    """
    vector_set, opened = _whole(vectors), open_index(index_path)
    if opened.config.vectors_fingerprint != vector_set.fingerprint:
        raise UsageError(f"{index_path} is the index of another vector set than {vectors}")
    shards = opened.shards_for(recall, min(k, vector_set.n - 1))
    config = _run_config(vector_set, opened.config.method, k=k, recall=recall)
    with locked(Path(out)):
        run = create_run(Path(out), config)
        if not _has_matrix(run, opened.config):
            _write_matrix(run, vector_set, opened, shards, cluster or ClusterOptions())
        shutil.rmtree(run.folder / "parts", ignore_errors=True)
    return run


def _run_config(vector_set: VectorSet, method: str, *, k: int, recall: float) -> RunConfig:
    return RunConfig(
        vectors=str(vector_set.path.resolve()),
        vectors_fingerprint=vector_set.fingerprint,
        n=vector_set.n,
        d=vector_set.d,
        space=vector_set.geometry.space,
        k=k,
        recall=recall,
        method=f"index {method}",
        seed=SEED,
    )


def _has_matrix(run: Run, index: IndexConfig) -> bool:
    """Whether the run has the matrix of the index; raises `UsageError` for that of another."""
    try:
        made_of = run.finished_matrix().facts.get("index")
    except (MissingFile, DamagedArtefact):
        return False
    if made_of != index.fingerprint:
        raise UsageError(f"{run.path} holds the matrix of another index: choose another directory")
    return True


def _write_matrix(
    run: Run, vector_set: VectorSet, opened: ShardedIndex, shards: int, cluster: ClusterOptions
) -> None:
    with run.step("ask") as facts, connected(cluster) as client:
        facts |= {"shards": shards, "of": opened.shards}
        parts = index_parts(opened, run, shards, client)
    points = opened.facts["recall"]
    width = min(
        (int(it) for it in points if int(it) >= run.config.columns), default=max(map(int, points))
    )
    attributes: dict[str, Any] = {
        "method": opened.config.method,
        "index": opened.config.fingerprint,
        "method_reason": f"every row asked {shards} of {opened.shards} shards of an index",
        "recall_estimate": float(points[str(width)][str(shards)]),
        "parts": len(parts),
        "kept": 0,
    }
    with run.step("write matrix"):
        blocks = index_blocks(opened, parts, run)
        write_matrix(run, blocks, vector_set.id_stream, attributes=attributes)


def _whole(vectors: Path | str) -> VectorSet:
    vector_set = open_vector_set(Path(vectors))
    if len(vector_set.removed):
        raise UsageError(
            f"{vectors} has {len(vector_set.removed):,} removed recordings, which would be found."
            " First: nearfield compact VECTORS --out FRESH"
        )
    return vector_set


def _ingested(path: Path, opened: ShardedIndex, *, scaled: bool) -> tuple[list[str], Float32s]:
    """Raw recordings, by the statistics of the index' own set; a vector set must have the same."""
    geometry = read_geometry(opened.path)
    if (path / "space.json").is_file():
        there = open_vector_set(path)
        if there.geometry != geometry:
            raise InputRejected(
                f"{path} has another space or other statistics than the set of the index: its"
                " distances would mean nothing. Name the sources in its place"
            )
        return [str(name) for name in there.ids.to_pylist()], np.asarray(there.vectors)
    if scaled:
        raise UsageError(
            f"expected numbers alone with --scaled, got {path}: recordings are scaled as they are"
            " ingested. Leave it out"
        )
    with TemporaryDirectory(prefix="nearfield-query-") as folder:
        options = replace(IngestOptions(workers=available_cores()), base=geometry)
        reading.ingest([path], Path(folder) / "queries", options)
        made = open_vector_set(Path(folder) / "queries")
        return [str(name) for name in made.ids.to_pylist()], np.array(made.vectors)


def _plain(path: Path) -> NDArray[Any]:
    if path.suffix == ".npy":
        read = np.load(path, allow_pickle=False)
    elif path.suffix in (".json", ".jsonl"):
        text = path.read_text(encoding="utf-8").strip()
        read = _from_json(text)
    else:
        read = np.loadtxt(path, delimiter="," if "," in path.read_text() else None, ndmin=2)
    if not np.issubdtype(read.dtype, np.number) or np.iscomplexobj(read):
        raise ValueError(f"it holds {read.dtype}")
    return read


class _DocumentError(ValueError):
    """It describes a recording: `ingest` knows how."""


def _from_json(text: str) -> np.ndarray[Any, Any]:
    try:
        lists = json.loads(text)
    except json.JSONDecodeError:
        lists = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(lists, dict):
        raise _DocumentError("it holds an object")
    return np.array(lists, dtype=np.float64)
