"""A result file: read back as written, and refused once anything about it changed."""

import numpy as np
import pytest

from benchmark.results.file import Measured, Result, read_measured, read_outcomes, write_result
from benchmark.results.outcome import Outcome, Status

ROW = Outcome("songs", "l2", 100, 4, 3, "queries", 100, "annoy", "trees=10", "", 2, recall=0.5)
FAILED = Outcome(
    "songs", "l2", 100, 4, 3, "queries", 300, "annoy", "trees=10", "", 2,
    status=Status.TIMEOUT, reason="stopped after 5 s",
)  # fmt: skip


@pytest.fixture
def written(tmp_path):
    measured = Measured(
        np.array([[0.5, 0.25]]),
        np.arange(30, dtype=np.int32).reshape(1, 10, 3),
        np.ones((1, 10, 3), np.float32),
    )
    result = Result((ROW, FAILED), np.arange(10, dtype=np.int32), {100: measured})
    write_result(tmp_path / "a.h5", result, fingerprint="f" * 16, facts={"seconds": 1.5})
    return tmp_path / "a.h5"


def test_it_comes_back_as_written(written):
    manifest, outcomes = read_outcomes(written)
    rows, measured = read_measured(written)
    assert outcomes == [ROW, FAILED]
    assert (manifest.fingerprint, manifest.facts["seconds"]) == ("f" * 16, 1.5)
    assert rows.tolist() == list(range(10))
    assert measured[100].times.tolist() == [[0.5, 0.25]]
    assert measured[100].neighbours.tolist() == np.arange(30).reshape(1, 10, 3).tolist()


def test_a_result_without_figures_has_no_arrays(tmp_path):
    empty = Result((FAILED,), np.empty(0, np.int32), {})
    write_result(tmp_path / "a.h5", empty, fingerprint="f", facts={})
    assert read_outcomes(tmp_path / "a.h5")[1] == [FAILED]
    assert read_measured(tmp_path / "a.h5")[1] == {}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.unlink(),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text("[]"),
    ],
    ids=["flipped", "cut off", "gone", "no manifest", "broken manifest", "another manifest"],
)
def test_a_broken_file_counts_as_none(written, damage):
    damage(written)
    assert read_outcomes(written) is None
