"""Which column is what, which rows are turned away, and what the numbers become."""

import datetime
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nearfield.errors import InputRejected, UsageError
from nearfield.ingest import ingest
from nearfield.ingest.columns import CATEGORY_WEIGHT
from nearfield.ingest.parquet_table import BATCH_VALUES, parquet_table
from nearfield.ingest.rejects import RejectLog
from nearfield.vectorset import open_vector_set
from tests.ingest.table_samples import ingested, options, rejects_of, write_text


def _csv(folder: Path, text: str, name: str = "t.csv") -> Path:
    return write_text(folder / name, text)


def _parquet(folder: Path, name: str = "t.parquet", **columns: object) -> Path:
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


class TestIds:
    def test_the_best_known_name_is_the_id_wherever_it_stands(self, tmp_path: Path) -> None:
        vector_set = ingested(_csv(tmp_path, "x,track_id,MBID\n1,t1,m1\n2,t2,m2\n"))
        assert vector_set.ids.to_pylist() == ["m1", "m2"]

    def test_a_named_column_wins(self, tmp_path: Path) -> None:
        vector_set = ingested(_csv(tmp_path, "id,x,code\n1,1,c1\n2,2,c2\n"), id_column="code")
        assert vector_set.ids.to_pylist() == ["c1", "c2"]

    def test_without_a_known_name_the_first_text_without_repeats_is_the_id(
        self, tmp_path: Path
    ) -> None:
        vector_set = ingested(_csv(tmp_path, "x,genre,name\n1.5,rock,a\n2,rock,b\n"))
        assert vector_set.ids.to_pylist() == ["a", "b"]

    def test_a_leading_column_of_different_integers_is_the_id(self, tmp_path: Path) -> None:
        vector_set = ingested(_csv(tmp_path, "number,x\n7,1\n3,2\n"))
        assert vector_set.ids.to_pylist() == [7, 3]

    def test_without_any_id_the_row_number_in_the_input_is_the_id(self, tmp_path: Path) -> None:
        vector_set = ingested(_csv(tmp_path, "x,y\n0.5,1\n,2\n1.5,3\n"))
        assert vector_set.ids.to_pylist() == [0, 2]
        assert vector_set.manifest.facts["ids"] == "row numbers"

    def test_ids_keep_their_spelling(self, tmp_path: Path) -> None:
        assert ingested(_csv(tmp_path, "id,x\n0007,1\n8,2\n")).ids.to_pylist() == ["0007", "8"]

    def test_repeated_and_absent_ids_are_rejected_and_the_first_one_kept(
        self, tmp_path: Path
    ) -> None:
        vector_set = ingested(_csv(tmp_path, "id,x\na,1\nb,2\na,3\n,4\n"))
        assert vector_set.vectors.tolist() == [[1], [2]]
        assert {(row["item"], row["reason"]) for row in rejects_of(vector_set)} == {
            ("a", "duplicate id"),
            ("line 5", "no id"),
        }

    def test_uuids_of_parquet_become_text(self, tmp_path: Path) -> None:
        ids = [uuid.UUID(int=i) for i in range(2)]
        raw = pa.array([value.bytes for value in ids], pa.binary(16))
        assert ingested(_parquet(tmp_path, id=raw, x=[1.0, 2.0])).ids.to_pylist() == list(
            map(str, ids)
        )

    def test_ids_that_are_no_whole_numbers_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputRejected, match="whole int64"):
            ingested(_parquet(tmp_path, id=[0.5, 1.5], x=[1.0, 2.0]))

    def test_an_ids_file_counts_malformed_rows_too(self, tmp_path: Path) -> None:
        ids = write_text(tmp_path / "ids.txt", "a\nb\nc\nd\n")
        vector_set = ingested(_csv(tmp_path, "x,y\n1,2\n1\n3,4\noops,5\n"), ids=ids)
        assert vector_set.ids.to_pylist() == ["a", "c"]

    def test_beside_an_ids_file_no_column_is_the_id(self, tmp_path: Path) -> None:
        ids = write_text(tmp_path / "ids.txt", "a\nb\n")
        table = _csv(tmp_path, "plays,tempo,title\n10,2,One\n30,4,Two\n")
        vector_set = ingested(table, ids=ids)
        assert vector_set.vectors.tolist() == [[10, 2], [30, 4]]
        assert vector_set.label_names == ["title"]
        assert vector_set.ids.to_pylist() == ["a", "b"]
        longer = _csv(tmp_path, "plays,tempo,title\n50,6,Three\n", "u.csv")
        write_text(tmp_path / "more.txt", "c\n")
        ingest([longer], tmp_path / "both", options(ids=tmp_path / "more.txt"),
               extend=vector_set.path)  # fmt: skip
        assert open_vector_set(tmp_path / "both").vectors.tolist() == [[10, 2], [30, 4], [50, 6]]

    def test_the_id_column_may_be_one_of_the_ids_file(self, tmp_path: Path) -> None:
        ids = _csv(tmp_path, "mbid,name\nm1,x\nm2,y\n", "ids.csv")
        vector_set = ingested(_csv(tmp_path, "plays\n10\n30\n"), ids=ids, id_column="mbid")
        assert vector_set.ids.to_pylist() == ["m1", "m2"]

    def test_an_ids_file_of_another_length_is_refused(self, tmp_path: Path) -> None:
        ids = write_text(tmp_path / "ids.txt", "a\n")
        with pytest.raises(InputRejected, match=r"expected 2 ids.*has 1"):
            ingested(_csv(tmp_path, "x,y\n1,2\n3,4\n"), ids=ids)


