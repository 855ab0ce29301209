"""A method that notes where and when it is built and asked, for tests with several machines."""

import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmark.methods.base import Holds
from tests.benchmark.broken_methods import Brute, _Method


@contextmanager
def noted(folder, what):
    """One JSON file per stretch of work: machine (its network), beginning, end."""
    began = time.time()
    yield
    fact = {
        "what": what,
        "machine": str(Path("/proc/self/ns/net").readlink()),
        "began": began,
        "ended": time.time(),
    }
    (Path(folder) / f"{os.getpid()}-{began}.json").write_text(json.dumps(fact))


class _Noting(Brute):
    def _search(self, queries, k, effort):
        with noted(self.method.notes, "search"):
            time.sleep(0.05)
            return super()._search(queries, k, effort)


@dataclass(frozen=True)
class Noting(_Method):
    """`notes`: folder to note in. `number` makes several configurations."""

    notes: str = ""
    number: int = 0
    name: ClassVar[str] = "noting"

    def _build(self, vectors, space, *, threads, seed):
        with noted(self.notes, "build"):
            time.sleep(0.5)
        return _Noting(vectors, self, Holds(space, *vectors.shape), threads)

    def _load(self, folder: Path, holds, *, threads, mapped):
        return _Noting(np.load(folder / "vectors.npy"), self, holds, threads)
