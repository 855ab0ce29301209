"""`nearfield bench` as a user runs it, and the build that follows its choice."""

import signal

import numpy as np
import pytest

from tests.cli.conftest import Program, clustered, copy

pytestmark = pytest.mark.long

GRID = """
[exact]
[annoy]
trees = 5
efforts = ["1k"]
"""
QUICK = ("--grid", "grid.toml", "-k", "5", "--rows", "200", "--threads", "1")


@pytest.fixture(scope="module")
def benched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benched")
    np.save(folder / "embeddings.npy", clustered(400))
    (folder / "grid.toml").write_text(GRID)
    program = Program(folder)
    assert program("ingest", "embeddings.npy", "--out", "vectors").code == 0
    ended = program("bench", "vectors", "--out", "bench", *QUICK, "--workloads", "all", "--json")
    assert ended.code == 0, ended.err
    return folder, ended


@pytest.fixture
def program(benched, nearfield):
    copy(f"{benched[0]}/.", nearfield.folder)
    return nearfield


def test_it_says_what_it_did_and_what_is_left(benched):
    _, ended = benched
    assert ended.json["rows"] == {"ok": 2}
    assert (ended.json["measured"], ended.json["sizes"]) == (2, [200])
    assert "exact() on 200 rows: 1 measured; 1 of 2 groups, about" in ended.err
    assert "2 of 2 groups\n" in ended.err


def test_the_report_says_what_the_choice_says(benched):
    folder, ended = benched
    page = folder / ended.json["page"]
    assert page == folder / "bench" / "report.html"
    assert "(k = 5, recall 0.95) use exact with recall 1.000" in page.read_text()


def test_again_converges(program):
    ended = program("bench", "vectors", "--out", "bench", *QUICK, "--workloads", "all")
    assert ended.code == 0, ended.err
    assert "0 points; 2 were there" in ended.out
    assert "report     bench/report.html" in ended.out
    assert "next       nearfield build vectors --out RUN --choice bench/choice.toml" in ended.out


def test_a_build_follows_the_choice_beside_the_vector_set(program):
    ended = program("build", "vectors", "--out", "run", "-k", 5, "--recall", 1.0)
    assert ended.code == 0, ended.err
    assert "method exact, by " in ended.err
    assert "bench/choice.toml: exact with recall 1.000 on 200 rows" in ended.err
    assert "figures of the benchmark, the time foretold for 400 rows" in ended.err
    assert "exact (as asked)" in ended.out


def test_a_library_that_the_benchmark_chose_makes_the_matrix_by_its_indexes(program):
    path = program.folder / "bench" / "choice.toml"
    head, *ways = path.read_text().split("[[candidates]]")
    path.write_text("[[candidates]]".join([head, *(way for way in ways if '"exact"' not in way)]))
    ended = program("build", "vectors", "--out", "run", "-k", 5, "--recall", 0.8, "--json")
    assert ended.code == 0, ended.err
    assert "method annoy(trees=5), by " in ended.err
    assert ended.json["method"] == "annoy(trees=5)"
    verified = program("verify", "run", "--json")
    assert (verified.code, verified.json["passed"]) == (0, True)


def test_a_method_can_be_named_with_its_parameters(program):
    ended = program("build", "vectors", "--out", "run", "-k", 5, "--method", "annoy(trees=5)")
    assert ended.code == 0, ended.err
    assert "annoy(trees=5) (as asked)" in ended.out
    wrong = program("build", "vectors", "--out", "other", "--method", "annoy(links=5)")
    assert (wrong.code, "annoy has no parameter 'links'" in wrong.err) == (2, True)


def test_when_nothing_fits_the_nearest_is_named(program):
    ended = program(
        "build", "vectors", "--out", "run", "-k", 5, "--choice", "bench/choice.toml",
        "--memory", "1MB", "--time", "1h",
    )  # fmt: skip
    assert ended.code == 4
    assert "nothing measured reaches recall 0.95 within 0.00 GiB and 3,600 s for k = 5" in ended.err
    assert "Nearest comes" in ended.err
    assert not (program.folder / "run").exists()