class TestRoles:
    TEXT = "id,x,year,genre,title\na,1,1999,rock,A\nb,2,2001,jazz,B\n"

    def test_all_numbers_are_vectors_and_all_text_is_labels(self, tmp_path: Path) -> None:
        vector_set = ingested(_csv(tmp_path, self.TEXT))
        assert vector_set.vectors.tolist() == [[1, 1999], [2, 2001]]
        assert vector_set.label_names == ["genre", "title"]

    def test_chosen_columns_come_in_the_order_asked(self, tmp_path: Path) -> None:
        vector_set = ingested(_csv(tmp_path, self.TEXT), columns=("year", "x"), labels=("title",))
        assert vector_set.vectors.tolist() == [[1999, 1], [2001, 2]]
        assert vector_set.label_names == ["title"]

    def test_a_number_named_as_label_is_no_part_of_the_vector(self, tmp_path: Path) -> None:
        vector_set = ingested(_csv(tmp_path, self.TEXT), labels=("year",))
        assert vector_set.vectors.tolist() == [[1], [2]]
        assert vector_set.recordings["year"].to_pylist() == ["1999", "2001"]

    @pytest.mark.parametrize("role", ["columns", "categorical", "labels"])
    def test_a_missing_column_is_named_with_those_that_are_there(
        self, tmp_path: Path, role: str
    ) -> None:
        with pytest.raises(UsageError, match=r"no column 'tempo'.*id, x, year, genre, title"):
            ingested(_csv(tmp_path, self.TEXT), **{role: ("tempo",)})
        with pytest.raises(UsageError, match="no column 'tempo'"):
            ingested(_csv(tmp_path, self.TEXT), id_column="tempo")

    def test_text_asked_for_as_numbers_is_refused_with_an_example(self, tmp_path: Path) -> None:
        with pytest.raises(InputRejected, match=r"numbers in column 'genre'.*'rock'"):
            ingested(_csv(tmp_path, self.TEXT), columns=("genre",))

    def test_a_table_without_numbers_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputRejected, match="no column of numbers"):
            ingested(_csv(tmp_path, "id,title\na,A\nb,B\n"))

    def test_parquet_types_find_their_role(self, tmp_path: Path) -> None:
        path = _parquet(
            tmp_path,
            id=["a", "b"],
            x=pa.array([1, 2], pa.uint8()),
            half=pa.array(np.array([1, 2], np.float16)),
            live=[True, False],
            genre=pa.array(["rock", None]).dictionary_encode(),
            day=[datetime.date(2020, 1, 2), None],
            nested=[{"a": 1}, {"a": 2}],
        )
        vector_set = ingested(path)
        assert vector_set.vectors.tolist() == [[1, 1], [2, 2]]
        assert vector_set.recordings.to_pylist() == [
            {"recording_id": "a", "live": True, "genre": "rock", "day": "2020-01-02"},
            {"recording_id": "b", "live": False, "genre": None, "day": None},
        ]

    @pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 3)])
    def test_a_column_of_lists_is_an_embedding_and_not_scaled(
        self, tmp_path: Path, kind: pa.DataType
    ) -> None:
        rows = [[1, 2, 3], [4, 5, 6], None, [7, None, 9]]
        path = _parquet(tmp_path, id=list("abcd"), embedding=pa.array(rows, kind))
        vector_set = ingested(path, scale=None)
        assert vector_set.vectors.tolist() == [[1, 2, 3], [4, 5, 6]]
        assert [row["reason"] for row in rejects_of(vector_set)] == ["missing value"] * 2

    def test_a_list_of_another_length_is_rejected(self, tmp_path: Path) -> None:
        path = _parquet(tmp_path, id=["a", "b", "c"], e=[[1.0, 2.0], [3.0], [4.0, 5.0]])
        vector_set = ingested(path)
        assert vector_set.vectors.tolist() == [[1, 2], [4, 5]]
        assert rejects_of(vector_set)[0]["detail"] == "row 1, column e: a list of 1"


