"""The report: what it recommends, that nothing is missing or unescaped, that a browser draws it."""

import json
import re
import sys
from dataclasses import astuple, replace
from html import unescape
from html.parser import HTMLParser

import msgspec
import pytest

from benchmark.candidates import candidates_of
from benchmark.choice import (
    CHOICE,
    Choice,
    Searched,
    Wanted,
    choose,
    read_choice,
    said,
    write_choice,
)
from benchmark.report import REPORT, write_report
from benchmark.report import page as page_module
from benchmark.report.advice import advices
from benchmark.report.curves import curves
from benchmark.report.page import Content, page
from benchmark.report.points import embedded, unbeaten
from benchmark.report.tables import at_recall
from benchmark.results.outcome import Outcome, Status
from benchmark.results.table import write_table
from nearfield.errors import DamagedArtefact, MissingFile, UsageError

NASTY = '<script>alert("x")</script>&<img src=x onerror=alert(1)>'
SIZES = (1_000, 10_000, 100_000)
SPEEDS = {"faiss-hnsw": 9.0, "annoy": 2.0, "hnswlib": 8.0, "faiss-ivf": 5.0, "exact": 0.5}
SPEEDS |= {f"method-{number}": 1.0 + number / 3 for number in range(8)}
MACHINE = {
    "processor": {"model": "Some <b>chip</b>", "architecture": "x86_64", "features": ["avx2"]},
    "cores": 2, "cores_present": 4, "memory_total_bytes": 2**34, "system": "Linux",
}  # fmt: skip
LIBRARY = {
    "name": "faiss", "version": "1.15.1", "state": "ok", "distribution": "faiss-cpu",
    "package": "wheel", "built": "AVX512, 'own' & <fast>", "error": None,
}  # fmt: skip
FACTS = {
    "data": {"name": NASTY, "whole": 400_000},
    "settings": {"timeout_s": 1200.0, "memory_bytes": 2**33, "repeat": 3},
    "machines": [MACHINE], "libraries": [LIBRARY], "versions": {"python": "3.11.7"},
    "notes": [f"a note with {NASTY}"], "configurations": ["annoy(trees=50)"],
}  # fmt: skip
ABOUT = Searched("songs", "fingerprint", "l2", 400_000, 64, 2)


def point(method, n, k, batch, effort, speed=1.0) -> Outcome:
    """A made-up measurement: harder search finds more and takes longer, as everywhere."""
    search_s = n * (0.5 + effort / 3) * (1 + k / 200) / speed / 5_000
    recall = 1 - 0.4 / (1 + effort**1.5)
    shared = Outcome(
        NASTY, "l2", n, 64, k, "all" if batch == 0 else "queries", batch, method, "links=16",
        f"effort={effort}", 2, recall=recall, recall_low=recall - 0.004, recall_high=recall + 0.004,
        build_s=n / 4_000 * speed, load_s=0.01, index_bytes=n * 900, peak_bytes=n * 2_000 + 10**8,
        build_peak_bytes=n * 3_000 + 10**8, baseline_bytes=10**8, build_baseline_bytes=10**8,
        checked=1_000, asked=n if batch == 0 else 1_000, repetition=0, distance_ratio=1.01,
        repetition_seconds=(search_s, search_s * 1.05, search_s * 0.97), search_s=search_s,
        qps=n / search_s, measured_at="2026-01-02T03:04:05Z", file="results/x.h5",
    )  # fmt: skip
    if batch == 0:
        return replace(shared, total_s=search_s + (shared.build_s or 0))
    return replace(shared, p50_ms=1.0, p95_ms=2.0, p99_ms=3.0)


