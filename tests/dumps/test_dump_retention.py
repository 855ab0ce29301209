"""Which dumps go, as a pure function; and that nothing else does."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dumps.dump.names import DumpName, dumps_in, parse_name
from dumps.dump.retention import Keep, delete, parse_keep, superseded
from dumps.dump.write import DumpOptions
from nearfield.api import dump, plan_dump
from nearfield.errors import UsageError
from tests.dumps.dump_case import dumpable_run

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def days(*ages, k=100):
    return [str(DumpName(START - timedelta(days=age), k)) for age in ages]


@pytest.mark.parametrize(
    ("keep", "gone"),
    [
        (Keep(newest=1), days(400, 31, 30, 2, 1)),
        (Keep(newest=3), days(400, 31, 30)),
        (Keep(daily=2), days(400, 31, 30, 2)),
        (Keep(monthly=2), days(400, 31, 30, 2)),
        (Keep(monthly=3), days(31, 30, 2)),
        (Keep(newest=2, monthly=9), days(31, 30, 2)),
        (Keep(weekly=2), days(400, 31, 2, 1)),
        (Keep(newest=99), []),
        (Keep(), days(400, 31, 30, 2, 1)),
    ],
)
def test_a_policy_keeps_the_newest_of_each_period(keep, gone):
    # 1 January 2026 was a Thursday; ages 1 and 2 fall into December and the same week
    assert superseded(days(2, 0, 31, 400, 1, 30), keep) == gone


NAMES = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            *("LATEST", "nearfield-matrix-20260101-120000-k100.tar", "nearfield-matrix-2026"),
            *("nearfield-matrix-20261301-120000-k100", "nearfield-matrix-20260101-120000-k0100"),
            *("NEARFIELD-matrix-20260101-120000-k100", "nearfield-matrix-20260101-120000-k100\n"),
            ".nearfield-matrix-20260101-120000-k100.partial-0123456789ab",
        ]
    ),
    st.integers(0, 1000).map(lambda age: days(age)[0]),
)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(
    names=st.lists(NAMES, max_size=15),
    keep=st.builds(Keep, *(st.integers(0, 5) for _ in range(4))),
)
def test_only_names_of_dumps_go_and_the_newest_never(names, keep):
    gone = superseded(names, keep)
    dumps = sorted({name for name in names if parse_name(name)})
    assert set(gone) <= set(dumps)
    assert gone == sorted(gone)
    assert dumps[-1:] == [name for name in dumps[-1:] if name not in gone]
    assert len(dumps) - len(gone) >= min(len(dumps), keep.newest)
    left = [name for name in names if name not in gone]
    assert superseded(left, keep) == []


def test_a_name_is_parsed_only_as_it_would_be_written():
    name = DumpName(START, 100)
    assert parse_name(str(name)) == name
    for wrong in ("nearfield-matrix-20260230-120000-k1", f"{name}x", f"x{name}", f"{name}\n"):
        assert parse_name(wrong) is None


@pytest.mark.parametrize(
    ("text", "keep"), [("3", Keep(newest=3)), ("newest=2, monthly=12", Keep(2, monthly=12))]
)
def test_a_policy_is_written_as_a_number_or_by_name(text, keep):
    assert parse_keep(text) == keep


@pytest.mark.parametrize("text", ["", "0", "newest=0", "-1", "yearly=3", "3,4", "many", "daily="])
def test_other_policies_are_refused(text):
    with pytest.raises(UsageError, match="--keep"):
        parse_keep(text)


def test_deletion_spares_everything_else(tmp_path):
    old, new = days(400, 0)
    strangers = ["keep.txt", "nearfield-matrix-old", ".hidden"]
    for name in (old, new, *strangers):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    (tmp_path / "nearfield-matrix-20200101-000000-k5").write_text("a file, not a dump")
    delete(tmp_path, superseded(dumps_in(tmp_path), Keep(newest=1)))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted([new, *strangers, "nearfield-matrix-20200101-000000-k5"])


def test_a_dry_run_names_what_a_dump_then_deletes(tmp_path):
    run, out = dumpable_run(tmp_path).path, tmp_path / "out"
    for name in days(1, 2, 3):
        (out / name).mkdir(parents=True)
    planned = plan_dump(run, out, keep=Keep(newest=2)).delete
    assert len(dumps_in(out)) == 3
    assert dump(run, out, keep=Keep(newest=2)).deleted == planned == tuple(days(3, 2))
    assert len(dumps_in(out)) == 2


def test_a_dump_is_never_deleted_by_the_call_that_makes_it(tmp_path):
    run, out = dumpable_run(tmp_path).path, tmp_path / "out"
    ahead = "nearfield-matrix-20990101-000000-k5"  # by a clock that was
    (out / ahead).mkdir(parents=True)
    made = dump(run, out, keep=Keep(newest=1))
    assert made.path.is_dir()
    assert made.deleted == ()
    assert (out / "LATEST").read_text().strip() == made.path.name


def test_a_damaged_newest_dump_is_followed_by_another(tmp_path):
    run, out = dumpable_run(tmp_path).path, tmp_path / "out"
    first = dump(run, out)
    damaged = out / str(DumpName(parse_name(first.path.name).begun + timedelta(days=1), 4))
    damaged.mkdir()
    assert dump(run, out, keep=Keep(newest=1)).made
    assert damaged.is_dir()


def test_a_forced_dump_is_made_again_once_its_run_is_verified(tmp_path):
    run, out = dumpable_run(tmp_path), tmp_path / "out"
    verdict = run.verification.read_bytes()
    run.verification.unlink()
    options = DumpOptions(force=True)
    assert dump(run.path, out, options).forced
    assert not dump(run.path, out, options).made
    run.verification.write_bytes(verdict)
    assert plan_dump(run.path, out).same is None
    again = dump(run.path, out)
    assert (again.made, again.forced) == (True, False)
    assert plan_dump(run.path, out).same == again.path.name
