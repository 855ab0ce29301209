"""Real tables and arrays, where they are there: what a user would do with them first."""

from pathlib import Path

import numpy as np
import pytest

from nearfield.errors import InputRejected
from tests.ingest.table_samples import ingested


def _same_label_share(vectors: np.ndarray, labels: list, k: int = 10) -> float:
    """Share of the k nearest (l2, by a plain matrix product) with the label of the query."""
    names = np.array(labels)
    squares = (vectors**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * vectors @ vectors.T
    np.fill_diagonal(distances, np.inf)
    nearest = np.argpartition(distances, k, axis=1)[:, :k]
    return float((names[nearest] == names[:, None]).mean())


def test_the_summary_table_with_titles_from_another_file(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "acousticbrainz-summary-19k"
    vector_set = ingested(
        folder / "acousticbrainz-full.csv.gz",
        out=tmp_path / "v",
        scale=None,
        categorical=("song_key",),
        labels_from=folder / "tracks.csv.gz",
    )
    assert (vector_set.n, vector_set.d) == (19_048, 6 + 24)
    assert vector_set.manifest.facts["labels_matched"] == 19_048
    assert vector_set.recordings["name"].null_count == 0
    numbers = vector_set.vectors[:, :6].astype(np.float64)
    np.testing.assert_allclose(numbers.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(numbers.std(axis=0), 1, atol=1e-5)


def test_genres_of_neighbours_agree_once_columns_are_scaled(
    real_data: Path, tmp_path: Path
) -> None:
    folder = real_data / "fma-small-librosa42"
    shares = {
        scale: _same_label_share(vector_set.vectors, vector_set.recordings["genre_id"].to_pylist())
        for scale in ("none", "standard", "robust")
        for vector_set in [
            ingested(
                folder / "train_features.csv.gz",
                out=tmp_path / scale,
                scale=scale,
                labels_from=folder / "train.csv",
            )
        ]
    }
    # eight balanced genres: chance gives 0.125
    assert shares["standard"] > 0.35
    assert shares["standard"] > shares["none"] + 0.05
    assert shares["robust"] > shares["none"] + 0.05


def test_a_table_with_several_header_rows_and_empty_rows(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "fma-ntds-2000x140" / "fma_features.csv.gz"
    with pytest.raises(InputRejected, match="--header-rows"):
        ingested(path, out=tmp_path / "v")
    vector_set = ingested(
        path,
        out=tmp_path / "v",
        header_rows=4,
        labels_from=real_data / "fma-ntds-2000x140" / "fma_tracks.csv",
    )
    assert (vector_set.n, vector_set.d) == (1_990, 140)
    assert vector_set.manifest.facts["rejected"] == {"missing value": 10}
    assert vector_set.recordings["genre"].null_count == 0


def test_chroma_frames_under_cosine_lose_their_zero_rows(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "billboard-chroma24" / "chroma24_dev.f32.npy.zst"
    vector_set = ingested(path, out=tmp_path / "v", space="cosine", max_rejected=0.05)
    assert (vector_set.n, vector_set.d) == (496_468 - 7_999, 24)
    assert vector_set.manifest.facts["rejected"] == {"zero vector": 7_999}
    assert ingested(path, out=tmp_path / "l2").n == 496_468


def test_digits_with_labels_and_descriptors_with_ids(real_data: Path, tmp_path: Path) -> None:
    digits = ingested(real_data / "mnist-like-30k" / "mnist_t10k.npz", out=tmp_path / "d")
    assert (digits.n, digits.d, digits.label_names) == (10_000, 784, ["y"])
    folder = real_data / "sift5k-ngt"
    sift = ingested(folder / "sift5k.u8.npy", out=tmp_path / "s", ids=folder / "sift5k.ids.npy")
    assert (sift.n, sift.d) == (5_000, 128)
    assert sift.ids[0].as_py() == 100_001
    assert sift.vectors.max() == 191
