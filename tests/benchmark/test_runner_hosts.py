"""A benchmark on a cluster of two hosts, which are network namespaces with an sshd each."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmark.results.table import read_table
from tests.benchmark.bench_case import surface
from tests.clusters.lab import Lab, missing

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
GRID = """
[noting]
class = "tests.benchmark.noting_method:Noting"
notes = "{notes}"
number = [1, 2, 3, 4, 5, 6]
"""


@pytest.fixture
def lab(tmp_path):
    if reason := missing():
        pytest.skip(reason)
    with Lab(tmp_path / "lab", ("client", "head", "east", "west")) as running:
        yield running


def nearfield(lab, *words):
    done = lab.on("client", sys.executable, "-m", "nearfield", *words, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done


def inventory(lab):
    """All hosts, with two workers on each that have this project's tests on their path."""
    python = lab.folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    path = lab.inventory(lab.folder / "hosts.toml", host_extra={
        "east": "cores = 2", "west": "cores = 2",
    })  # fmt: skip
    path.write_text(path.read_text().replace(f'"{sys.executable}"', f'"{python}"'))
    return path


def test_each_machine_measures_one_index_at_a_time_and_both_measure(lab):
    notes = lab.folder / "notes"
    notes.mkdir()
    np.save(lab.folder / "songs.npy", surface(400))
    (lab.folder / "grid.toml").write_text(GRID.format(notes=notes))
    nearfield(lab, "cluster", "up", inventory(lab))
    nearfield(
        lab, "bench", lab.folder / "songs.npy", "--out", lab.folder / "bench",
        "--grid", lab.folder / "grid.toml", "-k", "5", "--threads", "1",
        "--scheduler", lab.folder / "hosts.cluster" / "cluster.toml",
    )  # fmt: skip
    rows = read_table(lab.folder / "bench")
    assert {row.status for row in rows} == {"ok"}
    assert len({row.build for row in rows}) == 6
    facts = json.loads((lab.folder / "bench" / "bench.json").read_text())
    assert len(facts["machines"]) == 2
    work = [json.loads(path.read_text()) for path in notes.iterdir()]
    machines = {one["machine"] for one in work}
    assert len(machines) == 2
    for machine in machines:
        mine = sorted((one["began"], one["ended"]) for one in work if one["machine"] == machine)
        assert all(before[1] <= after[0] for before, after in pairwise(mine))
    first, second = (
        [(one["began"], one["ended"]) for one in work if one["machine"] == machine]
        for machine in machines
    )
    assert any(a[0] < b[1] and b[0] < a[1] for a in first for b in second), "never side by side"
