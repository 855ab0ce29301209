"""Verification: is the matrix of a run what it says, and as good as was asked?

Owns the verdict and its report, RUN/verification.json. Shares no code with the builder or with
the writer of the matrix: it opens the files with h5py, numpy and pyarrow, and searches by itself.
Refuses to repair anything.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dumps.checks import Faults, check_lists, countable, layout_problems
from dumps.guard import unreadable
from dumps.labels import LabelShares
from dumps.recall import Recall, measured, recall_of, true_kth
from nearfield.errors import DamagedArtefact, MissingFile, UsageError
from nearfield.files import sha256_of, write_bytes
from nearfield.manifest import fingerprint
from nearfield.progress import progress
from nearfield.run import Run, RunConfig
from nearfield.space import Float32s, Int32s

BLOCK_PLACES = 4 << 20
"""Places of the matrix that are held at once: 32 MiB of lists."""
ID_ROWS, READ_BYTES = 65_536, 1 << 20
VECTOR_FILES = ("vectors.npy", "recordings.parquet", "space.json")
REMOVED_FILE = "removed.npy"
NOTHING = Recall(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Verification:
    """What was found. `passed` means: no `problems`, and so a recall of at least `asked`.

    recall: mean over `sample` rows (0 when nothing could be compared: `sample` is 0 then), with a
    95% interval. label_shares: per label column, `share` of the first 10 neighbours with the same
    label, the same by `chance`, and the number of `values`.
    """

    passed: bool
    problems: tuple[str, ...]
    recall: float
    recall_low: float
    recall_high: float
    asked: float
    sample: int
    seed: int
    matrix_sha256: str
    run_fingerprint: str
    k: int
    n: int
    label_shares: Mapping[str, Mapping[str, Any]]
    seconds: float
    checked_rows: int

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-representable values."""
        return asdict(self)


def verify_run(
    run: Run, *, sample: int = 1000, seed: int = 0, recall: float | None = None
) -> Verification:
    """Check the matrix of `run` and write the report to RUN/verification.json.

    All rows: layout, holes, range, self, duplicates, order, ids. A random `sample` of rows (seeded,
    without repeats): distances by the definition, and recall against exact search, at least
    `recall` (default: what the build was asked for). Problems are reported, not raised.

    Raises `MissingFile` without a matrix or vector set and `UsageError` for nonsense. Cost: one
    read of all files, O(sample n d) for the search; memory one block, n bytes, 4 n per label.
    """
    started = time.monotonic()
    asked = run.config.recall if recall is None else recall
    if sample < 1 or not 0 < asked <= 1:
        raise UsageError(f"expected sample >= 1 and recall in 0..1, got {sample} and {asked}")
    checker = _Checker(run, sample, seed)
    checker.check(asked)
    report = Verification(
        passed=not checker.problems,
        problems=tuple(checker.problems),
        recall=checker.recall.mean,
        recall_low=checker.recall.low,
        recall_high=checker.recall.high,
        asked=asked,
        sample=checker.compared,
        seed=seed,
        matrix_sha256=checker.sha256,
        run_fingerprint=run.config.fingerprint,
        k=run.config.columns,
        n=run.config.n,
        label_shares=checker.label_shares,
        seconds=round(time.monotonic() - started, 3),
        checked_rows=checker.checked_rows,
    )
    write_bytes(run.verification, (json.dumps(report.to_json(), indent=2) + "\n").encode())
    return report


