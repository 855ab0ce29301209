"""The vector set on disk: what goes in comes out, and damage never passes for data."""

import errno
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nearfield.errors import DamagedArtefact, DiskFull, InputRejected, MissingFile
from nearfield.space import Block
from nearfield.vectorset import (
    FILES,
    Geometry,
    VectorSet,
    open_vector_set,
    row_blocks,
    write_vector_set,
)

VECTORS = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
GEOMETRY = Geometry(
    "cosine", (Block("mfcc", 0, 3, weight=2.0), Block("bpm", 3, 5, circular=True)), {"mean": [0.1]}
)


def _recordings(n: int = 40, **labels: object) -> pa.Table:
    return pa.table({"recording_id": [f"r{i}" for i in range(n)], **labels})


@pytest.fixture
def vector_set(tmp_path: Path) -> VectorSet:
    titles = [None if i % 7 == 0 else f"title {i}" for i in range(40)]
    return write_vector_set(tmp_path / "v", VECTORS, _recordings(title=titles), GEOMETRY)


ids = st.one_of(
    st.lists(st.text(min_size=1), min_size=1, max_size=20, unique=True),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20, unique=True),
)


@given(data=st.data(), recording_ids=ids, d=st.integers(1, 4))
@settings(max_examples=30)
def test_what_was_written_is_read_back(data, recording_ids: list, d: int) -> None:
    n = len(recording_ids)
    numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
    vectors = data.draw(arrays.arrays(np.float32, (n, d), elements=numbers))
    labels = data.draw(st.lists(st.none() | st.text(), min_size=n, max_size=n))
    table = pa.table({"recording_id": recording_ids, "title": pa.array(labels, pa.string())})
    with tempfile.TemporaryDirectory() as name:
        write_vector_set(Path(name) / "v", vectors, table, GEOMETRY, facts={"source": "drawn"})
        found = open_vector_set(Path(name) / "v")
        assert np.array_equal(found.vectors.view(np.uint32), vectors.view(np.uint32))
        assert found.recordings.to_pydict() == table.to_pydict()
        stream = found.id_stream
        read = [name for batch in stream.batches() for name in batch.to_pylist()]
        assert (read, stream.n) == (recording_ids, n)
        assert stream.numbers == isinstance(recording_ids[0], int)
        assert stream.nbytes >= sum(len(str(name)) for name in read if isinstance(name, str))
        assert found.geometry == GEOMETRY
        assert (found.n, found.d, found.label_names) == (n, d, ["title"])
        assert found.manifest.facts["source"] == "drawn"
        assert found.row_of(str(recording_ids[-1])) == n - 1


def test_vectors_are_a_read_only_map_in_c_order(vector_set: VectorSet) -> None:
    assert isinstance(vector_set.vectors, np.memmap)
    assert vector_set.vectors.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        vector_set.vectors[0, 0] = 1


def test_any_memory_order_is_written_alike(vector_set: VectorSet, tmp_path: Path) -> None:
    turned = write_vector_set(
        tmp_path / "f", np.asfortranarray(VECTORS), _recordings(), vector_set.geometry
    )
    np.testing.assert_array_equal(turned.vectors, VECTORS)


def test_an_unknown_recording_has_no_row(vector_set: VectorSet) -> None:
    assert vector_set.row_of("r7") == 7
    assert vector_set.row_of("nobody") is None


class TestFingerprint:
    def test_place_and_time_do_not_enter(self, vector_set: VectorSet, tmp_path: Path) -> None:
        time.sleep(1.1)  # the manifest's date has seconds
        again = write_vector_set(
            tmp_path / "elsewhere" / "v",
            VECTORS,
            pa.table(vector_set.recordings.to_pydict()),
            GEOMETRY,
            facts={"source": "another"},
        )
        assert again.manifest.created != vector_set.manifest.created
        assert again.fingerprint == vector_set.fingerprint

    def test_every_part_of_the_content_enters(self, tmp_path: Path) -> None:
        nudged = VECTORS.copy()
        nudged[39, 4] = np.nextafter(nudged[39, 4], np.float32(9))
        swapped = _recordings().take([1, 0, *range(2, 40)])
        variants = [
            (VECTORS, _recordings(), GEOMETRY),
            (nudged, _recordings(), GEOMETRY),
            (VECTORS, swapped, GEOMETRY),
            (VECTORS, _recordings(title=["t"] * 40), GEOMETRY),
            (VECTORS, _recordings(title=["t"] * 39 + ["u"]), GEOMETRY),
            (VECTORS, _recordings(), Geometry("l2", GEOMETRY.blocks, GEOMETRY.statistics)),
            (VECTORS, _recordings(), Geometry("cosine", (), GEOMETRY.statistics)),
            (VECTORS, _recordings(), Geometry("cosine", GEOMETRY.blocks, {"mean": [0.2]})),
        ]
        found = {
            write_vector_set(tmp_path / str(i), *variant).fingerprint
            for i, variant in enumerate(variants)
        }
        assert len(found) == len(variants)


