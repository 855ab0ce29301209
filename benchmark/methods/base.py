"""The contract that a library fills to become a method.

    method = method_named("faiss-hnsw", {"links": 32})    a frozen dataclass: its build parameters
    index = method.build(vectors, "l2", threads=2, seed=0)
    rows = index.search(queries, k, effort)               int32 [q, k], -1 at the end
    names = index.save(folder)
    index = type(method).load(folder, threads=2, mapped=True)

Owns the gates that all methods share: what comes in is checked here, so a library's file holds
its parameters and its calls. Distances are never taken from a library: callers recompute
them (`nearfield.distances`). Vectors are prepared (`nearfield.space.prepared`), so under cosine the
order of Euclidean distances is the order of angles.
"""

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from nearfield.errors import DamagedArtefact, DiskFull, InputRejected, MissingFile, UsageError
from nearfield.files import write_bytes
from nearfield.libraries import Library, library_facts
from nearfield.manifest import fingerprint
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s, SpaceName, space_named
from nearfield.vectorset import check_finite

Workload = Literal["all", "queries"]
"""`all`: neighbours of every row. `queries`: neighbours of vectors that aren't in the index."""
FACTS = "index.json"
"""Written last by `Index.save`: method, parameters, space, n, d and the size of every file."""
NO_ROOM = 1 << 16
"""Bytes free, below which a failed save is put down to a full disk: libraries don't say."""


@dataclass(frozen=True)
class Asked:
    """What is asked of a method: k neighbours in a space at a recall, with threads and a seed."""

    k: int
    space: SpaceName
    recall: float
    threads: int
    seed: int


@dataclass(frozen=True)
class Holds:
    """What an index holds: n vectors of d dimensions, compared in a space."""

    space: SpaceName
    n: int
    d: int


