"""Arrays of vectors: what is read, which ids they get, and what is refused."""

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from nearfield.errors import InputRejected, MissingFile, UsageError
from tests.ingest.table_samples import ingested, rejects_of, write_text

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


def _npy(folder: Path, array: np.ndarray, name: str = "x.npy") -> Path:
    np.save(folder / name, array, allow_pickle=True)
    return folder / name


def _npz(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(folder / "x.npz", **arrays)
    return folder / "x.npz"


@pytest.mark.parametrize("dtype", ["u1", "i8", "f2", "f4", "f8", ">f4", ">i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_real_array_becomes_float32_unscaled(tmp_path: Path, dtype: str, order: str) -> None:
    vector_set = ingested(_npy(tmp_path, np.asarray(VECTORS, dtype, order=order)), scale=None)
    assert vector_set.vectors.tolist() == VECTORS.tolist()
    assert vector_set.ids.to_pylist() == [0, 1, 2, 3]
    assert vector_set.manifest.facts["ids"] == "row numbers"


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", zstandard.compress),
    ],
)
def test_a_compressed_array_reads_like_the_plain_one(tmp_path: Path, suffix: str, compress) -> None:
    content = compress(_npy(tmp_path, VECTORS).read_bytes())
    path = tmp_path / f"x.npy{suffix}"
    path.write_bytes(content)
    vector_set = ingested(path)
    assert vector_set.vectors.tolist() == VECTORS.tolist()
    assert {entry.name for entry in vector_set.path.iterdir()} == {
        "vectors.npy",
        "recordings.parquet",
        "space.json",
        "manifest.json",
        "rejects.csv",
        ".lock",
    }
    path.write_bytes(content[:-12])
    with pytest.raises(InputRejected, match="can't be decompressed"):
        ingested(path)


class TestNpz:
    def test_vectors_ids_and_labels_are_found_by_shape_and_name(self, tmp_path: Path) -> None:
        path = _npz(
            tmp_path,
            x=VECTORS,
            y=np.array([3, 1, 4, 1], np.uint8),
            genre=np.array(["rock", "jazz", "", "pop"]),
            ids=np.array(["a", "b", "c", "d"]),
            mean=np.zeros(3),
        )
        vector_set = ingested(path)
        assert vector_set.vectors.tolist() == VECTORS.tolist()
        assert vector_set.recordings.to_pydict() == {
            "recording_id": ["a", "b", "c", "d"],
            "y": [3, 1, 4, 1],
            "genre": ["rock", "jazz", None, "pop"],
        }
        assert ingested(path, labels=("y",)).label_names == ["y"]
        with pytest.raises(UsageError, match="no label 'title'"):
            ingested(path, labels=("title",))

    def test_the_known_name_decides_among_several_matrices(self, tmp_path: Path) -> None:
        assert ingested(_npz(tmp_path, a=VECTORS, X=VECTORS + 1)).vectors[0, 0] == 1

    def test_unknown_names_are_listed(self, tmp_path: Path) -> None:
        with pytest.raises(InputRejected, match=r"a \(4, 3\), b \(4, 3\)"):
            ingested(_npz(tmp_path, a=VECTORS, b=VECTORS))

    def test_a_damaged_archive_is_refused(self, tmp_path: Path) -> None:
        path = _npz(tmp_path, x=np.random.default_rng(0).normal(size=(100, 30)))
        content = bytearray(path.read_bytes())
        path.write_bytes(content[:-50])
        with pytest.raises(InputRejected, match=r"isn't a whole \.npz"):
            ingested(path)
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
        with pytest.raises(InputRejected, match=r"isn't a whole \.npz"):
            ingested(path)

    def test_a_member_with_a_hostile_name_stays_in_scratch(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.writestr("../../x.npy", _npy(tmp_path, VECTORS, "plain.npy").read_bytes())
        assert ingested(tmp_path / "x.npz", out=tmp_path / "a" / "b").n == 4
        assert not (tmp_path / "x.npy").exists()


class TestRefused:
    @pytest.mark.parametrize(
        "array",
        [
            np.zeros(5),
            np.zeros((5, 28, 28), np.uint8),
            np.zeros((5, 0)),
            np.zeros((2, 2), complex),
            np.array([["a", "b"]]),
            np.zeros((2, 2), [("a", "f4")]),
            np.array([[{}, []]], dtype=object),
        ],
    )
    def test_what_is_no_matrix_of_numbers(self, tmp_path: Path, array: np.ndarray) -> None:
        with pytest.raises(InputRejected, match=r"expected .*x\.npy"):
            ingested(_npy(tmp_path, array))

    def test_an_empty_array(self, tmp_path: Path) -> None:
        with pytest.raises(InputRejected, match="empty"):
            ingested(_npy(tmp_path, np.zeros((0, 3))))

    @pytest.mark.parametrize("keep", [0, 5, 60, -8])
    def test_a_cut_off_file(self, tmp_path: Path, keep: int) -> None:
        path = _npy(tmp_path, VECTORS)
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(InputRejected, match=r"x\.npy"):
            ingested(path)

    def test_files_of_different_width(self, tmp_path: Path) -> None:
        second = _npy(tmp_path, VECTORS[:, :2], "second.npy")
        with pytest.raises(InputRejected, match=r"expected 3 numbers.*second\.npy has 2"):
            ingested(_npy(tmp_path, VECTORS), second)

    def test_choices_that_mean_nothing_for_arrays(self, tmp_path: Path) -> None:
        for choice in ({"columns": ("x",)}, {"id_column": "x"}, {"delimiter": ";"}):
            with pytest.raises(UsageError, match="means nothing for array"):
                ingested(_npy(tmp_path, VECTORS), **choice)


class TestRows:
    def test_rows_that_are_not_finite_are_rejected_and_the_others_keep_their_numbers(
        self, tmp_path: Path
    ) -> None:
        array = VECTORS.astype(np.float64)
        array[1, 2], array[2, 0] = np.nan, 1e200
        vector_set = ingested(_npy(tmp_path, array))
        assert vector_set.ids.to_pylist() == [0, 3]
        assert {(row["item"], row["reason"], row["detail"]) for row in rejects_of(vector_set)} == {
            ("1", "not finite", "row 1, column 2: nan"),
            ("2", "not finite", "row 2, too large for float32"),
        }

    def test_zero_rows_under_cosine_are_dropped_by_default(self, tmp_path: Path) -> None:
        array = VECTORS.copy()
        array[2] = 0
        vector_set = ingested(_npy(tmp_path, array), space="cosine")
        assert vector_set.ids.to_pylist() == [0, 1, 3]
        assert vector_set.manifest.facts["rejected"] == {"zero vector": 1}

    def test_several_files_follow_one_another(self, tmp_path: Path) -> None:
        second = _npy(tmp_path, np.full((2, 3), np.nan), "second.npy")
        vector_set = ingested(_npy(tmp_path, VECTORS), second)
        assert vector_set.n == 4
        assert [(row["source"], row["item"]) for row in rejects_of(vector_set)] == [
            (str(second), "4"),
            (str(second), "5"),
        ]

    def test_scaling_and_pca_on_request(self, tmp_path: Path) -> None:
        array = np.random.default_rng(0).normal(size=(50, 5)) * [1, 2, 3, 4, 5]
        vector_set = ingested(_npy(tmp_path, array), scale="standard", pca=2)
        assert vector_set.d == 2
        np.testing.assert_allclose(vector_set.vectors.mean(axis=0), 0, atol=1e-6)


class TestIdsFile:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("lines.txt", ["u1", "u2", "u3", "u4"]),
            ("numbers.txt", [10, 20, 30, 40]),
            ("ints.npy", [10, 20, 30, 40]),
            ("texts.npy", ["u1", "u2", "u3", "u4"]),
            ("table.csv", ["u1", "u2", "u3", "u4"]),
            ("table.parquet", ["u1", "u2", "u3", "u4"]),
        ],
    )
    def test_every_form_of_ids_is_read(self, tmp_path: Path, name: str, expected: list) -> None:
        texts, numbers = ["u1", "u2", "u3", "u4"], [10, 20, 30, 40]
        write_text(tmp_path / "lines.txt", "\ufeff" + "\r\n".join(texts) + "\r\n")
        write_text(tmp_path / "numbers.txt", "10\n20\n30\n40")
        _npy(tmp_path, np.array(numbers, np.int32), "ints.npy")
        _npy(tmp_path, np.array(texts), "texts.npy")
        write_text(tmp_path / "table.csv", "title,id\nA,u1\nB,u2\nC,u3\nD,u4\n")
        table = pa.table({"id": texts, "title": list("ABCD")})
        pq.write_table(table, tmp_path / "table.parquet")
        vector_set = ingested(_npy(tmp_path, VECTORS), ids=tmp_path / name)
        assert vector_set.ids.to_pylist() == expected
        if name.startswith("table"):
            assert vector_set.recordings["title"].to_pylist() == ["A", "B", "C", "D"]

    def test_another_number_of_ids_is_refused(self, tmp_path: Path) -> None:
        ids = write_text(tmp_path / "ids.txt", "a\nb\nc\n")
        with pytest.raises(InputRejected, match=r"expected 4 ids.*ids\.txt has 3"):
            ingested(_npy(tmp_path, VECTORS), ids=ids)

    def test_repeated_and_empty_ids_are_rejected(self, tmp_path: Path) -> None:
        ids = write_text(tmp_path / "ids.txt", "a\nb\n\na\n")
        vector_set = ingested(_npy(tmp_path, VECTORS), ids=ids)
        assert vector_set.ids.to_pylist() == ["a", "b"]
        assert vector_set.manifest.facts["rejected"] == {"no id": 1, "duplicate id": 1}

    def test_an_id_that_nobody_could_store_is_rejected(self, tmp_path: Path) -> None:
        ids = write_text(tmp_path / "ids.txt", "a\nb\0c\nd\ne\n")
        vector_set = ingested(_npy(tmp_path, VECTORS), ids=ids)
        assert vector_set.ids.to_pylist() == ["a", "d", "e"]
        assert vector_set.manifest.facts["rejected"] == {"id with a character 0": 1}

    def test_a_missing_ids_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(MissingFile, match=r"no ids file .*nowhere\.txt"):
            ingested(_npy(tmp_path, VECTORS), ids=tmp_path / "nowhere.txt")

    @pytest.mark.parametrize("array", [np.zeros((4, 1), int), np.array([0.5, 1, 2, 3])])
    def test_ids_of_another_form_are_refused(self, tmp_path: Path, array: np.ndarray) -> None:
        ids = _npy(tmp_path, array, "ids.npy")
        with pytest.raises(InputRejected, match="one-dimensional array of integers or text"):
            ingested(_npy(tmp_path, VECTORS), ids=ids)


@pytest.mark.parametrize("suffix", [".npz", ".npy.gz"])
def test_sources_of_one_name_stay_apart(tmp_path: Path, suffix: str) -> None:
    months = []
    for number, rows in (("1", 4), ("2", 3)):
        folder = tmp_path / number
        folder.mkdir()
        array = VECTORS[:rows] + int(number) * 100
        if suffix == ".npz":
            ids = np.array([f"{number}-{row}" for row in range(rows)])
            months.append(_npz(folder, vectors=array, ids=ids))
        else:
            plain = _npy(folder, array)
            months.append(folder / "x.npy.gz")
            months[-1].write_bytes(gzip.compress(plain.read_bytes()))
    vector_set = ingested(*months, out=tmp_path / "vectors")
    expected = np.concatenate([VECTORS + 100, VECTORS[:3] + 200])
    assert vector_set.vectors.tolist() == expected.tolist()
    if suffix == ".npz":
        assert vector_set.ids.to_pylist() == ["1-0", "1-1", "1-2", "1-3", "2-0", "2-1", "2-2"]