class TestDamage:
    @pytest.mark.parametrize("name", [*FILES, "manifest.json"])
    @pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
    def test_a_truncated_file_is_noticed(
        self, vector_set: VectorSet, name: str, share: float
    ) -> None:
        path = vector_set.path / name
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(DamagedArtefact, match=name):
            open_vector_set(vector_set.path, verify=False)

    @pytest.mark.parametrize("name", FILES)
    def test_a_flipped_bit_is_noticed(self, vector_set: VectorSet, name: str) -> None:
        path = vector_set.path / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(DamagedArtefact, match="checksum"):
            open_vector_set(vector_set.path)

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file_is_noticed(self, vector_set: VectorSet, name: str) -> None:
        (vector_set.path / name).unlink()
        with pytest.raises(DamagedArtefact, match="missing"):
            open_vector_set(vector_set.path)

    def test_without_a_manifest_there_is_no_vector_set(self, vector_set: VectorSet) -> None:
        (vector_set.path / "manifest.json").unlink()
        with pytest.raises(MissingFile, match="interrupted"):
            open_vector_set(vector_set.path)

    def test_a_wrong_path_says_how_to_make_one(self, tmp_path: Path) -> None:
        with pytest.raises(MissingFile, match="nearfield ingest"):
            open_vector_set(tmp_path / "nowhere")

    def test_a_manifest_of_another_kind_is_refused(self, vector_set: VectorSet) -> None:
        path = vector_set.path / "manifest.json"
        path.write_text(path.read_text().replace("vector set", "matrix"))
        with pytest.raises(DamagedArtefact, match="found a matrix"):
            open_vector_set(vector_set.path)

    def test_recordings_of_a_newer_set_do_not_join_older_vectors(
        self, vector_set: VectorSet
    ) -> None:
        reader = open_vector_set(vector_set.path)
        write_vector_set(
            vector_set.path, VECTORS[::-1].copy(), _recordings(title=["x"] * 40), GEOMETRY
        )
        np.testing.assert_array_equal(reader.vectors, VECTORS)
        with pytest.raises(DamagedArtefact, match="replaced"):
            _ = reader.recordings
        with pytest.raises(DamagedArtefact, match="replaced"):
            next(reader.id_stream.batches())


class TestRefused:
    @pytest.mark.parametrize(
        "vectors",
        [
            np.empty((0, 3), np.float32),
            np.empty((3, 0), np.float32),
            np.zeros(3, np.float32),
            np.zeros((3, 3), np.float64),
        ],
    )
    def test_wrong_shapes_and_types(self, tmp_path: Path, vectors: np.ndarray) -> None:
        with pytest.raises(InputRejected, match="expected vectors float32"):
            write_vector_set(tmp_path / "v", vectors, _recordings(len(vectors)), GEOMETRY)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_numbers_that_are_not_finite(self, tmp_path: Path, value: float) -> None:
        vectors = VECTORS.copy()
        vectors[17, 2] = value
        with pytest.raises(InputRejected, match="row 17"):
            write_vector_set(tmp_path / "v", vectors, _recordings(), GEOMETRY)
        assert not (tmp_path / "v" / "manifest.json").exists()

    @pytest.mark.parametrize(
        ("recordings", "message"),
        [
            (_recordings(39), "expected 40 ids"),
            (pa.table({"recording_id": ["a", None, *map(str, range(38))]}), "no id"),
            (pa.table({"recording_id": ["a", "a", *map(str, range(38))]}), "first: 'a'"),
        ],
    )
    def test_ids_that_do_not_fit(self, tmp_path: Path, recordings: pa.Table, message: str) -> None:
        with pytest.raises(InputRejected, match=message):
            write_vector_set(tmp_path / "v", VECTORS, recordings, GEOMETRY)


@given(n=st.integers(0, 50), d=st.integers(1, 9), block_bytes=st.integers(1, 400))
def test_blocks_of_rows_follow_one_another_within_their_size(
    n: int, d: int, block_bytes: int
) -> None:
    vectors = np.arange(n * d, dtype=np.float32).reshape(n, d)
    blocks = list(row_blocks(vectors, block_bytes))
    assert np.array_equal(np.concatenate([np.empty((0, d), np.float32), *blocks]), vectors)
    assert all(len(block) == 1 or block.nbytes <= block_bytes for block in blocks)


def test_a_copied_directory_is_the_same_vector_set(vector_set: VectorSet, tmp_path: Path) -> None:
    shutil.copytree(vector_set.path, tmp_path / "copy")
    assert open_vector_set(tmp_path / "copy").fingerprint == vector_set.fingerprint


def test_a_set_stays_until_all_that_replaces_it_is_written(tmp_path, monkeypatch):
    old = write_vector_set(tmp_path / "v", VECTORS, _recordings(), GEOMETRY)

    def full(*_words, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nearfield.vectorset.pq.write_table", full)
    with pytest.raises(DiskFull):
        write_vector_set(tmp_path / "v", VECTORS + 1, _recordings(), GEOMETRY)
    again = open_vector_set(tmp_path / "v")
    assert again.fingerprint == old.fingerprint
    assert again.vectors.tolist() == VECTORS.tolist()
    assert not [path for path in (tmp_path / "v").iterdir() if ".partial-" in path.name]
