"""Numbers without names become the vectors that their set's sources became."""

import numpy as np
import pytest

from nearfield.errors import InputRejected, UsageError
from nearfield.ingest import ingest
from nearfield.ingest.metrics import fitted, metric_space
from nearfield.ingest.options import IngestOptions, TableOptions
from nearfield.ingest.queries import vectors_of
from nearfield.vectorset import Geometry, open_vector_set

RAW = np.random.default_rng(3).normal(7, 50, (60, 4))


def array_set(folder, **options):
    np.save(folder / "raw.npy", RAW)
    ingest([folder / "raw.npy"], folder / "set", IngestOptions(tables=TableOptions(**options)))
    return open_vector_set(folder / "set")


def table_set(folder, **options):
    names = ("id", "a", "b", "c", "d", "mood")
    lines = [
        f"t{row},{','.join(map(repr, numbers.tolist()))},{'sad' if row % 2 else 'glad'}"
        for row, numbers in enumerate(RAW)
    ]
    (folder / "raw.csv").write_text("\n".join([",".join(names), *lines]) + "\n")
    ingest([folder / "raw.csv"], folder / "set", IngestOptions(tables=TableOptions(**options)))
    return open_vector_set(folder / "set")


@pytest.mark.parametrize("made", [array_set, table_set])
@pytest.mark.parametrize(
    "options", [{}, {"scale": "standard"}, {"scale": "robust", "pca": 2}, {"scale": "none"}]
)
def test_raw_rows_become_the_vectors_of_the_set(tmp_path, made, options):
    made_set = made(tmp_path, **options)
    np.testing.assert_allclose(
        vectors_of(RAW, made_set.geometry), made_set.vectors, rtol=1e-6, atol=1e-6
    )


def test_rows_of_a_set_that_was_never_ingested_are_its_vectors():
    np.testing.assert_array_equal(vectors_of(RAW, Geometry()), RAW.astype(np.float32))


def test_what_float32_cant_hold_is_infinite(tmp_path):
    assert np.isinf(vectors_of(np.full((1, 4), 1e300), array_set(tmp_path).geometry)).all()


def test_another_width_is_refused(tmp_path):
    geometry = array_set(tmp_path, scale="standard", pca=2).geometry
    for shape in ((3, 2), (5,), (2, 4, 1)):
        with pytest.raises(InputRejected, match="rows of 4 numbers"):
            vectors_of(np.ones(shape), geometry)


def test_rows_that_are_more_than_numbers_are_refused(tmp_path):
    categories = table_set(tmp_path, categorical=("mood",)).geometry
    with pytest.raises(UsageError, match=r"categories \(mood\)"):
        vectors_of(RAW, categories)
    documents = fitted(np.ones((3, 64)), metric_space("mfccs"))
    with pytest.raises(UsageError, match="made of documents"):
        vectors_of(RAW, documents)