class TestRows:
    def test_each_unusable_row_is_listed_with_its_reason_and_place(self, tmp_path: Path) -> None:
        text = "id,x,y\na,1,2\nb,abc,2\nc,,2\nd,nan,2\ne,1,inf\nf,NA,2\ng,5,6\nh,7,8\ni,9,9\n"
        vector_set = ingested(_csv(tmp_path, text), max_rejected=0.9)
        assert vector_set.ids.to_pylist() == ["a", "g", "h", "i"]
        assert {(row["item"], row["reason"], row["detail"]) for row in rejects_of(vector_set)} == {
            ("b", "not a number", "line 3, column x: 'abc'"),
            ("c", "missing value", "line 4, column x: ''"),
            ("d", "not finite", "line 5, column x: nan"),
            ("e", "not finite", "line 6, column y: inf"),
            ("f", "missing value", "line 7, column x: 'NA'"),
        }

    def test_too_large_for_float32_is_rejected_not_infinite(self, tmp_path: Path) -> None:
        vector_set = ingested(_csv(tmp_path, "id,x\na,1\nb,1e300\nc,2\n"))
        assert vector_set.vectors.tolist() == [[1], [2]]
        assert "float32" in rejects_of(vector_set)[0]["detail"]

    def test_more_rejects_than_allowed_stop_the_ingest_and_are_still_listed(
        self, tmp_path: Path
    ) -> None:
        path = _csv(tmp_path, "id,x\na,1\nb,2\nc,?\n")
        with pytest.raises(InputRejected, match=r"1 of 3 items.*rejects\.csv"):
            ingested(path, max_rejected=0.1)
        assert "not a number" in (tmp_path / "vectors" / "rejects.csv").read_text()
        assert not (tmp_path / "vectors" / "manifest.json").exists()

    def test_all_rows_rejected_is_an_error_whatever_is_allowed(self, tmp_path: Path) -> None:
        with pytest.raises(InputRejected, match="at least one usable"):
            ingested(_csv(tmp_path, "id,x\na,nan\nb,inf\n"), max_rejected=1.0, scale="standard")

    def test_zero_rows_are_dropped_under_cosine_and_kept_under_l2(self, tmp_path: Path) -> None:
        path = _csv(tmp_path, "id,x,y\na,1,2\nb,0,0\n")
        assert ingested(path).n == 2
        assert ingested(path, zero="drop").n == 1
        cosine = ingested(path, space="cosine")
        assert cosine.ids.to_pylist() == ["a"]
        assert rejects_of(cosine)[0]["reason"] == "zero vector"
        with pytest.raises(UsageError, match="no direction"):
            ingested(path, space="cosine", zero="keep")

    def test_files_follow_one_another_and_must_have_the_columns(self, tmp_path: Path) -> None:
        first = _csv(tmp_path, "id,x,y\na,1,2\n")
        second = _csv(tmp_path, "y,id,x\n4,b,3\n6,a,5\n", "second.csv")
        vector_set = ingested(first, second)
        assert vector_set.vectors.tolist() == [[1, 2], [3, 4]]
        assert rejects_of(vector_set)[0]["source"] == str(second)
        third = _csv(tmp_path, "id,x\nc,3\n", "third.csv")
        with pytest.raises(UsageError, match=r"no column 'y' in .*third\.csv"):
            ingested(first, third)


