"""The build on a real Dask cluster: right lists, resumed parts, faults contained."""

import os
import subprocess
import sys
import time
from pathlib import Path

import dask
import numpy as np
import psutil
import pyarrow as pa
import pytest
from distributed import get_worker, wait

from benchmark.methods.base import tie_aware_recall
from index_build import build, plan, shards
from index_build.build import build_lists
from nearfield.cluster import (
    ClusterOptions,
    Task,
    begin_tasks,
    connected,
    run_tasks,
    workers_of,
)
from nearfield.errors import Infrastructure, ShardFailed, UsageError
from nearfield.kept_memory import KEPT
from nearfield.neighbours import read_part
from nearfield.run import RunConfig, create_run
from nearfield.traffic import note_read
from nearfield.vectorset import Geometry, write_vector_set
from tests.index_build.brute import nearest


def vector_set(path, vectors, space="l2"):
    recordings = pa.table({"recording_id": [f"r{i}" for i in range(len(vectors))]})
    return write_vector_set(path, vectors, recordings, Geometry(space=space))


def config_of(vectors, method="auto", k=10, recall=0.95):
    return RunConfig(
        vectors=str(vectors.path), vectors_fingerprint=vectors.fingerprint, n=vectors.n,
        d=vectors.d, space=vectors.geometry.space, k=k, recall=recall, method=method, seed=0,
    )  # fmt: skip


def manifold(n, d=16, seed=0):
    rng = np.random.default_rng(seed)
    return np.tanh(rng.standard_normal((n, 4)) @ rng.standard_normal((4, d))).astype(np.float32)


def lists(built):
    first, neighbours, distances = zip(*built.blocks(), strict=True)
    assert list(first) == np.cumsum([0, *map(len, neighbours)])[:-1].tolist()
    return np.concatenate(neighbours), np.concatenate(distances)


@pytest.mark.parametrize("space", ["l2", "cosine", "ip"])
def test_a_small_set_is_built_exactly(tmp_path, client, space):
    vectors = manifold(300)
    vectors[50:80] = vectors[7]
    opened = vector_set(tmp_path / "vectors", vectors, space)
    built = build_lists(create_run(tmp_path / "run", config_of(opened)), opened, client)
    neighbours, distances = lists(built)

    rows, true = nearest(vectors, 10, space)
    np.testing.assert_allclose(distances, true, rtol=1e-5, atol=1e-6)
    if space == "l2":
        np.testing.assert_array_equal(neighbours, rows)
    assert built.plan.method == "exact"


def test_a_library_joins_fewer_vectors_than_the_sample(tmp_path, client):
    vectors = manifold(300)
    vectors[50:80] = vectors[7]
    opened = vector_set(tmp_path / "vectors", vectors)
    run = create_run(tmp_path / "run", config_of(opened, "faiss-ivf"))
    _, distances = lists(build_lists(run, opened, client))
    assert tie_aware_recall(distances, nearest(vectors, 10, "l2")[1]) >= 0.95


def test_a_single_shard_fills_what_its_library_left_empty(tmp_path, client):
    random, sizes = np.random.default_rng(0), np.repeat([30, 6], [40, 20])
    centres = np.repeat(100 * random.normal(size=(60, 8)), sizes, axis=0)
    vectors = (centres + random.normal(size=centres.shape)).astype(np.float32)
    opened = vector_set(tmp_path / "vectors", vectors)
    config = config_of(opened, "faiss-ivf(rows_per_list=16)", recall=0.7)
    run = create_run(tmp_path / "run", config)
    neighbours, distances = lists(build_lists(run, opened, client))
    assert (neighbours >= 0).all()
    assert tie_aware_recall(distances, nearest(vectors, 10, "l2")[1]) >= 0.7


