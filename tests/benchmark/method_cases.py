"""What the contract tests share: the methods, data, built indexes, and a process that reloads them.

    python -m tests.benchmark.method_cases ANSWERS.npz FOLDER...

Run as a program it loads the index of each folder, also mapped where the method can, asks it the
same queries, and writes the answers.
"""

import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from benchmark.methods import METHODS, method_class, method_named
from nearfield.space import prepared

SELFJOIN = "index_build.selfjoin_method:SelfJoin"
COMPILES = "pynndescent"
"""For minutes, unless its cache is warm."""
N, D, K = 600, 12, 10
PARAMETERS = {"faiss-ivfpq": {"rerank": 64}}
"""Codes of 600 rows are coarse."""


def marked(name, *rest):
    marks = [pytest.mark.long, pytest.mark.timeout(900)] if name == COMPILES else []
    return pytest.param(name, *rest, id="-".join((name, *rest)), marks=marks)


NAMES = [marked(name) for name in METHODS]
CASES = [marked(name, space) for name, one in METHODS.items() for space in sorted(one.spaces)]


def clustered(n, d=D, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, 3)) @ rng.standard_normal((3, d))).astype(np.float32) + 0.5


def vectors_of(space):
    return prepared(clustered(N + 50), space)[:N]


def queries_of(space):
    """Of the same distribution, not in the index."""
    return np.ascontiguousarray(prepared(clustered(N + 50), space)[N:])


def built(name, vectors, space, threads=2):
    method = method_named(name, PARAMETERS.get(name))
    if reason := method.unavailable():
        pytest.skip(reason)
    return method.build(vectors, space, threads=threads, seed=0)


@lru_cache
def index_of(name, space):
    """An index that many tests share: nobody may add to it."""
    return built(name, vectors_of(space), space)


def asked(index, k=K):
    return index.search(queries_of(index.holds.space), k, index.efforts(k)[-1])


def main(answers, *folders):
    found = {}
    for folder in map(Path, folders):
        name, space = folder.name.rsplit("--", 1)
        method = method_class(name)
        for mapped in (False, True)[: 1 + method.maps]:
            index = method.load(folder, threads=2, mapped=mapped)
            assert (index.holds.n, index.holds.d, index.holds.space) == (N, D, space)
            assert index.mapped is mapped
            found[f"{folder.name}--{mapped}"] = asked(index)
            found[f"{folder.name}--{mapped}--efforts"] = np.array(index.efforts(K))
    np.savez(answers, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
