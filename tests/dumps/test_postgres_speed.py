"""The measurements of load and publication run and report what they measured."""

import pytest

from benchmark import publish_latency, sql_speed
from benchmark.copy_speed import markdown, measured, random_run

pytestmark = [pytest.mark.postgres, pytest.mark.long]


def test_every_way_is_timed_on_the_same_bytes(tmp_path):
    result = measured(random_run(tmp_path, 600, 20), tmp_path, 2)
    assert {name: len(seconds) for name, seconds in result["seconds"].items()} == {
        "load": 2,
        "load, 1 connection": 2,
        "plain": 2,
        "plain, no checks": 2,
    }
    assert result["bytes"] == 21 + 600 * (2 + 2 * 8 + 2 * (24 + 8 * 20))
    text = markdown(result)
    assert "600 x top-20" in text
    assert "load / plain, by turn" in text


def test_readers_see_whole_runs_and_nobody_fails_while_runs_are_published(tmp_path):
    result = publish_latency.measured(tmp_path, 3000, 20, readers=3, seconds=1)
    assert all(result["taken_us"][phase] for phase in publish_latency.PHASES)
    assert len(result["moves_ms"]) >= 2
    text = publish_latency.markdown(result)
    assert all(f"| {phase} | " in text for phase in publish_latency.PHASES)


def test_questions_are_timed_after_the_load_cold_and_warm(tmp_path):
    run = random_run(tmp_path, 600, 20)
    result = sql_speed.measured(run, 30)
    counts = {
        state: [len(taken) for taken in questions.values()]
        for state, questions in result["taken_us"].items()
    }
    assert counts == {"load": [30] * 3, "cold": [3] * 3, "warm": [30] * 3}
    assert 0 < result["server_bytes"] < result["own_bytes"]
    text = sql_speed.markdown(run, result)
    assert "600 x top-20 loaded" in text
    assert "| cold | all k as rows | 3 | " in text
