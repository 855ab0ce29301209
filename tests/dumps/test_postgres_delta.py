"""A run that an update made, loaded over the one that it extends: only what changed is sent."""

import json

import numpy as np
import pytest

from dumps.postgres.load import LoadOptions, load_run
from dumps.postgres.publish import rollback
from dumps.postgres.query import similar
from dumps.postgres.server import embedded
from nearfield import api
from nearfield.errors import InputRejected
from nearfield.ingest.options import IngestOptions
from nearfield.run import open_run
from tests.cli.conftest import clustered
from tests.dumps.postgres_case import ask
from tests.index_build.brute import all_distances


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A verified run of 600 recordings, and one with 20 more, 3 fewer."""
    folder = tmp_path_factory.mktemp("updated")
    vectors = clustered(620)
    for name, first, stop in (("old", 0, 600), ("new", 600, 620)):
        np.save(folder / f"{name}.npy", vectors[first:stop])
        ids = "".join(f"song-{i}\n" for i in range(first, stop))
        (folder / f"{name}.txt").write_text(ids)
        options = IngestOptions(ids=folder / f"{name}.txt")
        api.ingest(folder / f"{name}.npy", folder / name, options)
    api.build(folder / "old", folder / "run", k=5)
    api.update(
        folder / "run", folder / "run2", add=folder / "new", remove=["song-3", "song-9", "song-599"]
    )
    for name in ("run", "run2"):
        assert api.verify(folder / name).passed
    return open_run(folder / "run"), open_run(folder / "run2")


@pytest.fixture(scope="module")
def dsn(tmp_path_factory):
    with embedded(tmp_path_factory.mktemp("database") / "data") as address:
        yield address


def content(dsn, run_id):
    return ask(
        dsn,
        'SELECT "row", recording_id, neighbours, distances FROM nearfield.recordings_all'
        ' JOIN nearfield.neighbours_all USING (run_id, "row") WHERE run_id = %s ORDER BY 1',
        run_id,
    )


def test_unchanged_lists_come_from_the_server_and_the_rest_from_the_file(runs, dsn):
    old, new = runs
    first = load_run(old, dsn)
    delta = load_run(new, dsn)
    assert delta.rows == 617
    assert any("copied from run" in note for note in delta.notes)
    assert delta.bytes < first.bytes

    # a load of everything gives the same tables, to the bit
    rows = content(dsn, delta.run_id)
    ask(dsn, "UPDATE nearfield.runs SET fingerprint = 'other' WHERE run_id = %s", delta.run_id)
    whole = load_run(new, dsn, options=LoadOptions(delta=False))
    assert whole.run_id != delta.run_id
    assert content(dsn, whole.run_id) == rows

    # and both are what brute force says
    vectors = np.load(f"{new.config.vectors}/vectors.npy")
    far = all_distances(vectors, "l2").astype(np.float32)
    far[:, [3, 9, 599]] = np.inf
    for row, name, neighbours, distances in rows:
        assert name == f"song-{row}"
        np.testing.assert_allclose(distances, np.sort(far[row])[:5], rtol=1e-5)
        assert not {3, 9, 599} & set(neighbours)


@pytest.mark.slow
def test_lists_that_their_reserve_makes_up_are_sent_too(runs, tmp_path):
    gone = [7, 50, 300, 610]
    report = api.update(runs[1].path, tmp_path / "run3", remove=[f"song-{row}" for row in gone])
    assert report.refilled < report.lost
    assert api.verify(report.run).passed
    with embedded(tmp_path / "data") as dsn:
        load_run(runs[1], dsn)
        delta = load_run(open_run(report.run), dsn)
        assert any("copied from run" in note for note in delta.notes)
        rows = content(dsn, delta.run_id)
    vectors = np.load(report.run / "vectors/vectors.npy")
    far = all_distances(vectors, "l2").astype(np.float32)
    far[:, [3, 9, 599, *gone]] = np.inf
    assert len(rows) == 613
    for row, _, neighbours, distances in rows:
        np.testing.assert_allclose(distances, np.sort(far[row])[:5], rtol=1e-5)
        assert not set(gone) & set(neighbours)


def test_a_run_in_which_nothing_changed_is_published_without_sending_a_list(runs, tmp_path):
    report = api.update(runs[0].path, tmp_path / "same", remove=[])
    assert api.verify(report.run).passed
    with embedded(tmp_path / "data") as dsn:
        first = load_run(runs[0], dsn)
        same = load_run(open_run(report.run), dsn)
        assert any("copied from run" in note for note in same.notes)
        assert [row[2:] for row in content(dsn, same.run_id)] == [
            row[2:] for row in content(dsn, first.run_id)
        ]


def test_readers_see_no_removed_recording_and_rollback_brings_it_back(runs, dsn):
    load_run(runs[0], dsn)
    load_run(runs[1], dsn)
    with pytest.raises(InputRejected):
        similar(dsn, "song-3", 5)
    assert len(similar(dsn, "song-610", 5)) == 5
    rollback(dsn)
    assert len(similar(dsn, "song-3", 5)) == 5


def test_without_the_run_before_everything_is_sent(runs, tmp_path):
    with embedded(tmp_path / "data") as dsn:
        alone = load_run(runs[1], dsn)
    assert alone.rows == 617
    assert not any("copied from run" in note for note in alone.notes)


@pytest.mark.parametrize("name", ["update.json", "matrix.json"])
def test_a_delta_of_another_update_or_beside_a_built_matrix_is_not_used(runs, dsn, name):
    new = runs[1]
    path = new.path / name
    before = path.read_text()
    content = json.loads(before)
    if name == "update.json":
        content["fingerprint"] = "f" * 16
    else:
        content["facts"]["update"] = "built anew"
    path.write_text(json.dumps(content))
    try:
        load_run(runs[0], dsn)
        ask(dsn, "UPDATE nearfield.runs SET fingerprint = fingerprint || run_id")
        # readers were taken off it by the rollback above
        loaded = load_run(new, dsn, options=LoadOptions(publish=False))
        assert not any("copied from run" in note for note in loaded.notes)
    finally:
        path.write_text(before)