def ladder() -> list[Outcome]:
    """A benchmark with all that can happen in one."""
    measured = [
        point(method, n, k, batch, effort, speed)
        for method, speed in SPEEDS.items()
        for n in SIZES
        for k in (10, 100)
        for batch in (0, 1, 100)
        for effort in (1, 2, 4, 8, 16)
    ]
    gone = replace(measured[0], method="broken", search="", recall=None, total_s=None)
    failures = [
        replace(gone, status=Status.TIMEOUT, reason="took longer than 1,200 s"),
        replace(gone, status=Status.OUT_OF_MEMORY, reason="8 GiB were not enough"),
        replace(gone, status=Status.CRASHED, reason=f"signal 11 {NASTY}"),
        replace(gone, status=Status.NOT_INSTALLED, reason="no module named broken"),
        replace(gone, status=Status.DROPPED, reason="the budget was spent"),
        replace(gone, status=Status.LEFT_OUT, reason="no better than another"),
    ]
    limited = replace(measured[1], batch=1, workload="queries", memory_limit_bytes=2**25)
    return [*measured, *failures, limited]


def written(folder, outcomes):
    write_table(folder, outcomes)
    write_choice(folder / CHOICE, ABOUT, outcomes)
    (folder / "bench.json").write_text(json.dumps(FACTS))
    return write_report(folder)


def source_of(outcomes, facts=FACTS) -> str:
    """The page without its pictures, which take their time to draw."""
    choice = Choice(1, *astuple(ABOUT), candidates_of(outcomes, ABOUT.n))
    return page(Content(outcomes, choice, facts)).decode()


