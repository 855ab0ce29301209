"""Gates before publishing, and what stays: figures are right, stored, and stand in the way."""

import numpy as np
import psycopg2
import pytest

from dumps.postgres.gates import Limits
from dumps.postgres.load import LoadOptions, load_run
from dumps.postgres.publish import current, publish, rollback
from dumps.postgres.retention import KnownRun, prune, surplus
from dumps.postgres.runs import runs
from nearfield.errors import DatabaseError, QualityGate, RunLocked, UsageError
from tests.dumps.postgres_case import ask, loadable_run, random_lists, write_verdict

pytestmark = pytest.mark.postgres
N, K = 1200, 5
UNSEEN = LoadOptions(publish=False)


@pytest.fixture
def served(tmp_path, dsn):
    """The id of a published run that is large enough to be judged against."""
    return load_run(loadable_run(tmp_path / "served", n=N, k=K, seed=1), dsn).run_id


def gates_of(dsn, run_id):
    statement = "SELECT gate, figure, passed, against FROM nearfield.run_gates WHERE run_id = %s"
    return {gate: rest for gate, *rest in ask(dsn, statement, run_id)}


def test_figures_are_those_of_the_lists(tmp_path, dsn, served):
    # the first 1,100 recordings stay, so 100 of 1,200 are gone
    ids = [f"id-{row}" for row in range(1100)] + [f"new-{row}" for row in range(100)]
    run = loadable_run(tmp_path / "2", n=N, k=K, seed=2, ids=ids)
    write_verdict(run, recall=0.94)
    new = load_run(run, dsn, options=UNSEEN).run_id
    assert current(dsn).run_id == served
    # every other list is that of the published run
    ask(
        dsn,
        "UPDATE nearfield.neighbours_all AS new SET neighbours = old.neighbours,"
        " distances = old.distances FROM nearfield.lists AS old"
        " WHERE new.run_id = %s AND new.row = old.row AND new.row %% 2 = 0",
        new,
    )
    with pytest.raises(QualityGate, match=r"changed_neighbours 0\.\d+, expected at most 0\.1") as e:
        publish(dsn, new, limits=Limits(max_changed_neighbours=0.1))
    assert "recall_drop 0.03, expected at most 0.02" in str(e.value)
    assert f"nearfield publish {new} --force" in str(e.value)
    assert current(dsn).run_id == served
    found = gates_of(dsn, new)
    assert found["rows"] == [N, True, None]
    assert found["recall"] == [0.94, True, None]
    assert found["ranges"] == [0, True, None]
    assert found["recall_drop"] == [pytest.approx(0.03), False, served]
    assert found["coverage"] == [pytest.approx(1100 / 1200), True, served]

    before, after = random_lists(N, K, 1)[0], random_lists(N, K, 2)[0]
    after[::2] = before[::2]
    named_before = {row: {f"id-{other}" for other in before[row]} for row in range(N)}
    named_after = {row: {ids[other] for other in after[row]} for row in range(N)}
    sampled = np.random.default_rng(new).choice(N, 1000, replace=False)
    shares = [len(named_after[row] - named_before[row]) / K for row in sampled if row < 1100]
    assert found["changed_neighbours"][:2] == [pytest.approx(np.mean(shares)), False]
    assert found["changed_rows"][:2] == [pytest.approx(np.mean(np.array(shares) > 0)), True]


def test_force_publishes_and_says_which_gates_failed(tmp_path, dsn, served):
    new = load_run(loadable_run(tmp_path / "2", n=N, k=K, seed=2), dsn, options=UNSEEN).run_id
    with pytest.raises(QualityGate, match="changed_neighbours"):
        publish(dsn, new)
    done = publish(dsn, new, force=True)
    assert (done.run_id, done.failed_gates) == (new, ("changed_neighbours",))
    history = "SELECT run_id, action, failed_gates FROM nearfield.history ORDER BY published_at"
    assert ask(dsn, history) == [
        (served, "publish", []),
        (new, "publish", ["changed_neighbours"]),
    ]
    rollback(dsn)
    assert ask(dsn, history)[-1] == (served, "rollback", [])
    (since,) = ask(dsn, "SELECT current_since FROM nearfield.run WHERE is_current")
    assert since == ask(dsn, "SELECT max(published_at) FROM nearfield.history")[0]


def test_a_load_that_misses_a_gate_stays_loaded_and_unpublished(tmp_path, dsn, served):
    run = loadable_run(tmp_path / "2", n=N, k=K, seed=2)
    with pytest.raises(QualityGate, match="isn't published"):
        load_run(run, dsn)
    assert [(each.state, each.failed_gates) for each in runs(dsn)] == [
        ("current", ()),
        ("loaded", ("changed_neighbours",)),
    ]
    report = load_run(run, dsn, force=True)
    assert (report.already_loaded, report.failed_gates) == (True, ("changed_neighbours",))