class _Checker:
    """Goes through the checks in order; each adds to `problems`."""

    def __init__(self, run: Run, sample: int, seed: int) -> None:
        self.run, self.config = run, run.config
        self.removed = _removed_rows(Path(run.config.vectors), run.config.n)
        live = np.flatnonzero(~self.removed)
        rng = np.random.default_rng(seed)
        self.rows = live[np.sort(rng.choice(len(live), min(sample, len(live)), replace=False))]
        self.problems: list[str] = []
        self.label_shares: Mapping[str, Mapping[str, Any]] = {}
        self.recall, self.compared, self.checked_rows = NOTHING, 0, 0
        self.sha256 = ""

    def check(self, asked: float) -> None:
        run = self.run
        vector_set = Path(self.config.vectors)
        same_vectors = self._check_vector_set(vector_set)
        # one changed byte can send HDF5 into an endless loop: a damaged file isn't opened, and a
        # file that was forged together with its manifest is read by a child first
        if not self._check_manifest():
            return
        refused = unreadable(run.matrix)
        if refused:
            self.problems.append(refused)
            return
        try:
            with h5py.File(run.matrix, "r") as file:
                wrong = list(layout_problems(file, self.config))
                self.problems += wrong
                if wrong:
                    return
                chosen = self._check_rows(file, vector_set if same_vectors else None)
        except (OSError, RuntimeError, KeyError, ValueError) as error:  # as h5py puts HDF5's errors
            self.problems.append(f"{run.matrix.name} can't be read: {error}")
            return
        if same_vectors:
            self._check_sample(chosen, vector_set, asked)

    def _check_manifest(self) -> bool:
        """Whether the file is as it was written, by this run."""
        matrix = self.run.matrix
        if matrix.is_file():
            self.sha256 = sha256_of(matrix)
        try:
            manifest = self.run.finished_matrix(verify=False)
        except DamagedArtefact as error:
            self.problems.append(str(error))
            return False
        entry = manifest.files.get(matrix.name)
        if entry is None or entry.sha256 != self.sha256:
            self.problems.append(f"{matrix.name} doesn't match its manifest's checksum")
        elif manifest.fingerprint != self.config.fingerprint:
            self.problems.append(
                f"the matrix was made by run {manifest.fingerprint}, not {self.config.fingerprint}"
            )
        return entry is not None and entry.sha256 == self.sha256

    def _check_vector_set(self, path: Path) -> bool:
        if not path.is_dir():
            raise MissingFile(
                f"expected the vector set of this run at {path}, found none, and the recall can't "
                "be measured without it: put it back, or say where it is now by running the "
                "build again: nearfield build VECTORS --out RUN (which keeps what is finished)"
            )
        try:
            names = [*VECTOR_FILES, *([REMOVED_FILE] if (path / REMOVED_FILE).exists() else [])]
            found = fingerprint(**{name: sha256_of(path / name) for name in names})
        except FileNotFoundError as error:
            raise MissingFile(f"the vector set {path} lacks {error.filename}") from error
        if found != self.config.vectors_fingerprint:
            self.problems.append(
                f"the vector set {path} isn't the one that the run was made from (fingerprint "
                f"{found} instead of {self.config.vectors_fingerprint}): recall wasn't measured"
            )
        return found == self.config.vectors_fingerprint

    def _check_rows(self, file: h5py.File, vector_set: Path | None) -> "_Sample":
        """Check every row; returns the lists of the sampled ones."""
        config, faults, sample = self.config, Faults(), _Sample(self.rows, self.config.columns)
        recordings = vector_set / "recordings.parquet" if vector_set else None
        labels = LabelShares(recordings, self.removed) if recordings else None
        there = file["removed"][:] if "removed" in file else np.empty(0, np.int32)
        if recordings and not np.array_equal(there, np.flatnonzero(self.removed)):
            self.problems.append(
                f"{len(there):,} rows of the matrix are removed where the vector set says"
                f" {int(self.removed.sum()):,}"
            )
        with progress("check rows", config.n, "rows") as advance:
            for start, neighbours, distances in _blocks(file, config):
                rows = np.arange(start, start + len(neighbours))
                check_lists(faults, rows, neighbours, distances, config, self.removed.__getitem__)
                sample.take(start, neighbours, distances)
                if labels:
                    labels.count(start, np.clip(neighbours, 0, config.n - 1))
                self.checked_rows += len(neighbours)
                advance(len(neighbours))
        if recordings:
            _check_ids(faults, file["recording_ids"], recordings)
        self.problems += faults.problems()
        self.label_shares = labels.result() if labels else {}
        return sample

    def _check_sample(self, sample: "_Sample", vector_set: Path, asked: float) -> None:
        """Compare the sampled lists with the definition of distance and with exact search."""
        config, rows = self.config, self.rows
        vectors = np.load(vector_set / "vectors.npy", mmap_mode="r", allow_pickle=False)
        usable = countable(rows, sample.neighbours, config.n)
        true = measured(rows, np.where(usable, sample.neighbours, 0), vectors, config.space)
        wrong = Faults()
        right = np.abs(sample.distances - true.distances) <= true.slack
        wrong.add("of the sample have a distance that isn't the true one", usable & ~right, rows)
        self.problems += wrong.problems()
        kth = true_kth(rows, vectors, config.columns, config.space, self.removed)
        found = usable & (true.distances - true.slack <= kth[:, None])
        left = config.n - int(self.removed.sum())
        self.recall, self.compared = recall_of(found, left), len(rows)
        if self.recall.mean < asked:
            self.problems.append(
                f"recall {self.recall.mean:.4f} ({self.recall.low:.4f} to {self.recall.high:.4f}) "
                f"on {len(rows):,} rows is below the {asked} that was asked for"
            )