@dataclass(frozen=True)
class Method(ABC):
    """A library with its build parameters, which are the fields of the subclass.

    A subclass is a frozen dataclass, every field has a default, and `msgspec.Meta` annotations
    bound it. Class attributes say what the library can do; the runner believes them.
    """

    name: ClassVar[str]
    library: ClassVar[str]
    """The module that it needs, imported when it is used."""
    spaces: ClassVar[frozenset[SpaceName]]
    effort: ClassVar[str]
    """What the search effort is, in the library's words; "" where there is nothing to tune."""
    workloads: ClassVar[frozenset[Workload]] = frozenset({"all", "queries"})
    exact: ClassVar[bool] = False
    """Promises the true neighbours, give or take float32 rounding."""
    adds: ClassVar[bool] = False
    """`Index.add` works; else more vectors need a new build."""
    maps: ClassVar[bool] = False
    """`load(mapped=True)` works: the bulk of the index stays on disk and is paged in."""
    concurrent: ClassVar[bool] = False
    """Several threads may search one index at once; else effort or buffers belong to the index."""
    compiles: ClassVar[bool] = False
    """Compiles itself when it is first used, for seconds or minutes: a process whose measured
    children are forks uses it once before. It may leave no threads but numba's.
    """
    warm_rows: ClassVar[int] = 500
    """On so many rows, some of them equal, it goes every way that it goes on any number."""
    install: ClassVar[str] = "pip install 'nearfield[bench]'"
    """What to do where the library is missing."""
    graphs: ClassVar[bool] = False
    """`all_neighbours` works: the library makes the lists of all rows without being queried."""

    def build(self, vectors: Float32s, space: SpaceName, *, threads: int, seed: int) -> "Index":
        """Index prepared vectors float32 [n >= 1, d], C order, finite.

        Raises `InputRejected` for other vectors or a space that the library lacks, `UsageError`
        where the library isn't installed or the method only makes graphs.
        """
        self._check(vectors, space, "queries")
        return self._build(vectors, space, threads=threads, seed=seed)

    def all_neighbours(
        self, vectors: Float32s, k: int, space: SpaceName, *, threads: int, seed: int
    ) -> Int32s:
        """Lists int32 [n, any] of all rows at once: unsorted, may hold the row itself and -1.

        For methods with `graphs`; raises as `build` does. k counts neighbours without the row.
        """
        self._check(vectors, space, "all")
        if not self.graphs:
            raise UsageError(f"{self.name} makes no graph by itself: build it and ask for all rows")
        return self._graph(vectors, min(k, len(vectors) - 1), space, threads=threads, seed=seed)

    @classmethod
    def load(cls, folder: Path, *, threads: int, mapped: bool = False) -> "Index":
        """The index that `Index.save` wrote; `mapped` leaves its bulk on disk.

        Compares names and sizes with `index.json`. That bytes are unchanged is the caller's to
        check: libraries answer wrongly, or end the process, on a changed file. Raises
        `MissingFile`, `DamagedArtefact`, and `UsageError` for another method's index, or `mapped`
        where the library can't.
        """
        cls.require()
        if mapped and not cls.maps:
            raise UsageError(f"{cls.name} can't map an index: load it whole")
        saved = _read_facts(folder)
        if saved["method"] != cls.name:
            raise UsageError(f"expected an index of {cls.name} in {folder}; got {saved['method']}")
        holds = Holds(space_named(saved["space"]), saved["n"], saved["d"])
        try:
            index = cls(**saved["parameters"])._load(folder, holds, threads=threads, mapped=mapped)
        except (RuntimeError, OSError, ValueError) as error:
            raise DamagedArtefact(
                f"{cls.name} can't load the index in {folder} ({error}): build it again"
            ) from error
        index.mapped = mapped
        return index

    @classmethod
    def unavailable(cls) -> str | None:
        """Why the method can't run here, as a sentence, or None. Imports nothing."""
        try:
            there = find_spec(cls.library) is not None
        except ImportError:
            there = False
        if there:
            return None
        return f"{cls.name} needs the module {cls.library}, which isn't installed: {cls.install}"

    @classmethod
    def require(cls) -> Any:
        """The library's module; raises `UsageError` where it is missing or broken."""
        if reason := cls.unavailable():
            raise UsageError(reason)
        try:
            return import_module(cls.library)
        except ImportError as error:
            raise UsageError(f"{cls.name}: the module {cls.library} is broken: {error}") from error

    @classmethod
    def built(cls) -> Library:
        """Version of the library, wheel or source, instructions. Asks a child process once."""
        return _library(cls.library.partition(".")[0])

    def bytes_per_row(self, d: int) -> float:
        """Bytes that a saved index of many vectors takes for each, roughly."""
        return 4 * d + 16

    @property
    def parameters(self) -> dict[str, Any]:
        """Build parameters by name."""
        return asdict(self)

    @property
    def fingerprint(self) -> str:
        """16 hex digits of name and parameters."""
        return fingerprint(method=self.name, **self.parameters)

    def __str__(self) -> str:
        inside = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.name}({inside})"

    def _check(self, vectors: Float32s, space: SpaceName, workload: Workload) -> None:
        if space not in self.spaces:
            raise InputRejected(
                f"{self.name} has no space {space}; it has {', '.join(sorted(self.spaces))}"
            )
        if workload not in self.workloads:
            raise UsageError(f"{self.name} can't be queried: it only makes the lists of all rows")
        self.require()
        check_finite(vectors)
        if not vectors.flags.c_contiguous:
            raise InputRejected("expected vectors in C order; got another: np.ascontiguousarray")

    def _build(self, vectors: Float32s, space: SpaceName, *, threads: int, seed: int) -> "Index":
        raise NotImplementedError

    def _graph(
        self, vectors: Float32s, k: int, space: SpaceName, *, threads: int, seed: int
    ) -> Int32s:
        raise NotImplementedError

    def _load(self, folder: Path, holds: Holds, *, threads: int, mapped: bool) -> "Index":
        raise NotImplementedError