class TestNumbers:
    @pytest.fixture
    def table(self, tmp_path: Path) -> tuple[Path, np.ndarray]:
        rng = np.random.default_rng(3)
        values = rng.normal(size=(400, 4)) * [1, 1e6, 1e-4, 2] + [0, 1.6e9, 5, 7]
        values[:, 3] = 0.1
        columns = {f"c{j}": values[:, j] for j in range(4)}
        return _parquet(tmp_path, id=[f"r{i}" for i in range(400)], **columns), values

    def test_standard_scores_have_mean_0_and_deviation_1(self, table) -> None:
        path, values = table
        vector_set = ingested(path, scale=None)
        expected = (values - values.mean(0)) / np.where(values.std(0) > 1e-9, values.std(0), 1)
        np.testing.assert_allclose(vector_set.vectors[:, :3], expected[:, :3], atol=1e-5)
        assert not vector_set.vectors[:, 3].any()
        assert vector_set.manifest.facts["constant_columns"] == ["c3"]

    def test_robust_scores_take_median_and_quartiles(self, table) -> None:
        path, values = table
        low, middle, high = np.quantile(values[:, :3], [0.25, 0.5, 0.75], axis=0)
        expected = (values[:, :3] - middle) / ((high - low) / 1.3489795)
        np.testing.assert_allclose(
            ingested(path, scale="robust").vectors[:, :3], expected, atol=1e-4
        )

    def test_an_outlier_moves_robust_scores_little(self, tmp_path: Path) -> None:
        values = [*np.linspace(0, 1, 99), 1e9]
        path = _parquet(tmp_path, id=list(range(100)), x=values)
        assert ingested(path, scale="robust").vectors[:99].std() > 0.5
        assert ingested(path, scale="standard").vectors[:99].std() < 1e-6

    def test_a_column_with_equal_quartiles_falls_back_to_its_deviation(
        self, tmp_path: Path
    ) -> None:
        path = _parquet(tmp_path, id=list(range(10)), x=[0.0] * 9 + [10.0])
        np.testing.assert_allclose(ingested(path, scale="robust").vectors[9], 10 / 3, rtol=1e-6)

    def test_a_column_too_wide_to_scale_is_refused_by_name(self, tmp_path: Path) -> None:
        path = _parquet(tmp_path, id=[1, 2], x=[-1.7e308, 1.7e308])
        with pytest.raises(InputRejected, match="'x' ranges from"):
            ingested(path, scale="standard")

    def test_categories_that_differ_are_one_standard_deviation_apart(self, tmp_path: Path) -> None:
        path = _csv(tmp_path, "id,key,x\na,C,1\nb,D,1\nc,C,1\nd,,1\n")
        vector_set = ingested(path, categorical=("key",), scale="standard")
        assert vector_set.d == 3
        assert np.linalg.norm(vector_set.vectors[0] - vector_set.vectors[1]) == pytest.approx(1)
        assert vector_set.vectors[0].tolist() == vector_set.vectors[2].tolist()
        assert vector_set.vectors.max() == np.float32(CATEGORY_WEIGHT)
        assert vector_set.recordings["key"].to_pylist() == ["C", "D", "C"]
        assert rejects_of(vector_set)[0]["reason"] == "missing value"

    def test_a_text_of_a_thousand_values_is_no_category(self, tmp_path: Path) -> None:
        path = _parquet(tmp_path, id=list(range(1001)), text=[f"n{i}" for i in range(1001)])
        with pytest.raises(InputRejected, match="too many for one-hot"):
            ingested(path, categorical=("text",))

    @pytest.mark.parametrize("space", ["l2", "cosine"])
    def test_pca_keeps_what_a_singular_value_decomposition_keeps(
        self, tmp_path: Path, space: str
    ) -> None:
        rng = np.random.default_rng(5)
        values = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 6)) + 2
        columns = {f"c{j}": values[:, j] for j in range(6)}
        vector_set = ingested(
            _parquet(tmp_path, id=list(range(300)), **columns), pca=3, space=space
        )
        centred = values - values.mean(0) if space == "l2" else values
        left, widths, _ = np.linalg.svd(centred, full_matrices=False)
        expected = left[:, :3] * widths[:3]
        np.testing.assert_allclose(
            np.abs(vector_set.vectors), np.abs(expected), atol=1e-4, rtol=1e-4
        )
        kept = (widths[:3] ** 2).sum() / (widths**2).sum()
        assert vector_set.manifest.facts["pca_variance_kept"] == pytest.approx(kept, abs=1e-6)

    def test_pca_to_more_numbers_than_there_are_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="from 1 to 2"):
            ingested(_csv(tmp_path, "id,x,y\na,1,2\nb,3,5\n"), pca=3)


