"""HDF5 files in the layout of ann-benchmarks, ours and hostile ones."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from nearfield.errors import InputRejected
from tests.ingest.table_samples import ingested, write_text

TRAIN = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)


def _file(folder: Path, name: str = "d.hdf5", distance: str | None = "euclidean", **how) -> Path:
    with h5py.File(folder / name, "w") as file:
        if distance is not None:
            file.attrs["distance"] = distance
        file.create_dataset("train", data=TRAIN, **how)
        file["test"] = TRAIN[:5]
    return folder / name


@pytest.mark.parametrize(
    ("distance", "space"), [("euclidean", "l2"), ("angular", "cosine"), (None, "l2")]
)
def test_the_attribute_decides_the_space(tmp_path: Path, distance: str | None, space: str) -> None:
    vector_set = ingested(_file(tmp_path, distance=distance))
    assert vector_set.geometry.space == space
    np.testing.assert_array_equal(vector_set.vectors, TRAIN)
    assert vector_set.ids.to_pylist() == list(range(300))


def test_a_space_that_is_asked_for_wins(tmp_path: Path) -> None:
    assert ingested(_file(tmp_path), space="ip").geometry.space == "ip"


@pytest.mark.parametrize("distance", ["jaccard", "hamming"])
def test_distances_without_a_space_are_refused(tmp_path: Path, distance: str) -> None:
    with pytest.raises(InputRejected, match=f"distance '{distance}'"):
        ingested(_file(tmp_path, distance=distance))


def test_chunked_and_compressed_data_with_ids(tmp_path: Path) -> None:
    ids = write_text(tmp_path / "ids.txt", "\n".join(f"r{i}" for i in range(300)))
    path = _file(tmp_path, "d.h5", chunks=(64, 8), compression="gzip", fletcher32=True)
    vector_set = ingested(path, ids=ids)
    np.testing.assert_array_equal(vector_set.vectors, TRAIN)
    assert vector_set.ids[299].as_py() == "r299"


def test_a_file_without_train_lists_what_there_is(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["vectors"] = TRAIN
    with pytest.raises(InputRejected, match="found vectors"):
        ingested(tmp_path / "d.h5")


def test_what_is_no_hdf5_or_cut_off_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(InputRejected, match="can't be read as HDF5"):
        ingested(path)
    path.write_bytes(b"plain text")
    with pytest.raises(InputRejected, match="can't be read as HDF5"):
        ingested(path)


def test_a_flipped_bit_under_a_checksum_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, chunks=(300, 8), fletcher32=True)
    content = bytearray(path.read_bytes())
    content[content.index(TRAIN[:4].tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputRejected, match="damaged"):
        ingested(path)


def _external_link(file: h5py.File, other: Path) -> None:
    file["train"] = h5py.ExternalLink(str(other), "/train")


def _soft_link(file: h5py.File, other: Path) -> None:
    file["train"] = h5py.SoftLink("/elsewhere")


def _external_storage(file: h5py.File, other: Path) -> None:
    file.create_dataset("train", (10, 8), "f4", external=[(str(other), 0, 320)])


def _virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((300, 8), "f4")
    layout[:] = h5py.VirtualSource(str(other), "train", (300, 8))
    file.create_virtual_dataset("train", layout)


def _group(file: h5py.File, other: Path) -> None:
    file.create_group("train")


def _never_written(file: h5py.File, other: Path) -> None:
    file.create_dataset("train", (1 << 40, 1 << 10), "f4")


def _partly_written(file: h5py.File, other: Path) -> None:
    file.create_dataset("train", (300, 8), "f4", chunks=(100, 8))[:100] = 1


@pytest.mark.parametrize(
    "fill",
    [
        _external_link,
        _soft_link,
        _external_storage,
        _virtual,
        _group,
        _never_written,
        _partly_written,
    ],
)
def test_data_that_the_file_does_not_hold_itself_is_refused(tmp_path: Path, fill) -> None:
    other = _file(tmp_path, "other.h5")
    with h5py.File(tmp_path / "d.h5", "w", libver="latest") as file:
        fill(file, other)
    with pytest.raises(InputRejected, match=r"in .*d\.h5"):
        ingested(tmp_path / "d.h5")


def test_files_of_different_distances_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRejected, match="one distance"):
        ingested(_file(tmp_path), _file(tmp_path, "e.hdf5", distance="angular"))
