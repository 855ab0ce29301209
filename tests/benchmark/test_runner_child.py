"""What a measured process does, called here in this one."""

import numpy as np
import pytest

from benchmark.methods import method_class
from benchmark.runner.child import build
from benchmark.runner.request import Build, noted
from tests.benchmark.bench_case import surface

CHEAP = ("faiss-flat", "faiss-ivf", "faiss-hnsw", "hnswlib", "annoy", "ball-tree", "exact")


@pytest.mark.parametrize("n", range(2, 13))
def test_indexes_of_few_rows_are_built(tmp_path, n):
    np.save(tmp_path / "vectors.npy", surface(n + 1))
    # there is no wheel of hnswlib for Python 3.13
    for method in (name for name in CHEAP if not method_class(name).unavailable()):
        out = tmp_path / method
        out.mkdir()
        common = {"method": method, "vectors": str(tmp_path / "vectors.npy"), "out": str(out)}
        how = {"n": n, "space": "l2", "threads": 1, "seed": 0, "pinned": False, "parameters": {}}
        build(Build(**common, **how, folder=str(out / "index"), ks=[1], add_rows=1))
        assert noted(out)["index_bytes"] > n
