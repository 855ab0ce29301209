"""The change report's alarms: where nothing can be compared, and for thresholds that are none."""

import pytest

from dumps.changes import Thresholds, compare_runs
from nearfield.errors import UsageError
from tests.dumps.postgres_case import loadable_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    strangers = [f"other-{row}" for row in range(50)]
    return (
        loadable_run(folder / "one", n=50),
        loadable_run(folder / "another", n=50, ids=strangers),
    )


@pytest.mark.parametrize("thresholds", [Thresholds(max_shift=0.01), Thresholds(max_removed=1.0)])
def test_runs_without_a_common_recording_are_an_alarm(runs, thresholds):
    report = compare_runs(*runs, thresholds)
    assert (report.compared, len(report.alarms)) == (0, 1)
    assert "no recording is in both runs" in report.alarms[0]
    assert not compare_runs(*runs).alarms
    assert not compare_runs(runs[0], runs[0], thresholds).alarms


@pytest.mark.parametrize("thresholds", [Thresholds(min_overlap=80), Thresholds(max_removed=-0.1)])
def test_percents_are_no_shares(runs, thresholds):
    with pytest.raises(UsageError, match="expected a share between 0 and 1"):
        compare_runs(*runs, thresholds)