def test_a_plain_build_does_without_a_choice_that_has_nothing(program):
    path = program.folder / "bench" / "choice.toml"
    path.write_text(path.read_text().split("[[candidates]]")[0])
    ended = program("build", "vectors", "--out", "run", "-k", 5)
    assert ended.code == 0, ended.err
    assert "method auto, " in ended.err
    assert "bench/choice.toml isn't followed: the benchmark of vectors measured no way" in ended.err
    ended = program("build", "vectors", "--out", "other", "-k", 5, "--time", "1h")
    assert (ended.code, "measured no way" in ended.err) == (4, True)


def test_what_is_next_after_a_file_can_be_typed_as_it_stands(program):
    (program.folder / "bench").rename(program.folder / "elsewhere")
    ended = program("bench", "embeddings.npy", "--out", "bench", *QUICK, "--methods", "exact",
                    "--workloads", "all", "--space", "cosine")  # fmt: skip
    assert ended.code == 0, ended.err
    lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    ingest, build = lines["next"], lines["then"]
    assert ingest == "nearfield ingest embeddings.npy --out VECTORS --space cosine"
    assert program(*ingest.split()[1:]).code == 0
    built = program(*build.split()[1:], "-k", 5)
    assert built.code == 0, built.err
    assert "method exact, by bench/choice.toml" in built.err


def test_limits_without_a_choice_and_with_a_method_are_refused(program):
    (program.folder / "bench" / "choice.toml").unlink()
    ended = program("build", "vectors", "--out", "run", "--memory", "8GiB")
    assert (ended.code, "only a benchmark knows" in ended.err) == (2, True)
    ended = program("build", "vectors", "--out", "run", "--method", "exact", "--time", "1h")
    assert (ended.code, "go with --method auto" in ended.err) == (2, True)


def test_a_choice_about_other_vectors_is_refused(program):
    np.save(program.folder / "wide.npy", clustered(50, d=20))
    assert program("ingest", "wide.npy", "--out", "wide").code == 0
    ended = program("build", "wide", "--out", "run", "--choice", "bench/choice.toml")
    assert ended.code == 2
    assert "expected a choice for 20 numbers in space l2" in ended.err


def test_a_dry_run_measures_nothing(program):
    ended = program("bench", "vectors", "--out", "other", "--dry-run", "--json", *QUICK)
    assert ended.json["configurations"] == ["exact()", "annoy(trees=5)"]
    assert not (program.folder / "other").exists()


def test_a_dry_run_in_a_directory_with_another_benchmark_is_refused_and_takes_nothing(program):
    assert program("bench", "vectors", "--out", "bench", "--dry-run", *QUICK).code == 0
    np.save(program.folder / "wide.npy", clustered(50, d=20))
    before = sorted((program.folder / "bench").rglob("*"))
    ended = program("bench", "wide.npy", "--out", "bench", "--dry-run", *QUICK)
    assert (ended.code, "benchmark of other vectors" in ended.err) == (2, True)
    assert sorted((program.folder / "bench").rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-k", "ten"), "expected whole numbers by comma for -k; got 'ten'"),
        (("--budget", "soon"), "expected a time such as 90s, 30m or 2h for --budget; got 'soon'"),
        (("--memory", "8 apples"), "expected an amount of memory such as 500MB or 8GiB"),
        (("--methods", "hnsw"), "expected methods out of the grid's annoy, exact; got 'hnsw'"),
        (("--grid", "none.toml"), "expected a grid file at none.toml"),
    ],
)
def test_wrong_options_end_with_a_sentence(program, options, said):
    ended = program("bench", "vectors", "--out", "other", *QUICK, *options)
    assert ended.code == 2
    assert said in ended.err


@pytest.mark.long
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_benchmark_goes_on_where_it_was(program, stop):
    arguments = ("bench", "vectors", "--out", "other", *QUICK)
    process = program.start(*arguments)
    while "1 of 2 groups" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(stop)
    process.wait(60)
    process.stdout.close()
    process.stderr.close()
    ended = program(*arguments, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["rows"] == {"ok": 4}
    assert ended.json["kept"] >= 2