def test_equal_vectors_are_each_others_neighbours_whatever_the_method(tmp_path, client):
    opened = vector_set(tmp_path / "vectors", np.ones((20, 4), np.float32))
    run = create_run(tmp_path / "run", config_of(opened, "faiss-hnsw", k=3))
    neighbours, distances = lists(build_lists(run, opened, client))
    assert neighbours[:5].tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]]
    assert not distances.any()


@pytest.mark.parametrize("method", ["exact", "faiss-ivf"])
def test_workers_in_another_folder_find_relative_paths(tmp_path, client, monkeypatch, method):
    monkeypatch.chdir(tmp_path)
    opened = vector_set(Path("vectors"), manifold(60))
    run = create_run(Path("run"), config_of(opened, method))
    assert len(lists(build_lists(run, opened, client))[0]) == 60


def test_copies_of_vectors_are_forgotten_by_the_name_that_tasks_have(tmp_path, client, monkeypatch):
    forgotten = []
    monkeypatch.setattr(build, "on_workers", lambda _, what, name: forgotten.append((what, name)))
    monkeypatch.chdir(tmp_path)
    opened = vector_set(Path("vectors"), manifold(60))
    build_lists(create_run(Path("run"), config_of(opened)), opened, client)
    assert forgotten == [(build.forget_copy, str(tmp_path.resolve() / "vectors" / "vectors.npy"))]


@pytest.mark.long
def test_shards_reach_the_asked_recall_and_fill_every_list(tmp_path, client, monkeypatch):
    monkeypatch.setattr(plan, "SHARD_ROWS", 750)
    vectors = manifold(3_000)
    vectors[100:140] = vectors[3]
    opened = vector_set(tmp_path / "vectors", vectors)
    run = create_run(tmp_path / "run", config_of(opened, "faiss-ivf"))
    built = build_lists(run, opened, client)
    neighbours, distances = lists(built)

    assert built.plan.parts == 4
    _, true = nearest(vectors, 10, "l2")
    assert tie_aware_recall(distances, true) >= 0.95
    assert built.recall_estimate == pytest.approx(tie_aware_recall(distances, true), abs=0.02)
    assert ((neighbours >= 0) & (neighbours < 3_000)).all()
    assert not (neighbours == np.arange(3_000)[:, None]).any()
    assert all(len(set(row)) == 10 for row in neighbours.tolist())
    assert (np.diff(distances, axis=1) >= 0).all()


def test_one_worker_and_two_give_the_same(tmp_path, client, monkeypatch):
    monkeypatch.setattr(plan, "EXACT_BLOCK_ROWS", 100)
    opened = vector_set(tmp_path / "vectors", manifold(700))
    two = build_lists(create_run(tmp_path / "two", config_of(opened)), opened, client)
    with connected(ClusterOptions(workers=1)) as single:
        one = build_lists(create_run(tmp_path / "one", config_of(opened)), opened, single)
    for left, right in zip(lists(one), lists(two), strict=True):
        np.testing.assert_array_equal(left, right)


