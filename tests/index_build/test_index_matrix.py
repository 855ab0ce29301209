"""The matrix out of an index: by brute force the same lists where all shards are asked."""

import numpy as np
import pyarrow as pa
import pytest

from index_build.index.build import IndexOptions, build_index
from index_build.index.matrix import index_blocks, index_parts
from index_build.index.search import open_index
from nearfield.run import RunConfig, create_run
from nearfield.vectorset import Geometry, write_vector_set
from tests.index_build.brute import nearest


def repeated(n=160, d=6):
    """Lengths from 1 to 10; some of length 3 repeat, so that longer ones are nearer than equals."""
    random = np.random.default_rng(4)
    vectors = random.normal(size=(n, d))
    vectors *= random.uniform(1, 10, (n, 1)) / np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[:3] *= 3 / np.linalg.norm(vectors[:3], axis=1, keepdims=True)
    vectors[40:60], vectors[60:75] = vectors[0], vectors[1]
    return vectors.astype(np.float32)


@pytest.mark.parametrize(
    "k", [pytest.param(10, marks=pytest.mark.slow), 140, pytest.param(200, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("space", ["ip", pytest.param("l2", marks=pytest.mark.slow)])
def test_equal_vectors_stand_where_they_belong(tmp_path, client, space, k):
    vectors = repeated()
    ids = pa.table({"recording_id": np.arange(len(vectors))})
    opened = write_vector_set(tmp_path / "vectors", vectors, ids, Geometry(space))
    build_index(opened, tmp_path / "index", IndexOptions("faiss-ivf", 70, 10), client)
    config = RunConfig(
        vectors=str(opened.path), vectors_fingerprint=opened.fingerprint, n=opened.n, d=opened.d,
        space=space, k=k, recall=1.0, method="index", seed=0,
    )  # fmt: skip
    run, index = create_run(tmp_path / "run", config), open_index(tmp_path / "index")
    parts = index_parts(index, run, index.shards, client)
    first, neighbours, distances = zip(*index_blocks(index, parts, run), strict=True)
    assert list(first) == [0]
    truth = nearest(vectors, config.columns, space)
    np.testing.assert_allclose(distances[0], truth[1], rtol=1e-5, atol=1e-5)
    # float32 may put two of nearly the same product in another order
    assert (neighbours[0] == truth[0]).mean() > 0.99
