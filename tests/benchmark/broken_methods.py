"""Methods that fail as libraries do, named by import path as a user's own would be."""

import os
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmark.methods.base import Holds, Index, Method


@dataclass(frozen=True)
class _Method(Method):
    library: ClassVar[str] = "numpy"
    spaces: ClassVar[frozenset[str]] = frozenset({"l2"})
    effort: ClassVar[str] = "effort"

    def _build(self, vectors, space, *, threads, seed):
        return Brute(vectors, self, Holds(space, *vectors.shape), threads)

    def _load(self, folder: Path, holds, *, threads, mapped):
        return Brute(np.load(folder / "vectors.npy"), self, holds, threads)


class Brute(Index):
    """Sorts all distances; `effort` is the number of rows that are looked at."""

    def efforts(self, k):
        return [len(self.native)]

    def _search(self, queries, k, effort):
        near = ((queries[:, None] - self.native[None, :effort]) ** 2).sum(-1).argsort(axis=1)
        return near[:, :k].astype(np.int32)

    def _save(self, folder):
        np.save(folder / "vectors.npy", self.native)
        return ("vectors.npy",)


@dataclass(frozen=True)
class Plain(_Method):
    name: ClassVar[str] = "plain"


@dataclass(frozen=True)
class Crashes(_Method):
    name: ClassVar[str] = "crashes"

    def _build(self, vectors, space, *, threads, seed):
        os.kill(os.getpid(), signal.SIGSEGV)


@dataclass(frozen=True)
class Sleeps(_Method):
    name: ClassVar[str] = "sleeps"

    def _build(self, vectors, space, *, threads, seed):
        time.sleep(600)


@dataclass(frozen=True)
class Devours(_Method):
    name: ClassVar[str] = "devours"

    def _build(self, vectors, space, *, threads, seed):
        eaten = []
        while True:
            eaten.append(np.ones(1 << 22))


@dataclass(frozen=True)
class Raises(_Method):
    name: ClassVar[str] = "raises"

    def _build(self, vectors, space, *, threads, seed):
        raise ValueError("links must be even")


@dataclass(frozen=True)
class Missing(_Method):
    name: ClassVar[str] = "missing"
    library: ClassVar[str] = "a_library_that_nobody_has"


@dataclass(frozen=True)
class CosineOnly(_Method):
    name: ClassVar[str] = "cosine-only"
    spaces: ClassVar[frozenset[str]] = frozenset({"cosine"})


class _Invents(Brute):
    def _search(self, queries, k, effort):
        return np.full((len(queries), k), 10**6, np.int32)


@dataclass(frozen=True)
class Invents(_Method):
    """Names rows that aren't there."""

    name: ClassVar[str] = "invents"

    def _load(self, folder: Path, holds, *, threads, mapped):
        return _Invents(np.load(folder / "vectors.npy"), self, holds, threads)


class _DiesLate(Brute):
    def _search(self, queries, k, effort):
        if len(queries) == 100:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super()._search(queries, k, effort)


@dataclass(frozen=True)
class DiesLate(_Method):
    """Answers single queries, and dies when 100 come at once."""

    name: ClassVar[str] = "dies-late"

    def _load(self, folder: Path, holds, *, threads, mapped):
        return _DiesLate(np.load(folder / "vectors.npy"), self, holds, threads)


class _DiesSecond(Brute):
    asked = 0

    def _search(self, queries, k, effort):
        self.asked += len(queries) > 16  # not while it warms up
        if self.asked == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super()._search(queries, k, effort)


@dataclass(frozen=True)
class DiesSecond(_Method):
    """Answers once, and dies when it is asked again."""

    name: ClassVar[str] = "dies-second"

    def _load(self, folder: Path, holds, *, threads, mapped):
        return _DiesSecond(np.load(folder / "vectors.npy"), self, holds, threads)


