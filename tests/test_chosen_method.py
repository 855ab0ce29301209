"""What a build takes from a benchmark's choice, and what it says of it."""

import numpy as np
import pytest

from benchmark.choice import Searched, write_choice
from index_build.plan import plan_for
from nearfield import api
from nearfield.errors import QualityGate
from nearfield.run import RunConfig
from tests.benchmark.test_choice import row
from tests.index_build.builds import vector_set

N = 400


@pytest.fixture
def opened(tmp_path):
    return vector_set(tmp_path / "vectors", np.eye(N, 8, dtype=np.float32) + 1)


def beside(opened, rows, space="l2"):
    folder = opened.path.parent / "bench"
    folder.mkdir()
    about = Searched("songs", opened.fingerprint, space, N, 8, 2)
    write_choice(folder / "choice.toml", about, rows)
    return folder / "choice.toml"


def test_the_reason_says_whose_figures_it_names(opened):
    beside(opened, [row("annoy", 0.97, 10.0, n=300, build="trees=5")])
    chosen = api.chosen_method(opened.path, api.Wanted(10, 0.95))
    assert chosen.method == "annoy(trees=5)"
    assert "with recall 0.970 on 300 rows, 13.3 s and" in chosen.reason
    assert "figures of the benchmark, the time foretold for 400 rows" in chosen.reason


def test_a_k_that_was_not_measured_is_said(opened):
    beside(opened, [row("annoy", 0.97, 10.0, n=300, build="trees=5")])
    chosen = api.chosen_method(opened.path, api.Wanted(50, 0.95))
    assert "for k = 10, not the asked 50" in chosen.reason
    assert "not the asked" not in api.chosen_method(opened.path, api.Wanted(10, 0.95)).reason


@pytest.mark.parametrize("limit", [{"memory_bytes": 2**40}, {"time_s": 1e9}])
def test_limits_are_refused_for_a_k_beyond_what_was_measured(opened, limit):
    beside(opened, [row("annoy", 0.97, 10.0, n=300)])
    with pytest.raises(QualityGate, match=r"measured k up to 10: .* -k 50\), or build without"):
        api.chosen_method(opened.path, api.Wanted(50, 0.95, **limit))
    assert api.chosen_method(opened.path, api.Wanted(5, 0.95, **limit)).candidate.k == 10


@pytest.mark.parametrize("rows", [[], [row("annoy", 0.5, 10.0, n=300)]])
def test_a_choice_that_has_nothing_leaves_a_plain_build_to_itself(opened, rows):
    file = beside(opened, rows)
    chosen = api.chosen_method(opened.path, api.Wanted(10, 0.95))
    assert (chosen.method, chosen.candidate) == ("auto", None)
    assert f"{file} isn't followed: " in chosen.reason
    for asked in ({"choice": file}, {}):
        wanted = api.Wanted(10, 0.95) if asked else api.Wanted(10, 0.95, time_s=60)
        with pytest.raises(QualityGate):
            api.chosen_method(opened.path, wanted, **asked)


def test_a_file_of_an_older_benchmark_names_no_way_that_a_build_lacks(tmp_path):
    opened = vector_set(tmp_path / "vectors", np.eye(N, 8, dtype=np.float32) + 1, space="ip")
    file = beside(opened, [row("annoy", 0.97, 1.0), row("selfjoin", 0.99, 9.0)], space="ip")
    assert "annoy" in file.read_text()
    chosen = api.chosen_method(opened.path, api.Wanted(10, 0.95))
    assert chosen.method == "selfjoin"
    config = RunConfig(
        vectors="v", vectors_fingerprint="f", n=N, d=8, space="ip", k=10, recall=0.95,
        method=chosen.method, seed=0,
    )  # fmt: skip
    assert plan_for(config, N).method