@pytest.fixture
def no_matplotlib(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("matplotlib")
    return written(tmp_path_factory.mktemp("bench"), ladder()).parent


@pytest.fixture(scope="module")
def source(folder):
    return (folder / REPORT).read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Every element's name and attributes."""

    def __init__(self, source):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


def data_of(source):
    return json.loads(re.search(r'id="data">(.*?)</script>', source, re.S)[1])


def advice_of(source):
    return unescape(re.sub(r"<wbr>", "", re.search(r'class="advice">(.*?)</p>', source)[1]))


def test_what_a_first_use_takes_is_told_beside_the_figures_and_in_none_of_them():
    slow = [
        replace(point(method, n, 100, 0, 8, speed), cold_s=26.4)
        for method, speed in SPEEDS.items()
        for n in SIZES
    ]
    source = source_of(slow)
    assert "Libraries that compile themselves" in source
    assert re.search(r"faiss-hnsw</td><td[^>]*>26.4 s<", source)
    assert "26.4 s more, to compile itself" in source
    plain = source_of([replace(one, cold_s=None) for one in slow])
    assert "compile" not in plain.split("<script")[0].replace("compiled", "")


def test_the_first_sentence_recommends_what_the_choice_file_says(folder, source):
    candidate = choose(read_choice(folder / CHOICE), Wanted(100, 0.95))
    assert said(candidate) in advice_of(source)
    assert source.index('class="advice"') < source.index("<figure")


def test_queries_get_the_fastest_way_with_the_recall_at_the_largest_size(source):
    asked = [
        one for one in ladder()
        if one.measured and (one.n, one.k, one.batch) == (100_000, 100, 1) and one.recall >= 0.95
    ]  # fmt: skip
    best = max(asked, key=lambda one: one.qps)
    assert f"for queries use {best.label} with recall {best.recall:.3f}" in advice_of(source)


def test_a_size_that_few_methods_reached_is_said_to_be_so():
    every = [point(name, 1_000, 10, 1, 1) for name in ("annoy", "exact", "hnswlib", "selfjoin")]
    sentence = advice_of(source_of([*every, point("annoy", 9_000, 10, 1, 1)]))
    assert "on 9,000 rows (only 1 of 4 methods were measured on so many)." in sentence
    assert "only" not in advice_of(source_of(every))


def test_a_recall_that_nothing_reaches_is_said():
    sentence = advice_of(source_of([point("annoy", 1_000, 10, batch, 1) for batch in (0, 1)]))
    assert "nothing measured reaches that recall, nearest comes annoy" in sentence
    assert "for queries nothing measured reaches that recall" in sentence


def test_every_measured_configuration_is_in_the_charts(source):
    data = data_of(source)
    place = {name: number for number, name in enumerate(data["columns"])}
    drawn = {
        (*data["configurations"][row[0]], row[place["n"]], row[place["k"]], row[place["batch"]])
        for row in data["points"]
    }
    assert drawn == {
        (one.method, one.build, one.search, one.n, one.k, one.batch)
        for one in ladder()
        if one.measured and not one.memory_limit_bytes
    }
    assert len(data["points"]) == len(drawn)


def test_failures_stand_there_with_their_reasons(source):
    for one in ladder():
        if not one.measured:
            assert f">{page_module.escape(one.reason)}</td>" in source
            assert (f">{one.status}</td>" in source) is (one.status is not Status.LEFT_OUT)


def test_what_was_not_worth_measuring_stands_apart_and_how_to_have_it(source):
    section = source.partition("<h2>Left out as of no use</h2>")[2].partition("<h2>")[0]
    assert "no better than another" in section
    assert "<code>--full</code>" in section
    assert "took longer than" not in section


def test_the_page_is_small_and_asks_nobody_for_anything(folder, source):
    assert (folder / REPORT).stat().st_size < 5_000_000
    parsed = Elements(source).elements
    loading = {"src", "href", "srcset", "action", "data", "poster", "background"}
    assert not [one for one in parsed if loading & set(one[1])]
    assert {tag for tag, _ in parsed} & {"link", "img", "iframe", "object", "base"} == set()
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|import\(", source)
    policy = next(tag[1] for tag in parsed if "http-equiv" in tag[1])
    assert "default-src 'none'" in policy["content"]
    assert "unsafe" not in policy["content"]


def test_what_users_wrote_is_text(source):
    assert NASTY not in source
    assert "<b>chip" not in source and "<fast>" not in source
    scripts = [one for one in Elements(source).elements if one[0] == "script"]
    assert [tag[1].get("type") for tag in scripts] == ["application/json", None]
    assert "a note with &lt;script&gt;" in source


def test_data_cannot_end_its_element():
    text = json.dumps(["</script><!--", "a&b"])
    assert not set("<>&") & set(embedded(text))
    assert json.loads(embedded(text)) == json.loads(text)


def test_the_tables_show_the_cheapest_way_that_reaches_a_recall():
    outcomes = [point("annoy", 1_000, 10, 0, effort) for effort in (1, 4, 16)]
    for recall, search in ((0.7, "effort=1"), (0.9, "effort=4"), (0.99, "effort=16")):
        table, _ = at_recall(outcomes, recall)
        assert table.rows[0][1] == f"links=16, {search}"
    assert set(at_recall(outcomes, 0.999)[0].rows[0][1:]) == {"–"}


def test_the_tables_show_percentiles_and_the_time_to_add_rows():
    index = {"add_s": 0.125, "add_rows": 10}
    asked = replace(point("annoy", 1_000, 10, 1, 16), **index, add_way="rebuild")
    listed = replace(point("annoy", 1_000, 10, 0, 16), **index, add_way="add")
    every, queries = at_recall([asked, listed], 0.9)
    cells = dict(zip(queries.head, queries.rows[0], strict=True))
    assert (cells["p50"], cells["p95"], cells["p99"]) == ("1 ms", "2 ms", "3 ms")
    assert cells["1% more"] == "125 ms (rebuilt)"
    assert dict(zip(every.head, every.rows[0], strict=True))["1% more"] == "125 ms"
    evidence = dict(advices(None, [asked])[0].queries)
    assert evidence["time of a query"] == "p50 1 ms, p95 2 ms, p99 3 ms"
    assert evidence["1% more rows"] == "125 ms (rebuilt)"


def test_the_head_names_the_sizes_with_figures():
    measured = point("annoy", 1_000, 10, 0, 16)
    dropped = replace(measured, n=100_000, status=Status.DROPPED, recall=None, total_s=None)
    assert "measured on 1,000 of them; 1 points with figures" in source_of([measured, dropped])
    assert "nothing measured<" in source_of([dropped])


def test_growth_of_a_linear_cost_is_linear_and_foretold_with_an_interval(source):
    total = [
        line
        for line in curves([one for one in ladder() if one.method == "annoy"], 400_000)
        if (line.cost, line.k) == ("total", 100)
    ]
    assert total[0].growth.exponent == pytest.approx(1.0)
    assert total[0].full.low < total[0].full.value < total[0].full.high
    assert ">at 400,000 rows<" in source


def test_one_size_foretells_nothing():
    line = curves([point("annoy", 1_000, 10, 0, 16)], 400_000)[0]
    assert (line.growth, line.full, line.line(400_000)) == (None, None, [])


def test_a_table_without_rows_gives_a_page_that_says_so(tmp_path):
    source = written(tmp_path, []).read_text()
    assert "Nothing was measured here yet" in advice_of(source)
    assert "<figure" not in source


def test_failures_alone_give_a_page_with_their_reasons():
    source = source_of([one for one in ladder() if not one.measured])
    assert "No configuration gave figures" in advice_of(source)
    assert "took longer than 1,200 s" in source


def test_the_table_alone_is_enough(no_matplotlib, tmp_path):
    write_table(tmp_path, ladder())
    assert "there is no choice.toml" in advice_of(write_report(tmp_path).read_text())


def test_the_first_sentence_recommends_only_what_a_build_can_do():
    products = [replace(one, space="ip") for one in ladder() if one.method in {"annoy", "exact"}]
    choice = Choice(1, *astuple(replace(ABOUT, space="ip")), candidates_of(products, ABOUT.n))
    assert {candidate.method for candidate in choice.candidates} == {"exact"}
    for one in advices(choice, products):
        assert "use exact(links=16) with recall" in one.sentence
    refused = candidates_of([one for one in ladder() if one.method == "annoy"], ABOUT.n)
    older = replace_candidates(choice, [*refused, *choice.candidates])
    assert all(
        "use exact(links=16) with recall" in one.sentence for one in advices(older, products)
    )
    only = [one for one in products if one.method == "annoy"]
    (first, _) = advices(replace_candidates(choice, []), only)
    assert "no way was measured that `nearfield build` has in space ip" in first.sentence
    (first, _) = advices(replace_candidates(choice, []), [one for one in only if one.batch])
    assert "for the matrix (k = 10) no way was measured;" in first.sentence


def replace_candidates(choice, candidates):
    return msgspec.structs.replace(choice, candidates=candidates)


def test_the_same_table_gives_the_same_page(no_matplotlib, tmp_path):
    outcomes = ladder()[::7]
    first = written(tmp_path, outcomes).read_bytes()
    assert written(tmp_path, outcomes[::-1]).read_bytes() == first
    assert not list(tmp_path.glob(".*"))


def test_a_page_that_would_be_too_large_keeps_what_is_unbeaten_and_says_so(monkeypatch):
    outcomes = [*ladder()[:5], replace(ladder()[0], build="links=8", recall=0.1)]
    whole = data_of(source_of(outcomes))["points"]
    monkeypatch.setattr(page_module, "MOST_BYTES", 1_000)
    source = source_of(outcomes)
    assert (len(whole), len(data_of(source)["points"]), len(unbeaten(outcomes))) == (6, 5, 5)
    assert "1 of 6 points that the same method beats are only in outcomes.parquet" in source


def test_pictures_are_png_of_every_k(folder, source):
    for k in (10, 100):
        assert (folder / f"report-k{k}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert f"report-k{k}.png" in source


def test_without_matplotlib_the_page_says_that_there_are_no_pictures(no_matplotlib, tmp_path):
    source = written(tmp_path, ladder()[:3]).read_text()
    assert "matplotlib (the extra bench) isn&#x27;t installed" in source
    assert not list(tmp_path.glob("*.png"))


def test_broken_files_are_named(no_matplotlib, tmp_path):
    with pytest.raises(MissingFile, match="expected the table of a benchmark"):
        write_report(tmp_path)
    written(tmp_path, ladder()[:3])
    (tmp_path / "bench.json").write_text("{")
    with pytest.raises(DamagedArtefact, match=r"bench\.json"):
        write_report(tmp_path)
    (tmp_path / CHOICE).write_text("format = 7")
    with pytest.raises(UsageError, match="choice file"):
        write_report(tmp_path)


def test_an_advice_per_k_and_the_usual_one_first():
    found = advices(None, ladder())
    assert [one.k for one in found] == [10, 100]