class _Hungry(Brute):
    def _search(self, queries, k, effort):
        self.eaten = np.ones(16 << 20)
        return super()._search(queries, k, effort)


@dataclass(frozen=True)
class Hungry(_Method):
    """Takes 128 MiB for a search."""

    name: ClassVar[str] = "hungry"

    def _load(self, folder: Path, holds, *, threads, mapped):
        return _Hungry(np.load(folder / "vectors.npy"), self, holds, threads)


@dataclass(frozen=True)
class Graphs(_Method):
    """Makes the lists of all rows itself."""

    name: ClassVar[str] = "graphs"
    workloads: ClassVar[frozenset[str]] = frozenset({"all"})
    graphs: ClassVar[bool] = True

    def _graph(self, vectors, k, space, *, threads, seed):
        if len(vectors) > 50:  # not while it warms up
            self.does()
        return np.zeros((len(vectors), k), np.int32)

    def does(self):
        """What goes wrong."""


@dataclass(frozen=True)
class GraphWithoutIndex(Graphs):
    name: ClassVar[str] = "graph-without-index"
    workloads: ClassVar[frozenset[str]] = frozenset({"all", "queries"})

    def _build(self, vectors, space, *, threads, seed):
        raise ValueError("no index today")


@dataclass(frozen=True)
class GraphCrashes(Graphs):
    def does(self):
        os.kill(os.getpid(), signal.SIGSEGV)


@dataclass(frozen=True)
class GraphRaises(Graphs):
    def does(self):
        raise ValueError("links must be even")


@dataclass(frozen=True)
class GraphSleeps(Graphs):
    def does(self):
        time.sleep(600)


@dataclass(frozen=True)
class GraphDevours(Graphs):
    def does(self):
        eaten = []
        while True:
            eaten.append(np.ones(1 << 20))


@dataclass(frozen=True)
class GraphTakes200MiB(Graphs):
    def does(self):
        self.__dict__["taken"] = np.ones(25 << 20)


class _Slow(Brute):
    def _search(self, queries, k, effort):
        if self.holds.n > 100 and len(queries) != 1:
            time.sleep(0.3)
        return super()._search(queries, k, effort)


@dataclass(frozen=True)
class Slow(_Method):
    """Takes its time for all rows."""

    name: ClassVar[str] = "slow"

    def _load(self, folder: Path, holds, *, threads, mapped):
        return _Slow(np.load(folder / "vectors.npy"), self, holds, threads)


class _Heavy(Brute):
    def _save(self, folder):
        with (folder / "ballast").open("wb") as stream:
            stream.truncate(33 << 20)
        return (*super()._save(folder), "ballast")


@dataclass(frozen=True)
class Heavy(_Method):
    """Has a large index, and takes lack of memory for damage, as NMSLIB does."""

    name: ClassVar[str] = "heavy"

    def _build(self, vectors, space, *, threads, seed):
        return _Heavy(vectors, self, Holds(space, *vectors.shape), threads)

    def _load(self, folder: Path, holds, *, threads, mapped):
        if resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY:
            raise RuntimeError("it's either a bug or inconsistent data!")
        return super()._load(folder, holds, threads=threads, mapped=mapped)


COMPILED: list[str] = []
"""What this process, or the one that it is a fork of, compiled."""


@dataclass(frozen=True)
class Compiles(_Method):
    """Takes its time when a process uses it first, as one does that compiles itself."""

    name: ClassVar[str] = "compiles"
    compiles: ClassVar[bool] = True

    def _build(self, vectors, space, *, threads, seed):
        if not COMPILED:
            self.at_first_use()
            COMPILED.append(space)
        return super()._build(vectors, space, threads=threads, seed=seed)

    def at_first_use(self):
        time.sleep(1.0)


@dataclass(frozen=True)
class CompilesInVain(Compiles):
    name: ClassVar[str] = "compiles-in-vain"

    def at_first_use(self):
        os.kill(os.getpid(), signal.SIGSEGV)
