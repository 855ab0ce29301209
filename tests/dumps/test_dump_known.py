"""What a check knows of a dump's recordings, though it doesn't hold them."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from dumps.dump import repeated
from dumps.dump.known import KnownIds
from dumps.dump.repeated import repeated_ids
from nearfield.errors import InputRejected

ROWS = np.array([0, 1, 2, 5, 6, 9, 40], np.int32)
NAMES = ["a", "", "ü" * 9, "d", "e" * 300, "f", "g"]


@pytest.fixture
def known():
    with KnownIds(50) as recordings:
        for first, stop in ((0, 1), (1, 1), (1, 6), (6, 7)):
            # as slices of a larger array, whose offsets don't begin at 0
            ids = pa.array(["x", *NAMES]).slice(1)
            recordings.add(ROWS[first:stop], ids.slice(first, stop - first))
        yield recordings


def test_ids_are_found_at_any_rows_in_any_order(known, monkeypatch):
    monkeypatch.setattr("dumps.dump.known.MOST_MAPPED", 90)
    assert known.count == 7
    places = np.random.default_rng(0).integers(0, 7, (20, 3))
    assert known.at(ROWS[places]).to_pylist() == [NAMES[place] for place in places.ravel()]
    assert known.at(ROWS[:0]).to_pylist() == []


def test_rows_without_a_recording_are_told_and_refused(known):
    rows = np.arange(50).reshape(5, 10)
    np.testing.assert_array_equal(known.removed(rows), ~np.isin(rows, ROWS))
    for row, said in ((3, "have no recording"), (49, "have no recording"), (50, "outside"),
                      (-1, "outside")):  # fmt: skip
        with pytest.raises(InputRejected, match=said):
            known.at(np.array([0, row], np.int32))


@pytest.mark.parametrize(
    ("rows", "ids"), [([40], ["h"]), ([39], ["h"]), ([50], ["h"]), ([42, 41], ["h", "i"]),
                      ([41], [None])]
)  # fmt: skip
def test_rows_that_dont_ascend_within_the_matrix_are_refused(known, rows, ids):
    with pytest.raises(InputRejected, match="rows that ascend within"):
        known.add(np.array(rows, np.int32), pa.array(ids, pa.string()))


def test_rows_far_apart_take_no_space():
    last = 2**31 - 2
    with KnownIds(2**31 - 1) as known:
        known.add(np.array([0, last], np.int32), pa.array(["first", "last"]))
        assert known.at(np.array([last, 0], np.int32)).to_pylist() == ["last", "first"]
        assert known.removed(np.array([0, 1, last])).tolist() == [False, True, False]


class TestRepeated:
    @pytest.fixture(autouse=True)
    def several_parts(self, monkeypatch):
        monkeypatch.setattr(repeated, "PART_IDS", 100)

    def asked(self, names, size=64):
        def batches():
            return (pa.array(names[i : i + size]) for i in range(0, len(names), size))

        return repeated_ids(batches, len(names))

    def test_none_is(self):
        assert self.asked([f"é {i}" for i in range(1000)]) == 0

    def test_each_after_the_first_counts(self):
        names = [f"n {i % 700}" for i in range(1000)] + ["n 3", "n 3", ""]
        assert self.asked(names) == len(names) - len(Counter(names)) == 302

    def test_equal_hashes_of_different_ids_dont(self, monkeypatch):
        own = repeated._hashes
        monkeypatch.setattr(repeated, "_hashes", lambda ids: own(ids) % np.uint64(50))
        names = [f"n {i}" for i in range(1000)]
        assert self.asked(names) == 0
        assert self.asked([*names, "n 7"]) == 1

    def test_very_many_are_counted_by_their_hashes(self, monkeypatch):
        monkeypatch.setattr(repeated, "FEW", 10)
        assert self.asked(["same"] * 500) == 499
