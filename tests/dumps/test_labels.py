"""Labels as numbers, whatever the text of a column takes."""

import pyarrow as pa
import pytest

from dumps.labels import _codes


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_equal_labels_have_one_number_and_empty_ones_none(kind):
    chunks = [["rock", "", "pop"], ["pop", None, "folk", "rock"], ["", "folk"]]
    column = pa.chunked_array([pa.array(it, pa.string()) for it in chunks]).cast(kind)
    assert _codes(column).tolist() == [0, -1, 1, 1, -1, 2, 0, -1, 2]


@pytest.mark.slow
def test_text_of_more_than_2_gib():
    long = pa.array(["a" * (1 << 20), "", "b" * (1 << 20)])
    column = pa.chunked_array([long] * 1_100)
    assert column.nbytes > 1 << 31
    assert _codes(column).tolist() == [0, -1, 1] * 1_100
