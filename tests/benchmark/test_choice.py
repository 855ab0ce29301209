"""The choice file: what gets in, what a build takes from it, what it says when nothing fits."""

import dataclasses

import pytest

from benchmark.candidates import candidates_of
from benchmark.choice import Searched, Wanted, choose, grown, read_choice, write_choice
from benchmark.report.advice import advices
from benchmark.results.outcome import Outcome, Status
from nearfield.errors import MissingFile, QualityGate, UsageError

ABOUT = Searched("songs", "f" * 16, "l2", 10_000, 8, 2)
GIB = 2**30


def row(method, recall, seconds, n=10_000, k=10, **more):
    facts = {
        "build": "", "search": "", "build_s": 1.0, "recall": recall, "total_s": seconds,
        "repetition_seconds": (seconds - 1.0,), "peak_bytes": GIB, "baseline_bytes": 0,
    }  # fmt: skip
    facts |= more
    build, search = facts.pop("build"), facts.pop("search")
    return Outcome("songs", "l2", n, 8, k, "all", 0, method, build, search, 2, **facts)


ROWS = [
    row("annoy", 0.90, 10.0, build="trees=10", search="search_k=50"),
    row("hnswlib", 0.97, 20.0, build="links=16", peak_bytes=3 * GIB),
    row("faiss-flat", 1.00, 100.0),
    row("faiss-ivf", 0.89, 11.0),
    row("selfjoin", 0.95, 30.0, build="recall=0.95", peak_bytes=GIB // 2),
]


@pytest.fixture
def choice(tmp_path):
    return write_choice(tmp_path / "choice.toml", ABOUT, ROWS)


def test_what_another_way_beats_is_left_out(choice):
    assert [one.method for one in choice.candidates] == [
        "annoy", "hnswlib", "selfjoin", "faiss-flat",
    ]  # fmt: skip


def test_failures_queries_and_limited_repeats_do_not_count():
    other = [
        dataclasses.replace(ROWS[0], status=Status.CRASHED),
        dataclasses.replace(ROWS[0], workload="queries"),
        dataclasses.replace(ROWS[0], memory_limit_bytes=5),
    ]
    assert candidates_of(other, 10_000) == []


def test_what_compares_every_pair_is_taken_to_grow_with_the_square_of_n():
    measured = [row("faiss-flat", 1.0, 0.4, n=10_000), row("faiss-hnsw", 0.99, 2.0, n=10_000)]
    graph, flat = candidates_of(measured, 1_000_000)
    assert (graph.method, graph.time_s) == ("faiss-hnsw", pytest.approx(200))
    assert (flat.method, flat.time_s) == ("faiss-flat", pytest.approx(4_000))
    assert graph.measured_sizes == 1


def test_a_sentence_from_a_single_size_says_that_its_growth_is_assumed(tmp_path):
    about = dataclasses.replace(ABOUT, n=1_000_000)
    once = [row("faiss-hnsw", 0.99, 2.0, n=10_000)]
    twice = [*once, row("faiss-hnsw", 0.99, 22.0, n=100_000)]
    for measured, assumed in ((once, True), (twice, False)):
        choice = write_choice(tmp_path / "choice.toml", about, measured)
        (advice,) = advices(choice, measured)
        assert "foretold from 1" in advice.sentence
        assert ("how it grows is assumed" in advice.sentence) == assumed


def test_the_file_reads_back(tmp_path, choice):
    assert read_choice(tmp_path / "choice.toml") == choice


@pytest.mark.parametrize(
    ("wanted", "way"),
    [
        (Wanted(10, 0.9), "annoy(trees=10)"),
        (Wanted(5, 0.96), "hnswlib(links=16)"),
        (Wanted(10, 0.93, memory_bytes=2 * GIB), "selfjoin"),
        (Wanted(10, 0.99, time_s=200), "faiss-flat"),
        (Wanted(5_000, 0.9), "annoy(trees=10)"),
    ],
)
def test_the_fastest_within_the_limits_is_taken(choice, wanted, way):
    assert choose(choice, wanted).way == way


def test_when_nothing_fits_the_nearest_is_named(choice):
    with pytest.raises(
        QualityGate,
        match=r"nothing measured reaches recall 0.96 within 1.00 GiB and 25 s for k = 10. "
        r"Nearest comes selfjoin with recall 0.950 on 10,000 rows, 30.0 s and 0.50 GiB",
    ):
        choose(choice, Wanted(10, 0.96, memory_bytes=GIB, time_s=25))


def test_a_benchmark_without_the_workload_all_has_nothing_to_choose(tmp_path):
    empty = write_choice(tmp_path / "choice.toml", ABOUT, [])
    with pytest.raises(QualityGate, match="no way to make all neighbours"):
        choose(empty, Wanted(10, 0.9))


def test_time_and_memory_are_foretold_for_the_whole_set():
    rows = [
        row("annoy", 0.9, 1.0 + n / 1_000, n=n, repetition_seconds=(n / 1_000,), total_s=n / 1_000,
            build_s=0.0)
        for n in (1_000, 2_000, 4_000)
    ]  # fmt: skip
    (one,) = candidates_of(rows, 8_000)
    assert (one.measured_n, one.exponent) == (4_000, pytest.approx(1))
    assert one.time_s == pytest.approx(8)
    assert one.time_low_s == pytest.approx(8)
    assert one.memory_bytes == 2 * GIB


def test_what_small_sizes_spend_on_starting_is_not_growth():
    def way(n, seconds):
        return row("selfjoin", 0.99, seconds, n=n, build_s=0.0, repetition_seconds=(seconds,))

    (one,) = candidates_of([way(1_000, 0.4), way(10_000, 2.0)], 100_000)
    assert one.exponent == 1
    assert one.time_s == pytest.approx(20)
    three = [way(1_000, 0.4), way(10_000, 2.0), way(5_000, 1.3)]
    (one,) = candidates_of(three, 100_000)
    assert one.time_s == pytest.approx(20)
    assert one.time_low_s < one.time_s < one.time_high_s


def test_a_set_that_has_grown_takes_longer(choice):
    larger = grown(choice, 20_000)
    assert [one.time_s for one in larger.candidates] == pytest.approx([20, 40, 60, 400])
    assert larger.candidates[0].memory_bytes == 2 * choice.candidates[0].memory_bytes


def test_a_missing_or_wrong_file_is_named(tmp_path, choice):
    with pytest.raises(MissingFile, match="nearfield bench VECTORS"):
        read_choice(tmp_path / "none.toml")
    path = tmp_path / "choice.toml"
    text = path.read_text()
    path.write_text(text.replace("time_s = 10.0", 'time_s = "soon"'))
    with pytest.raises(UsageError, match=r"can't be used.*time_s"):
        read_choice(path)
    path.write_text(text.replace("format = 1", "format = 9"))
    with pytest.raises(UsageError, match=r"format 1, .* has 9"):
        read_choice(path)