def _removed_rows(vector_set: Path, n: int) -> NDArray[np.bool_]:
    """Rows without a recording, bool [n], as the vector set lists them."""
    out = np.zeros(n, bool)
    path = vector_set / REMOVED_FILE
    if path.is_file():
        rows = np.load(path, allow_pickle=False)
        if rows.dtype != np.int32 or rows.ndim != 1 or ((rows < 0) | (rows >= n)).any():
            raise DamagedArtefact(f"{path} isn't a list of rows in 0..{n - 1:,}: it was changed")
        out[rows] = True
    return out


class _Sample:
    """Collects the lists of chosen rows as blocks of the matrix pass by."""

    def __init__(self, rows: NDArray[np.int64], k: int) -> None:
        self.rows = rows
        self.neighbours = np.empty((len(rows), k), np.int32)
        self.distances = np.empty((len(rows), k), np.float32)

    def take(self, start: int, neighbours: Int32s, distances: Float32s) -> None:
        inside = slice(*np.searchsorted(self.rows, (start, start + len(neighbours))))
        local = self.rows[inside] - start
        self.neighbours[inside], self.distances[inside] = neighbours[local], distances[local]


def _check_ids(faults: Faults, dataset: h5py.Dataset, recordings: Path) -> None:
    """Compare the matrix' ids with those of the vector set, some at a time."""
    first = 0
    # what Arrow reads ahead it keeps until the whole file is read; unbuffered it reads row groups
    file = pq.ParquetFile(recordings, pre_buffer=False, buffer_size=READ_BYTES)
    for batch in file.iter_batches(ID_ROWS, columns=["recording_id"]):
        ids = batch.column(0)
        rows = np.arange(first, first + len(ids))
        # bytes, since that is how h5py gives text: whatever is in the file can be compared
        known = ids if pa.types.is_integer(ids.type) else ids.cast(pa.large_binary())
        found = dataset[first : first + len(ids)]
        wrong = np.asarray(found != known.to_numpy(zero_copy_only=False), dtype=bool)
        faults.add("have another recording id than in the vector set", wrong, rows)
        first += len(ids)


def _blocks(file: h5py.File, config: RunConfig) -> Iterator[tuple[int, Int32s, Float32s]]:
    rows = max(1, BLOCK_PLACES // config.columns)
    for start in range(0, config.n, rows):
        yield (
            start,
            file["neighbours"][start : start + rows],
            file["distances"][start : start + rows],
        )
