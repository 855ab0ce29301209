"""Which effort a shard's library is asked with: no less than for what is promised."""

from types import SimpleNamespace

import numpy as np
import pytest

from index_build.index.store import LoadedShard

STEADY = [1, 2, 4, 8]


def growing(k):
    """As graphs have it: no list is searched with less than its length."""
    return [k, 2 * k, 4 * k, 8 * k]


@pytest.mark.parametrize(
    ("efforts", "k", "effort"),
    [
        *((lambda _k: STEADY, k, 1) for k in (1, 10)),
        *((lambda _k: STEADY, k, 4) for k in (11, 50, 100, 101, 700)),
        # as was measured with 10, although 1 and 5 would have a smaller ladder
        (growing, 1, 40),
        (growing, 5, 40),
        (growing, 10, 40),
        # as was measured with 100: what suffices there, place 0, but not of the ladder of 50
        (growing, 11, 100),
        (growing, 50, 200),
        (growing, 99, 396),
        (growing, 100, 100),
        (growing, 700, 700),
    ],
)
def test_no_effort_is_below_that_of_the_next_k_that_was_measured(efforts, k, effort):
    asked = []
    index = SimpleNamespace(
        method=SimpleNamespace(concurrent=True),
        efforts=efforts,
        search=lambda _queries, _k, effort: asked.append(effort),
    )
    places = ((10, 0), (100, 2)) if efforts is not growing else ((10, 2), (100, 0))
    shard = LoadedShard(
        np.arange(1_000, dtype=np.int32), np.zeros((1_000, 2), np.float32), index, places
    )
    shard.search(np.zeros((1, 2), np.float32), k + 1, k)
    assert asked == [effort]
