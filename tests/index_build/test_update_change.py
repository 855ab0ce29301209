"""What an update changes: which recordings are the same, and what is refused."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from index_build.update.change import changes
from index_build.update.vectors import patch_in, write_updated_set
from nearfield.errors import InputRejected, UsageError
from nearfield.ingest import ingest
from nearfield.space import Block
from nearfield.vectorset import Geometry, open_vector_set, write_vector_set
from tests.index_build.update_case import (
    base_of,
    names,
    points,
    updated,
    write_set,
)


class TestRefused:
    @pytest.fixture
    def old(self, tmp_path):
        return write_set(tmp_path / "old", points(20), names(0, 20))

    def test_vectors_of_another_width(self, tmp_path, old):
        add = write_set(tmp_path / "new", points(3, d=5), names(30, 33))
        with pytest.raises(InputRejected, match="vectors of 6 numbers under l2"):
            changes(old, add, [])

    def test_vectors_of_another_space(self, tmp_path, old):
        add = write_set(tmp_path / "new", points(3), names(30, 33), space="cosine")
        with pytest.raises(InputRejected, match="has 6 under cosine"):
            changes(old, add, [])

    def test_statistics_that_are_not_the_sets_own(self, tmp_path, old):
        other = Geometry("l2", (Block("mfccs", 0, 6),), {"mean": [1.0]})
        add = write_vector_set(
            tmp_path / "new", points(3), pa.table({"recording_id": names(30, 33)}), other
        )
        with pytest.raises(InputRejected, match="other blocks and statistics"):
            changes(old, add, [])

    def test_unknown_ids_to_remove_and_those_removed_before(self, tmp_path, old):
        with pytest.raises(InputRejected, match=r"2 of 3 ids .*first: 'who'"):
            changes(old, None, ["id-1", "who", "what"])
        again = write_set(
            tmp_path / "less", points(20), names(0, 20), removed=np.array([1], np.int32)
        )
        with pytest.raises(InputRejected, match=r"1 of 1 ids .*first: 'id-1'"):
            changes(again, None, ["id-1"])

    def test_an_id_named_twice_or_for_both(self, tmp_path, old):
        with pytest.raises(InputRejected, match="'id-1' is named twice"):
            changes(old, None, ["id-1", "id-1"])
        add = write_set(tmp_path / "new", points(1, seed=3), ["id-1"])
        with pytest.raises(InputRejected, match=r"added and removed at once .*'id-1'"):
            changes(old, add, ["id-1"])

    def test_row_numbers_where_the_set_has_ids(self, tmp_path, old):
        add = write_set(tmp_path / "new", points(3), names(30, 33), facts={"ids": "row numbers"})
        with pytest.raises(UsageError, match="have row numbers in place of ids"):
            changes(old, add, [])

    def test_numbers_that_lost_their_zeros(self, tmp_path):
        old = write_set(tmp_path / "padded", points(2), ["000002", "140"])
        add = write_set(tmp_path / "new", points(3), [140, 2, 7])
        with pytest.raises(UsageError, match=r"1 of the new ids .*2 and '000002'"):
            changes(old, add, [])

    def test_text_where_the_run_has_numbers(self, tmp_path):
        old = write_set(tmp_path / "numbered", points(2), [2, 140])
        add = write_set(tmp_path / "new", points(3), ["140", "7", "0007"])
        with pytest.raises(UsageError, match="'0007' isn't one as it is printed"):
            changes(old, add, [])


@pytest.mark.parametrize(
    ("known", "given"), [(["000002", "140"], [7, 140]), ([2, 140], ["7", "140"])]
)
def test_ids_take_the_form_that_those_of_the_run_have(tmp_path, known, given):
    base = base_of(tmp_path, points(40), k=3)
    old = write_set(tmp_path / "known", points(40), [*known, *range(200, 238)] if known[0] == 2
                    else [*known, *names(2, 40)])  # fmt: skip
    base = replace(base, vectors=old)
    add = write_set(tmp_path / "new", points(2, seed=8), given)
    change, delta, *_ = updated(base, add)
    assert (change.added, change.changed) == (1, 1)
    made = write_updated_set(tmp_path / "made", old, patch_in(delta), update="u")
    assert made.ids.type == old.ids.type
    assert [made.ids[row].as_py() for row in (0, 1, 40)] == [*known, type(known[0])(7)]


def test_numbered_recordings_are_numbered_on(tmp_path):
    facts = {"ids": "row numbers"}
    old = write_set(tmp_path / "old", points(20), list(range(20)), facts=facts)
    add = write_set(tmp_path / "new", points(3), [0, 1, 2], facts=facts)
    change = changes(old, add, [])
    assert change.ids.to_pylist() == [20, 21, 22]
    assert change.rows.tolist() == [20, 21, 22]


def test_removed_rows_survive_the_file(tmp_path):
    made = write_set(tmp_path / "set", points(5), names(0, 5), removed=np.array([2], np.int32))
    assert open_vector_set(made.path).removed.tolist() == [2]
    plain = write_set(tmp_path / "plain", points(5), names(0, 5))
    assert made.fingerprint != plain.fingerprint
    assert plain.removed.tolist() == []


def test_a_set_with_removed_rows_is_extended_by_an_update_only(tmp_path):
    made = write_set(tmp_path / "set", points(5), names(0, 5), removed=np.array([2], np.int32))
    np.save(tmp_path / "more.npy", points(3))
    with pytest.raises(UsageError, match="1 removed recordings"):
        ingest([tmp_path / "more.npy"], tmp_path / "out", extend=made.path)