class TestResume:
    @pytest.fixture
    def finished(self, tmp_path, client, monkeypatch):
        monkeypatch.setattr(plan, "EXACT_BLOCK_ROWS", 100)
        opened = vector_set(tmp_path / "vectors", manifold(450))
        run = create_run(tmp_path / "run", config_of(opened))
        before = lists(build_lists(run, opened, client))
        return run, opened, before

    def rebuilt(self, finished, client):
        run, opened, before = finished
        again = build_lists(run, opened, client)
        for left, right in zip(lists(again), before, strict=True):
            np.testing.assert_array_equal(left, right)
        return again

    def test_a_finished_part_is_kept(self, finished, client):
        again = self.rebuilt(finished, client)
        assert (again.kept, again.parts) == (5, 5)

    def test_a_part_without_manifest_is_made_again(self, finished, client):
        (finished[0].path / "parts" / "exact-00002.json").unlink()
        assert self.rebuilt(finished, client).kept == 4

    @pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
    def test_a_damaged_part_is_made_again(self, finished, client, damage):
        part = finished[0].path / "parts" / "exact-00001.h5"
        content = bytearray(part.read_bytes())
        if damage == "gone":
            part.unlink()
        elif damage == "truncated":
            part.write_bytes(content[: len(content) // 2])
        else:
            content[len(content) // 2] ^= 1
            part.write_bytes(content)
        assert self.rebuilt(finished, client).kept == 4


@pytest.mark.slow
def test_rows_of_tiny_shards_are_searched_everywhere(tmp_path):
    vectors = manifold(40)
    np.save(tmp_path / "vectors.npy", vectors)
    task = shards.PartTask(str(tmp_path / "merged.h5"), "f", 5, "l2", 1.0, 0)
    parts = []
    for number, rows in enumerate((np.arange(3), np.arange(3, 40))):
        directory = tmp_path / f"{number}"
        shards.write_shard(directory, rows.astype(np.int32), vectors[rows], fingerprint="f")
        parts.append(str(tmp_path / f"part-{number}.h5"))
        part = shards.PartTask(parts[-1], "f", 5, "l2", 1.0, 0)
        shards.shard_part(str(directory), "faiss-ivf", part, threads=1)
    shards.merged_part(parts, str(tmp_path / "vectors.npy"), (0, 40), task, threads=1)
    found = read_part(Path(task.part))
    assert (found.neighbours >= 0).all()
    np.testing.assert_array_equal(found.neighbours[:3], nearest(vectors, 5, "l2")[0][:3])


def test_a_native_crash_names_the_shard(tmp_path, monkeypatch):
    crash = tmp_path / "python"
    crash.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crash))
    task = shards.PartTask(str(tmp_path / "part.h5"), "f", 5, "l2", 1.0, 0)
    with pytest.raises(ShardFailed, match=r"faiss-ivf on .*00007: killed by SIGSEGV"):
        shards.shard_part(str(tmp_path / "00007"), "faiss-ivf", task, threads=1)


@pytest.mark.slow
def test_a_killed_worker_takes_its_child_with_it(tmp_path):
    shards.write_shard(
        tmp_path / "00001", np.arange(60_000, dtype=np.int32), manifold(60_000, 64), fingerprint="f"
    )
    program = (
        "from index_build import shards\n"
        f"task = shards.PartTask({str(tmp_path / 'part.h5')!r}, 'f', 100, 'l2', 1.0, 0)\n"
        f"shards.shard_part({str(tmp_path / '00001')!r}, 'faiss-hnsw', task, threads=1)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 30
    while not (children := psutil.Process(worker.pid).children()):
        assert worker.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker.kill()
    worker.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_a_damaged_shard_names_its_file(tmp_path):
    shards.write_shard(
        tmp_path / "00001", np.arange(9, dtype=np.int32), manifold(9), fingerprint="f"
    )
    with (tmp_path / "00001" / "vectors.npy").open("r+b") as stream:
        stream.truncate(200)
    task = shards.PartTask(str(tmp_path / "part.h5"), "f", 5, "l2", 1.0, 0)
    with pytest.raises(ShardFailed, match=r"vectors.npy has 200 bytes"):
        shards.shard_part(str(tmp_path / "00001"), "faiss-ivf", task, threads=1)


def _fails_for(folder, number, bad, *, threads):
    if number in bad:
        raise ValueError(f"no {number}")
    (Path(folder) / f"{number}").touch()


def _kills_its_worker_once(mark, *, threads):
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), 9)
    Path(mark).with_name("survived").touch()


def test_failed_tasks_are_all_listed_and_the_others_done(tmp_path, client):
    tasks = [Task(f"task {i}", _fails_for, (str(tmp_path), i, (1, 3))) for i in range(5)]
    with pytest.raises(ShardFailed, match=r"(?s)2 of 5 tasks failed.*task 1: no 1|task 3: no 3"):
        run_tasks(client, "test", tasks)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2", "4"]