class TestLabelsFrom:
    def test_labels_join_by_the_column_that_names_the_recordings(self, tmp_path: Path) -> None:
        table = _csv(tmp_path, "id,x\na,1\nb,2\nc,3\n")
        names = _csv(tmp_path, "album,track,name\n9,b,B\n9,zz,Z\n8,a,A\n7,b,again\n", "names.csv")
        vector_set = ingested(table, labels_from=names)
        assert vector_set.recordings["name"].to_pylist() == ["A", "B", None]
        assert vector_set.recordings["album"].to_pylist() == ["8", "9", None]
        assert vector_set.manifest.facts["labels_matched"] == 2

    def test_a_table_that_names_no_recording_is_refused(self, tmp_path: Path) -> None:
        table = _csv(tmp_path, "id,x\na,1\nb,2\n")
        with pytest.raises(InputRejected, match="names any of the 2 recordings"):
            ingested(table, labels_from=_csv(tmp_path, "id,name\nq,Q\n", "names.csv"))


def test_a_damaged_parquet_file_is_refused_by_name(tmp_path: Path) -> None:
    path = _parquet(tmp_path, id=list(range(1000)), x=np.arange(1000.0))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputRejected, match=r"t\.parquet can't be read as Parquet"):
        ingested(path)


def test_the_same_table_gives_the_same_fingerprint_from_csv_and_twice(tmp_path: Path) -> None:
    path = _csv(tmp_path, "id,x,title\na,1,A\nb,2,B\n")
    first = ingested(path, out=tmp_path / "one")
    assert ingested(path, out=tmp_path / "two").fingerprint == first.fingerprint


def test_lists_of_many_numbers_are_read_in_bounded_memory(tmp_path: Path) -> None:
    rows, width = 20_000, 512
    numbers = pa.array(np.zeros(rows * width, np.float32))
    lists = pa.FixedSizeListArray.from_arrays(numbers, width)
    table = parquet_table(_parquet(tmp_path, id=np.arange(rows), emb=lists))
    sizes = [len(chunk) for _, chunk in table.chunks(("id", "emb"), RejectLog())]
    assert sum(sizes) == rows
    assert max(sizes) * width <= BATCH_VALUES


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ([[1.0, 2.0], [3.0, 4.0]], ["[1,2]", "[3,4]"], "lists of 2 numbers"),
        ([1.0, 2.0], [[1.0], [2.0]], "expected numbers"),
        ([1.0, 2.0], [datetime.date(2000, 1, 1)] * 2, "expected numbers"),
    ],
)
def test_a_further_table_of_other_types_is_refused(
    tmp_path: Path, first: list[object], second: list[object], said: str
) -> None:
    one = _parquet(tmp_path, "one.parquet", id=["a", "b"], x=first)
    two = _parquet(tmp_path, "two.parquet", id=["c", "d"], x=second)
    with pytest.raises(InputRejected, match=rf"{said} in column 'x' of .*two.parquet"):
        ingested(one, two)


def test_choices_for_text_mean_nothing_for_parquet(tmp_path: Path) -> None:
    table = _parquet(tmp_path, id=["a", "b"], x=[1.0, 2.0])
    for choice in ({"delimiter": ";"}, {"header_rows": 1}):
        with pytest.raises(UsageError, match="mean nothing for Parquet"):
            ingested(table, **choice)
