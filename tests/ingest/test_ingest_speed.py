"""The promise about speed: at most twice the time of a fast parser alone, on the same documents."""

import pytest

from benchmark.ingest_speed import measured
from nearfield.demo.dump import write_dump


@pytest.mark.long
def test_the_whole_path_takes_less_than_twice_a_parser_alone(tmp_path):
    archives = write_dump(tmp_path, recordings=2000).archives
    found = measured(archives, repeat=5)
    assert found["documents"] > 4000
    assert found["ratio"] < 2


def test_a_measurement_keeps_every_repetition(tmp_path):
    found = measured(write_dump(tmp_path, recordings=20).archives, repeat=2)
    assert len(found["floor_s"]) == len(found["path_s"]) == 2
    assert found["path_documents_per_s_per_core"] > 0
