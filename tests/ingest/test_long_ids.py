"""Ids of more than 2 GiB: sixty million UUIDs are, whose offsets don't fit into 31 bits."""

import os

import numpy as np
import pyarrow as pa
import pytest

from nearfield.ingest.ids import first_occurrences, rows_of
from nearfield.vectorset import check_ids

pytestmark = pytest.mark.long
LONG = 1 << 20


@pytest.fixture(scope="module")
def ids():
    """Different texts of 1 MiB, which lie over each other in one of 2."""
    text = pa.py_buffer(os.urandom(2 * LONG))
    spans = (pa.py_buffer(np.array([at, at + LONG], np.int32).tobytes()) for at in range(2_100))
    return pa.chunked_array(
        [pa.Array.from_buffers(pa.string(), 1, [None, span, text]) for span in spans]
    )


def test_they_are_told_apart(ids):
    check_ids(pa.table({"recording_id": ids}), expected=2_100)


def test_the_first_of_equal_ones_counts(ids):
    both = pa.chunked_array([*ids.chunks, ids.chunk(7)])
    assert first_occurrences(both).tolist() == [True] * 2_100 + [False]


def test_they_are_found(ids):
    assert rows_of(ids, pa.chunked_array([ids.chunk(7), pa.array(["none"])])).tolist() == [7, -1]