class Index(ABC):
    """A built or loaded index. `native` is the library's object; one caller at a time, unless
    the method is `concurrent`."""

    def __init__(self, native: Any, method: Method, holds: Holds, threads: int) -> None:
        self.native, self.method, self.holds, self.threads = native, method, holds, threads
        self.mapped = False

    @abstractmethod
    def efforts(self, k: int) -> Sequence[int]:
        """Search efforts worth trying for k neighbours, cheapest first; the last is the most."""

    def search(self, queries: Float32s, k: int, effort: int) -> Int32s:
        """Rows int32 [q, k] of near vectors in any order, -1 at the end where fewer were found.

        queries: prepared, float32 [q, d], C order; raises `InputRejected` for others. With k > n
        the last k - n places are -1.
        """
        if (
            queries.ndim != 2
            or queries.shape[1] != self.holds.d
            or queries.dtype != np.float32
            or not queries.flags.c_contiguous
        ):
            raise InputRejected(
                f"expected queries float32 [q, {self.holds.d}] in C order; got {queries.dtype} "
                f"{list(queries.shape)}"
            )
        places = min(k, self.holds.n)
        if places == 0 or not len(queries):
            return np.full((len(queries), k), EMPTY, np.int32)
        found = self._search(queries, places, effort)
        if places == k:
            return found
        return np.pad(found, ((0, 0), (0, k - places)), constant_values=EMPTY)

    def add(self, vectors: Float32s) -> None:
        """Append prepared vectors float32 [m, d]; they become rows n to n + m - 1.

        Raises `UsageError` unless `Method.adds` or where the index is mapped, `InputRejected` for
        wrong vectors.
        """
        if not self.method.adds:
            raise UsageError(f"{self.method.name} can't add vectors to an index: build it again")
        if self.mapped:
            raise UsageError(f"{self.method.name} can't add to a mapped index: load it whole")
        check_finite(vectors)
        if vectors.shape[1] != self.holds.d:
            raise InputRejected(
                f"expected vectors of {self.holds.d} dimensions; got {vectors.shape[1]}"
            )
        self._add(np.ascontiguousarray(vectors))
        self.holds = replace(self.holds, n=self.holds.n + len(vectors))

    def save(self, folder: Path) -> tuple[str, ...]:
        """Write the index into an existing, empty folder; returns the names of its files.

        The folder is the caller's: give it its final name after fsync, with a manifest, so that
        it is whole or absent. Don't change the files afterwards: an index may go on reading them
        (Annoy does). Raises `DiskFull`.
        """
        try:
            names = self._save(folder)
        except Exception as error:
            if shutil.disk_usage(folder).free < NO_ROOM or "No space left" in str(error):
                raise DiskFull(
                    f"no room left for the index of {self.method.name} in {folder}: "
                    "free space there and save again"
                ) from error
            raise
        facts = {
            "method": self.method.name,
            "parameters": self.method.parameters,
            **asdict(self.holds),
            "files": {name: (folder / name).stat().st_size for name in names},
        }
        write_bytes(folder / FACTS, (json.dumps(facts, indent=2) + "\n").encode())
        return (*names, FACTS)

    @abstractmethod
    def _search(self, queries: Float32s, k: int, effort: int) -> Int32s:
        """As `search`, with 1 <= k <= n and at least one query."""

    @abstractmethod
    def _save(self, folder: Path) -> Sequence[str]:
        """Write the library's files; an error of the disk must raise."""

    def _add(self, vectors: Float32s) -> None:
        raise NotImplementedError


def ladder(k: int, factors: Sequence[float], *, least: int = 1) -> list[int]:
    """Efforts that grow with k: each factor times k + 1 (a row finds itself), at least `least`."""
    return sorted({max(least, int(factor * (k + 1))) for factor in factors})


def tie_aware_recall(found: Float32s, truth: Float32s) -> float:
    """Share of places whose distance is at most the k-th true one (1 + 1e-6); both [m, k], sorted.

    The k-th distance may be negative under `ip`: the margin is taken of its magnitude.
    """
    if truth.shape[1] == 0:
        return 1.0
    kth = truth[:, -1:].astype(np.float64)
    return float((found <= kth + 1e-6 * np.abs(kth)).mean())


def _read_facts(folder: Path) -> Mapping[str, Any]:
    path = folder / FACTS
    try:
        facts: dict[str, Any] = json.loads(path.read_bytes())
        sizes = dict(facts["files"])
    except FileNotFoundError as error:
        raise MissingFile(f"expected a saved index with {FACTS} in {folder}, found none") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedArtefact(f"{path} can't be read ({error}): build the index again") from error
    for name, size in sizes.items():
        there = (folder / name).stat().st_size if (folder / name).is_file() else None
        if there != size:
            raise DamagedArtefact(
                f"expected {folder / name} with {size:,} bytes; "
                f"{'it is missing' if there is None else f'got {there:,}'}: build the index again"
            )
    return facts


def marked(facts: Library, what: str, sources: Iterable[Path]) -> Library:
    """Facts of a library with 16 hex digits of our own code that is measured with it: figures of
    earlier code don't hold.
    """
    return replace(facts, built=f"{facts.built or ''} {what} {_code(tuple(sources))}".strip())


@lru_cache
def _code(sources: tuple[Path, ...]) -> str:
    return fingerprint(**{file.name: file.read_text(encoding="utf-8") for file in sources})


@lru_cache
def _library(name: str) -> Library:
    return library_facts((name,))[0]
