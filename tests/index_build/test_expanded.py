"""Lists of all rows from those of the distinct vectors, which come in parts."""

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_build import expanded
from index_build.duplicates import collapse
from index_build.expanded import expanded_blocks
from nearfield.errors import DiskFull
from nearfield.neighbours import NeighbourTable
from tests.index_build.brute import nearest


def tables_of(near, far, cuts):
    rows = np.arange(len(near), dtype=np.int32)
    for first, stop in pairwise(sorted({0, len(near), *cuts})):
        yield NeighbourTable(rows[first:stop], near[first:stop], far[first:stop])


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 40), values=st.integers(1, 30), k=st.integers(1, 45),
    cuts=st.lists(st.integers(1, 39), max_size=4), seed=st.integers(0, 10_000),
)  # fmt: skip
def test_rows_come_in_order_with_the_lists_of_brute_force(
    n, values, k, cuts, seed, tmp_path_factory
):
    vectors = np.random.default_rng(seed).integers(0, values, (n, 1)).astype(np.float32)
    collapsed = collapse(vectors)
    distinct = vectors[collapsed.representatives]
    near, far = nearest(distinct, min(k, max(0, len(distinct) - 1)), "l2")
    tables = tables_of(
        near.astype(np.int32), far.astype(np.float32), [it for it in cuts if it < len(distinct)]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expanded, "BLOCK_ROWS", 7)
        blocks = list(
            expanded_blocks(
                collapsed, tables, k, own_first=True, beside=tmp_path_factory.getbasetemp()
            )
        )
    sizes = [len(block[1]) for block in blocks]
    assert [block[0] for block in blocks] == [0, *np.cumsum(sizes)[:-1]]
    true_rows, true_distances = nearest(vectors, min(k, n - 1), "l2")
    np.testing.assert_array_equal(np.concatenate([block[1] for block in blocks]), true_rows)
    np.testing.assert_array_equal(np.concatenate([block[2] for block in blocks]), true_distances)


@pytest.fixture
def twins():
    """20,000 vectors, each twice, far apart; lists of 100 in parts of 500."""
    groups, places = 20_000, 100
    collapsed = collapse(np.tile(np.arange(groups, dtype=np.float32), 2)[:, None])

    def tables():
        for first in range(0, groups, 500):
            rows = np.arange(first, first + 500, dtype=np.int32)
            near = (rows[:, None] + np.arange(1, places + 1, dtype=np.int32)) % groups
            yield NeighbourTable(rows, near, np.ones(near.shape, np.float32))

    return collapsed, tables()


def test_lists_that_wait_take_no_memory(twins, tmp_path, monkeypatch):
    collapsed, tables = twins
    monkeypatch.setattr(expanded, "BLOCK_ROWS", 500)
    tracemalloc.start()
    try:
        rows = sum(
            len(near)
            for _, near, _ in expanded_blocks(
                collapsed, tables, 100, own_first=True, beside=tmp_path
            )
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows == 40_000
    assert peak < 6 << 20  # all lists of the distinct ones are 16 MB
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said(twins, tmp_path, monkeypatch):
    collapsed, tables = twins
    full = Path("/dev/full").open("w+b")  # noqa: SIM115  (closing it is what is tried)
    monkeypatch.setattr(expanded, "TemporaryFile", lambda **_: full)
    with pytest.raises(DiskFull, match=str(tmp_path)):
        list(expanded_blocks(collapsed, tables, 100, own_first=True, beside=tmp_path))
