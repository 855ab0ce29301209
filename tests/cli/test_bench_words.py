"""What `nearfield bench` prints at its end."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.runner.bench import BenchReport
from nearfield.cli.benching import _print_report

REPORT = BenchReport(
    Path("out"), "songs", (10,), {}, 0, 0, tuple(f"m{i}" for i in range(20)), (),
    Path("out/choice.toml"), Path("out/report.html"), 3, 1.0,
)  # fmt: skip


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("v").mkdir()

    def printed(report, vectors, space=None):
        _print_report(report, Path(vectors), space)
        return capsys.readouterr().out

    return printed


def test_what_the_budget_left_out_is_named_as_far_as_one_can_take_in(said):
    printed = said(REPORT, "v")
    assert printed.count("dropped") == 9
    assert "and of 12 others; outcomes.csv names what" in printed
    assert "others" not in said(replace(REPORT, dropped=("a", "b")), "v")


def test_a_vector_set_is_built_next_a_file_is_ingested_before(said):
    build = "nearfield build {} --out RUN --choice out/choice.toml\n"
    assert f"next       {build.format('v')}" in said(REPORT, "v")
    printed = said(REPORT, "songs.npy", "cosine")
    assert "next       nearfield ingest songs.npy --out VECTORS --space cosine\n" in printed
    assert f"then       {build.format('VECTORS')}" in printed
    assert "ingest songs.hdf5 --out VECTORS\n" in said(REPORT, "songs.hdf5")


def test_a_choice_without_candidates_is_not_recommended(said):
    assert "next       nearfield build v --out RUN\n" in said(replace(REPORT, candidates=0), "v")