def _says_where(folder, number, *, threads):
    # long enough that the other worker would be free to take what isn't its own
    time.sleep(0.05)
    (Path(folder) / f"{number}").write_text(get_worker().address)


def test_tasks_are_done_by_the_workers_they_name_or_others_if_those_are_gone(tmp_path):
    with connected(ClusterOptions(workers=2)) as client:
        one, other = workers_of(client)
        wanted = [one, one, one, one, other, "tcp://127.0.0.1:1"]
        tasks = [
            Task(f"task {i}", _says_where, (str(tmp_path), i), (worker,))
            for i, worker in enumerate(wanted)
        ]
        run_tasks(client, "test", tasks)
    did = [(tmp_path / f"{i}").read_text() for i in range(6)]
    assert did[:5] == wanted[:5]
    assert did[5] in {one, other}


def _waits_for(mark, *, threads):
    # the test says when, from another process; its time limit ends a wait in vain
    while not Path(mark).exists():
        time.sleep(0.01)
    note_read(7)


def test_what_was_begun_is_not_waited_for_but_counted_when_it_ends(tmp_path, client):
    mark = tmp_path / "mark"
    begun = begin_tasks(client, [Task("begun", _waits_for, (str(mark),))])
    tasks = [Task(f"task {i}", _says_where, (str(tmp_path), i)) for i in range(2)]
    assert run_tasks(client, "test", tasks, beside=begun).read == 0
    mark.touch()
    wait(list(begun))
    assert run_tasks(client, "test", tasks, beside=begun).read == 7
    assert not begun


def test_a_killed_worker_costs_only_a_retry(tmp_path):
    with connected(ClusterOptions(workers=2)) as client:
        task = Task("deadly", _kills_its_worker_once, (str(tmp_path / "mark"),))
        run_tasks(client, "test", [task])
    assert (tmp_path / "survived").exists()


def test_workers_of_shards_keep_freed_memory():
    with connected(ClusterOptions(workers=1)) as client:
        found = client.run(os.environ.get, "MALLOC_TRIM_THRESHOLD_").values()
    assert set(found) == {KEPT["MALLOC_TRIM_THRESHOLD_"]}


def test_a_cluster_without_workers_is_said_to_be_one(tmp_path):
    with connected(ClusterOptions(workers=1)) as client:
        client.cluster.scale(0)
        while workers_of(client):
            time.sleep(0.05)
        task = Task("nobody's", _fails_for, (str(tmp_path), 1, ()))
        with pytest.raises(Infrastructure, match="all are gone"):
            run_tasks(client, "test", [task])


def test_no_worker_is_missed_while_the_client_refreshes_what_it_knows():
    often = {"distributed.client.scheduler-info-interval": "1ms"}
    with dask.config.set(often), connected(ClusterOptions(workers=1)) as client:
        assert all(len(workers_of(client)) == 1 for _ in range(300))


def test_an_unreachable_scheduler_is_named(monkeypatch):
    monkeypatch.setattr("nearfield.cluster.CONNECT_TIMEOUT_S", 1)
    with (
        pytest.raises(Infrastructure, match=r"scheduler at tcp://127\.0\.0\.1:9"),
        connected(ClusterOptions(scheduler="tcp://127.0.0.1:9")),
    ):
        pass


@pytest.mark.parametrize(
    "options", [ClusterOptions(workers=0), ClusterOptions(1, "tcp://127.0.0.1:9")]
)
def test_nonsense_about_workers_is_refused(options):
    with pytest.raises(UsageError), connected(options):
        pass


def test_the_scratch_of_a_local_cluster_is_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with connected(ClusterOptions(workers=1)):
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_the_environment_is_as_before_when_a_local_cluster_has_ended():
    before = dict(os.environ)
    with connected(ClusterOptions(workers=1)):
        pass
    assert dict(os.environ) == before