@pytest.mark.parametrize("publish", [True, False])
def test_loads_that_readers_dont_see_dont_pile_up(tmp_path, dsn, served, publish):
    for seed in (2, 3, 5):
        run = loadable_run(tmp_path / str(seed), n=N, k=K, seed=seed)
        options = LoadOptions(publish=publish, keep=2)
        if publish:
            with pytest.raises(QualityGate, match="isn't published"):
                load_run(run, dsn, options=options)
        else:
            load_run(run, dsn, options=options)
    assert [(run.run_id, run.state) for run in runs(dsn)] == [(served, "current"), (4, "loaded")]


def test_what_was_just_loaded_stays_however_few_shall(tmp_path, dsn):
    for seed in (1, 2):
        load_run(loadable_run(tmp_path / str(seed), seed=seed, n=50), dsn)
    new = loadable_run(tmp_path / "3", seed=3, n=50)
    report = load_run(new, dsn, options=LoadOptions(publish=False, keep=1))
    assert report.dropped_runs == (1,)
    assert [run.run_id for run in runs(dsn)] == [2, 3]


@pytest.mark.parametrize("back", [1, 2])
def test_a_run_that_was_rolled_back_isnt_published_by_loading_it_again(tmp_path, dsn, back):
    made = [loadable_run(tmp_path / str(seed), seed=seed, n=50) for seed in (1, 2, 3)]
    good, _, bad = (load_run(run, dsn).run_id for run in made)
    for _ in range(back):
        gone_back_to = rollback(dsn).run_id
    with pytest.raises(QualityGate, match=f"run {bad} isn't published: it was rolled back") as e:
        load_run(made[2], dsn)
    assert f"nearfield publish {bad}" in str(e.value)
    assert current(dsn).run_id == gone_back_to
    assert load_run(made[2], dsn, options=UNSEEN).already_loaded
    # what readers see may be loaded again, and another run is news
    assert load_run(made[gone_back_to - good], dsn).run_id == gone_back_to
    assert load_run(made[2], dsn, force=True).published
    rollback(dsn)
    assert publish(dsn, bad).run_id == current(dsn).run_id == bad
    assert load_run(made[2], dsn).published


def test_a_run_that_was_rolled_back_is_never_gone_back_to_and_goes_first(tmp_path, dsn):
    made = [loadable_run(tmp_path / str(seed), seed=seed, n=50) for seed in (1, 2, 3, 4)]
    good, _bad = (load_run(run, dsn).run_id for run in made[:2])
    assert rollback(dsn).run_id == good
    third = load_run(made[2], dsn).run_id
    assert rollback(dsn).run_id == good
    with pytest.raises(UsageError, match="no earlier published run"):
        rollback(dsn)
    fourth = load_run(made[3], dsn, options=LoadOptions(keep=2)).run_id
    assert [run.run_id for run in runs(dsn)] == [good, fourth]
    assert fourth > third
    assert rollback(dsn).run_id == good


def test_recordings_that_are_gone_stand_in_the_way(tmp_path, dsn, served):
    few = loadable_run(tmp_path / "few", n=300, k=K, seed=1)
    with pytest.raises(QualityGate, match=r"coverage 0\.25, expected at least 0\.9"):
        load_run(few, dsn)


def test_a_trial_is_measured_against_but_not_judged_by(tmp_path, dsn):
    load_run(loadable_run(tmp_path / "trial", seed=1), dsn)
    report = load_run(loadable_run(tmp_path / "2", n=40, seed=2), dsn)
    coverage = gates_of(dsn, report.run_id)["coverage"]
    assert coverage == [pytest.approx(40 / 300), True, 1]


def test_a_sample_of_removed_rows_alone_is_no_measure(tmp_path, dsn, served, monkeypatch):
    monkeypatch.setattr("dumps.postgres.gates.COVERAGE_SAMPLE", 1)
    (sampled,) = np.random.default_rng(served).choice(N, 1, replace=False)
    ask(dsn, "DELETE FROM nearfield.recordings_all WHERE row = %s", int(sampled))
    new = load_run(loadable_run(tmp_path / "2", n=N, k=K, seed=2), dsn, options=UNSEEN).run_id
    publish(dsn, new, limits=Limits(max_changed_neighbours=1.0))
    assert gates_of(dsn, new)["coverage"] == [None, True, served]


