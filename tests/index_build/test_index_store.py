"""Which effort a shard's library is asked with: no less than for what is promised."""

from types import SimpleNamespace

import numpy as np
import pytest

from index_build.index.store import LoadedShard

LADDER = [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("k", "effort"), [(1, 1), (10, 1), (11, 4), (50, 4), (100, 4), (101, 4), (700, 4)]
)
def test_between_two_ks_the_larger_effort_is_taken(k, effort):
    asked = []
    index = SimpleNamespace(
        method=SimpleNamespace(concurrent=True),
        efforts=lambda _k: LADDER,
        search=lambda _queries, _k, effort: asked.append(effort),
    )
    shard = LoadedShard(
        np.arange(1_000, dtype=np.int32), np.zeros((1_000, 2), np.float32), index,
        ((10, 0), (100, 2)),
    )  # fmt: skip
    shard.search(np.zeros((1, 2), np.float32), k)
    assert asked == [effort]
