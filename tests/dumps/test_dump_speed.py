"""The measurements of dumps and lookups run and report what they measured."""

import pytest

from benchmark.dump_speed import WAYS, make, markdown, written
from benchmark.lookup_speed import markdown as lookup_table
from benchmark.lookup_speed import measured as lookups_measured
from benchmark.lookup_speed import plot, prepare
from nearfield.run import open_run
from tests.dumps.redis_case import server_binary


def test_every_way_of_writing_is_timed(tmp_path):
    make(tmp_path / "made" / "run", 600, 10)
    run = open_run(tmp_path / "made" / "run")
    results = {}
    for way in (*WAYS, "flat"):
        folder = tmp_path / way
        folder.mkdir()
        results[way] = [written(way, run, folder)]
        assert results[way][0]["bytes"] > 600 * 10 * 2
    assert results["raw"][0]["bytes"] == 600 * 10 * 8
    text = markdown(600, 10, results)
    assert "## 600 x top-10" in text
    assert "| raw |" in text


@pytest.mark.long
@pytest.mark.postgres
def test_the_four_products_answer_alike(tmp_path):
    pytest.importorskip("redis")
    pytest.importorskip("matplotlib")
    server_binary()
    make(tmp_path / "run", 600, 20)
    run = open_run(tmp_path / "run")
    loads = prepare(run)
    result = lookups_measured(run, 50)
    assert {name: len(us) for name, us in result["us"].items()} == dict.fromkeys(loads, 50)
    assert "| Redis |" in lookup_table(run, loads, result)
    plot(run, result, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")
