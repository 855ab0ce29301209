"""Mapped ids are the ids, wherever they are asked for, and hold few pages."""

import numpy as np
import pyarrow as pa
import pytest

from dumps.dump import ids as dump_ids
from dumps.dump.ids import MappedIds

NAMES = [f"ü{row}" * (row % 4) for row in range(5000)]


def batches():
    whole = pa.array(NAMES)
    yield whole.slice(0, 17)
    yield whole.slice(17, 0)
    yield whole.slice(17, 3000)
    yield whole.slice(3017)


@pytest.fixture(params=[64 << 20, 1 << 16], ids=["whole", "let go"])
def mapped(tmp_path, monkeypatch, request):
    monkeypatch.setattr(dump_ids, "MOST_MAPPED_BYTES", request.param)
    ids = MappedIds(tmp_path, batches())
    assert list(tmp_path.iterdir()) == [], "the files have no name"
    return ids


def test_spans_and_single_rows_in_any_order(mapped):
    assert mapped.n == len(NAMES)
    for first, stop in ((0, 5000), (16, 18), (3016, 3018), (4999, 5000), (7, 7)):
        found = mapped.span(slice(first, stop))
        assert (found.type, found.to_pylist()) == (pa.string(), NAMES[first:stop])
    rows = np.random.default_rng(0).integers(0, 5000, 9000, dtype=np.int32)
    assert mapped.at(rows).to_pylist() == [NAMES[row] for row in rows]
    assert mapped.at(rows[:0]).to_pylist() == []


def test_ids_without_a_character_are_ids(tmp_path):
    assert MappedIds(tmp_path, [pa.array(["a", ""])]).at(np.array([1, 0])).to_pylist() == ["", "a"]
