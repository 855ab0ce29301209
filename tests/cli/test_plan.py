"""`nearfield plan` as its users meet it."""

import pytest

from index_build.machines.calibration import Job, calibration_for, keep
from nearfield import api
from nearfield.api.plans import run_on, wanted_of
from nearfield.errors import Infrastructure
from tests.index_build.test_machines import calibration

PLAN = ["plan", "--rows", "4000000", "--dims", "93"]
PRICES = """currency = "EUR"
[[machines]]
provider = "own"
type = "box"
cores = 8
memory_gb = 64
disk_gb = 500
hourly = 0.5
"""


@pytest.fixture
def calibrated(tmp_path):
    keep(tmp_path / "c.json", calibration())
    (tmp_path / "prices.toml").write_text(PRICES)
    return ["--calibration", str(tmp_path / "c.json"), "--prices", str(tmp_path / "prices.toml")]


def test_the_plan_names_machines_hours_and_money(nearfield, calibrated):
    done = nearfield(*PLAN, *calibrated)
    assert done.code == 0, done.err
    assert "own/box" in done.out
    assert "EUR" in done.out
    for line in ("take", "matters most", "measured", "assumed", "here"):
        assert f"\n{line} " in done.out


def test_json_holds_every_option(nearfield, calibrated):
    found = nearfield(*PLAN, *calibrated, "--json").json
    assert len(found["options"]) == 8
    assert found["take"] in found["options"]
    assert found["here"]["count"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["plan"], "--rows and --dims"),
        ([*PLAN, "--budget", "cheap"], "20EUR"),
        ([*PLAN, "--budget", "20USD"], "20EUR"),
        ([*PLAN, "--budget", "20k"], "20EUR"),
        ([*PLAN, "--deadline", "soon"], "--deadline"),
        ([*PLAN, "--link", "0"], "--link"),
        ([*PLAN, "--uplink", "0"], "--uplink"),
        ([*PLAN, "--recall", "1.5"], "recall"),
        ([*PLAN, "--machine", "huge"], "own/box"),
        ([*PLAN, "-k", "7"], "--calibrate"),
        (["plan", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_end_with_2_and_say_what_was_expected(nearfield, calibrated, options, words):
    done = nearfield(*options, *calibrated)
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err


@pytest.mark.long
def test_a_calibration_measures_whole_runs(tmp_path):
    out = tmp_path / "c.json"
    wanted = wanted_of(None, 100_000, 16, 10, 0.9)
    made = api.calibrate(wanted, out=out, rows=(6_000, 12_000), repetitions=1)
    assert {(run.n, run.cores > 1) for run in made.observations} == {
        (6_000, False),
        (12_000, False),
        (12_000, True),
    }
    for run in made.observations:
        assert min(run.seconds[stage] for stage in ("join", "merge", "write", "verify", "load")) > 0
        assert run.peak_bytes > 50 << 20
    assert calibration_for(out, Job(16, 10, 0.9, "l2", "generated")) == made
    assert api.plan(wanted, calibration=out).here.time.seconds > 0


def test_a_calibrated_command_may_say_much_and_takes_its_modules_from_the_installation(
    tmp_path, monkeypatch
):
    (tmp_path / "typer.py").write_text("raise SystemExit('not the real one')")
    monkeypatch.chdir(tmp_path)
    unknown = "x" * 100_000
    with pytest.raises(Infrastructure, match="No such command"):
        run_on([unknown], 1)