@pytest.mark.parametrize(
    ("damage", "gate"),
    [
        ("DELETE FROM nearfield.neighbours_all WHERE run_id = 2 AND row = 7", "rows 1199"),
        ("DELETE FROM nearfield.recordings_all WHERE run_id = 2 AND row = 7", "1,199 recordings"),
        ("UPDATE nearfield.neighbours_all SET neighbours[1] = 1200 WHERE run_id = 2", "ranges"),
        ("UPDATE nearfield.neighbours_all SET neighbours[2] = row WHERE run_id = 2", "ranges"),
        ("UPDATE nearfield.neighbours_all SET distances[1] = 9 WHERE run_id = 2", "ranges"),
        ("UPDATE nearfield.load_chunks SET distance_min = -1 WHERE run_id = 2", "ranges"),
    ],
)
def test_a_run_that_was_damaged_in_the_database_isnt_published(tmp_path, dsn, damage, gate):
    load_run(loadable_run(tmp_path / "1", seed=1), dsn)
    new = load_run(loadable_run(tmp_path / "2", n=N, k=K, seed=2), dsn, options=UNSEEN).run_id
    ask(dsn, damage)
    with pytest.raises(QualityGate, match=gate):
        publish(dsn, new)


def test_runs_are_listed_with_their_sizes(tmp_path, dsn, served):
    (listed,) = runs(dsn)
    assert (listed.run_id, listed.state, listed.n, listed.rows) == (served, "current", N, N)
    assert (
        listed.bytes
        == ask(
            dsn,
            "SELECT sum(pg_total_relation_size(relid))::bigint FROM ("
            " SELECT * FROM pg_partition_tree('nearfield.neighbours_all')"
            " UNION ALL SELECT * FROM pg_partition_tree('nearfield.recordings_all')) AS t",
        )[0][0]
    )
    assert listed.since == listed.published
    assert listed.since.endswith("Z")


def test_nothing_is_listed_published_or_pruned_before_the_first_load(dsn):
    for command in (runs, rollback, prune, lambda dsn: publish(dsn, 1)):
        with pytest.raises(UsageError, match="nothing was loaded"):
            command(dsn)


def whole(run_id, published=None, *, current=False):
    return KnownRun(run_id, current, published, float(run_id))


def test_the_policy_keeps_the_current_run_and_the_way_back():
    loaded = [whole(1, 1.0), whole(2, 2.0, current=True), whole(3), whole(4)]
    assert surplus(loaded, 1, back=1) == [1, 3, 4]
    assert surplus(loaded, 2, back=1) == [3, 4]
    assert surplus(loaded, 2, back=None) == [1, 3]
    assert surplus(loaded, 3, back=1) == [3]
    assert surplus(loaded, 9, back=1) == []


def test_the_policy_drops_what_is_half_and_nothing_else_before_a_publication():
    assert surplus([whole(1), KnownRun(2, False, None, None)], 1, back=None) == [2]


def test_a_dry_run_drops_nothing_and_says_the_same(tmp_path, dsn):
    for seed in (1, 2, 3):
        load_run(loadable_run(tmp_path / str(seed), seed=seed, n=50), dsn)
    planned = prune(dsn, keep=1, dry_run=True)
    assert (planned.dropped, planned.kept) == ([1, 2], [3])
    assert len(runs(dsn)) == 3
    assert prune(dsn, keep=1) == planned
    with pytest.raises(UsageError, match="at least 1"):
        prune(dsn, keep=0)


def test_a_snapshot_that_hasnt_read_yet_keeps_its_run(tmp_path, dsn, monkeypatch):
    monkeypatch.setattr("dumps.postgres.retention.WAIT_S", 0.2)
    load_run(loadable_run(tmp_path / "1", seed=1, n=50), dsn)
    reader = psycopg2.connect(dsn)
    reader.set_session(isolation_level="REPEATABLE READ")
    with reader.cursor() as cursor:
        cursor.execute("SELECT 1")  # a snapshot, but no lock on any table
        load_run(loadable_run(tmp_path / "2", seed=2, n=50), dsn)
        assert prune(dsn, keep=1).still_read == [1]
        cursor.execute("SELECT count(*) FROM nearfield.neighbours")
        assert cursor.fetchone() == (50,)
        with pytest.raises(UsageError, match="isn't whole"):
            publish(dsn, 1)
    reader.close()
    assert prune(dsn, keep=1).dropped == [1]


def test_pruning_waits_for_no_load_but_says_so(tmp_path, dsn):
    load_run(loadable_run(tmp_path / "1", n=50), dsn)
    loader = psycopg2.connect(dsn)
    with loader.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (0x6E656172,))
        with pytest.raises(RunLocked, match="wait until it ends"):
            prune(dsn)
    loader.close()


def test_a_role_that_may_not_connect_is_told_which_grant_it_needs(tmp_path, dsn):
    ask(dsn, "DROP ROLE IF EXISTS barred; CREATE ROLE barred LOGIN")
    ask(dsn, "CREATE DATABASE closed")
    ask(dsn, "REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
    barred = dsn.replace("user=nearfield", "user=barred").replace(
        "dbname=postgres", "dbname=closed"
    )
    with pytest.raises(DatabaseError, match="GRANT CONNECT ON DATABASE"):
        runs(barred)
    ask(dsn, "DROP DATABASE closed")
