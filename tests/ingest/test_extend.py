"""Extension: old rows keep their numbers, new recordings come after them, statistics stay."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfield.errors import InputRejected, UsageError
from nearfield.ingest import ingest
from nearfield.vectorset import VectorSet, open_vector_set
from tests.ingest.table_samples import options, write_text


def _extended(old: VectorSet, source: Path, out: Path, **choices) -> VectorSet:
    ingest([source], out, options(**{"scale": None} | choices), extend=old.path)
    return open_vector_set(out)


def _made(source: Path, **choices) -> VectorSet:
    out = source.parent / f"{source.stem}-vectors"
    ingest([source], out, options(**{"scale": None} | choices))
    return open_vector_set(out)


def _csv(folder: Path, name: str, rows: list[str], header: str = "id,x,y,title") -> Path:
    return write_text(folder / name, "\n".join([header, *rows]) + "\n")


@pytest.fixture
def old(tmp_path: Path) -> VectorSet:
    return _made(_csv(tmp_path, "old.csv", ["b,1,2,B", "a,3,4,A", "c,5,7,"]))


def test_old_rows_stay_new_ones_follow_and_known_ones_change_in_place(
    old: VectorSet, tmp_path: Path
) -> None:
    new = _csv(tmp_path, "new.csv", ["z,9,9,Z", "a,5,7,", "c,5,7,C", "d,1,2,D"])
    before = old.vectors.copy()
    extended = _extended(old, new, tmp_path / "out")
    assert extended.recordings.to_pylist() == [
        {"recording_id": "b", "title": "B"},
        {"recording_id": "a", "title": "A"},
        {"recording_id": "c", "title": "C"},
        {"recording_id": "z", "title": "Z"},
        {"recording_id": "d", "title": "D"},
    ]
    np.testing.assert_array_equal(extended.vectors[[0, 2]], before[[0, 2]])
    # the old set's statistics hold: equal numbers give equal vectors
    np.testing.assert_array_equal(extended.vectors[1], before[2])
    np.testing.assert_array_equal(extended.vectors[4], before[0])
    counted = {name: extended.manifest.facts[name] for name in ("added", "changed", "unchanged")}
    assert counted == {"added": 2, "changed": 1, "unchanged": 1}
    assert extended.geometry == old.geometry
    assert open_vector_set(old.path).fingerprint == old.fingerprint


def test_a_number_of_the_set_is_never_taken_for_the_id(tmp_path: Path) -> None:
    header = "year,title,tempo"
    rows = ["1990,Abc,100", "1990,Def,110", "1991,Ghi,120"]
    old = _made(_csv(tmp_path, "old.csv", rows, header), columns=("year", "tempo"))
    assert old.ids.to_pylist() == ["Abc", "Def", "Ghi"]
    new = _csv(tmp_path, "new.csv", ["2001,Abc,90", "2002,Jkl,95"], header)
    extended = _extended(old, new, tmp_path / "out")
    assert extended.ids.to_pylist() == ["Abc", "Def", "Ghi", "Jkl"]


def test_an_extension_by_itself_changes_nothing(old: VectorSet, tmp_path: Path) -> None:
    extended = _extended(old, tmp_path / "old.csv", tmp_path / "out")
    assert extended.fingerprint == old.fingerprint
    assert extended.manifest.facts["unchanged"] == 3


def test_labels_are_joined_by_name_and_new_ones_are_null_for_old_rows(
    old: VectorSet, tmp_path: Path
) -> None:
    new = _csv(tmp_path, "new.csv", ["d,1,2,rock", "a,1,2,pop"], header="id,x,y,genre")
    assert _extended(old, new, tmp_path / "out").recordings.to_pydict() == {
        "recording_id": ["b", "a", "c", "d"],
        "title": ["B", "A", None, None],
        "genre": [None, "pop", None, "rock"],
    }


def test_categories_and_pca_are_reused(tmp_path: Path) -> None:
    header = "id,key,x,y"
    source = _csv(tmp_path, "old.csv", ["a,C,1,2", "b,D,5,1", "c,C,2,2"], header)
    old = _made(source, categorical=("key",), pca=2)
    new = _csv(tmp_path, "new.csv", ["q,D,5,1", "r,E,1,1"], header)
    extended = _extended(old, new, tmp_path / "out")
    np.testing.assert_array_equal(extended.vectors[3], old.vectors[1])
    assert extended.manifest.facts["rejected"] == {"unknown category": 1}


@pytest.mark.parametrize(
    "choices",
    [{"columns": ("y", "x")}, {"scale": "none"}, {"pca": 1}, {"space": "ip"}],
)
def test_choices_that_contradict_the_old_set_are_refused(
    old: VectorSet, tmp_path: Path, choices: dict
) -> None:
    with pytest.raises(UsageError, match=r"Leave out|leave out|space of the set"):
        _extended(old, tmp_path / "old.csv", tmp_path / "out", **choices)


def test_a_table_without_the_old_columns_is_refused(old: VectorSet, tmp_path: Path) -> None:
    new = _csv(tmp_path, "new.csv", ["d,1"], header="id,x")
    with pytest.raises(UsageError, match="no column 'y'"):
        _extended(old, new, tmp_path / "out")


def test_another_kind_of_source_is_refused(old: VectorSet, tmp_path: Path) -> None:
    np.save(tmp_path / "new.npy", np.ones((2, 2)))
    with pytest.raises(InputRejected, match=r"can't extend.*table.*array"):
        _extended(old, tmp_path / "new.npy", tmp_path / "out")


def test_arrays_of_another_width_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "old.npy", np.ones((2, 2)))
    np.save(tmp_path / "new.npy", np.ones((2, 3)))
    with pytest.raises(InputRejected, match="width"):
        _extended(_made(tmp_path / "old.npy"), tmp_path / "new.npy", tmp_path / "out")


def test_row_numbers_run_on(tmp_path: Path) -> None:
    np.save(tmp_path / "old.npy", [[1.0], [np.nan], [3.0]])
    np.save(tmp_path / "new.npy", [[4.0], [5.0]])
    extended = _extended(_made(tmp_path / "old.npy"), tmp_path / "new.npy", tmp_path / "out")
    assert extended.ids.to_pylist() == [0, 2, 3, 4]
    assert extended.vectors.ravel().tolist() == [1, 3, 4, 5]


def test_row_numbers_and_ids_are_not_mixed(tmp_path: Path) -> None:
    np.save(tmp_path / "old.npy", np.ones((2, 2)))
    ids = write_text(tmp_path / "ids.txt", "1\n2\n")
    without = _made(tmp_path / "old.npy")
    with pytest.raises(UsageError, match="row numbers in place of ids"):
        _extended(without, tmp_path / "old.npy", tmp_path / "out", ids=ids)


def test_ids_of_another_form_are_refused(tmp_path: Path) -> None:
    old = _made(_csv(tmp_path, "old.csv", ["1,1,2,A", "2,1,3,B"]))
    new = _csv(tmp_path, "new.csv", ["x,1,2,A"])
    with pytest.raises(UsageError, match="same form"):
        _extended(old, new, tmp_path / "out")


def test_numbers_are_compared_with_ids_of_text_as_they_are_printed(tmp_path: Path) -> None:
    old = _made(_csv(tmp_path, "old.csv", ["000002,1,2,A", "140,1,3,B"]))
    new = _csv(tmp_path, "new.csv", ["140,5,5,C", "141,1,2,A"])
    extended = _extended(old, new, tmp_path / "out")
    assert extended.ids.to_pylist() == ["000002", "140", "141"]
    assert extended.manifest.facts["changed"] == 1


def test_numbers_that_lost_their_zeros_are_refused(tmp_path: Path) -> None:
    old = _made(_csv(tmp_path, "old.csv", ["000002,1,2,A", "140,1,3,B"]))
    new = _csv(tmp_path, "new.csv", ["2,5,5,C", "141,1,2,A"])
    with pytest.raises(UsageError, match="zeros in front"):
        _extended(old, new, tmp_path / "out")


def test_the_old_set_is_never_written_to(old: VectorSet) -> None:
    with pytest.raises(UsageError, match="other than the set that it is made from"):
        _extended(old, old.path.parent / "old.csv", old.path)


ids = st.integers(0, 30)
rows = st.lists(st.tuples(ids, st.integers(-3, 3)), min_size=1, max_size=25)


@given(rows, rows)
@settings(max_examples=25, deadline=None)
def test_extension_is_a_dictionary_update_in_insertion_order(old_rows, new_rows) -> None:
    # first of equal ids counts within one source; the new source wins over the old set
    first, second = (dict(reversed(part)) for part in (old_rows, new_rows))
    expected = {key: first[key] for key in dict(old_rows)} | {
        key: second[key] for key in dict(new_rows)
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        choices = {"scale": "none", "max_rejected": 1.0, "id_column": "id", "columns": ("x",)}
        sources = [
            _csv(folder, f"{stem}.csv", [f"k{key},{value}" for key, value in part], "id,x")
            for stem, part in (("old", old_rows), ("new", new_rows))
        ]
        old = _made(sources[0], **choices)
        extended = _extended(old, sources[1], folder / "out", **choices)
        found = zip(extended.ids.to_pylist(), extended.vectors.ravel().tolist(), strict=True)
        assert list(found) == [(f"k{key}", value) for key, value in expected.items()]
