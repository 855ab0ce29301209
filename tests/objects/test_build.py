"""A run in an object store: bit for bit the local one, whatever happens in between."""

import os
import signal
import subprocess
import sys
import threading
import time

import h5py
import numpy as np
import pyarrow as pa
import pytest

from benchmark.datasets.manifold import manifold
from index_build import plan
from nearfield import api
from nearfield.cluster import ClusterOptions, connected
from nearfield.copies import open_vector_set, send_folder
from nearfield.errors import DamagedArtefact, MissingFile, NearfieldError, UsageError
from nearfield.locations import location
from nearfield.vectorset import Geometry, write_vector_set

N, K = 6_000, 10
BYTES = {"SHARD_BYTES": 600_000, "BLOCK_BYTES": 1_000 * 16 * 4, "PART_ROWS": 1_700}
"""About five shards, six blocks and four ranges of rows."""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    for name, value in BYTES.items():
        monkeypatch.setattr(plan, name, value)
    monkeypatch.setattr(plan, "SHARD_ROWS", 2_500)
    monkeypatch.setattr("index_build.build.MERGE_ROWS", 2_000)


def some_vectors():
    vectors = manifold(N, 16)
    # equal vectors: the distinct ones are sent for the workers
    vectors[:100] = vectors[100:200]
    return vectors


@pytest.fixture(scope="module")
def local_set(tmp_path_factory):
    recordings = pa.table({"recording_id": [f"r{i}" for i in range(N)]})
    path = tmp_path_factory.mktemp("set") / "vectors"
    return write_vector_set(path, some_vectors(), recordings, Geometry(space="l2")).path


@pytest.fixture
def remote_set(local_set, bucket):
    send_folder(local_set, location(f"{bucket}/vectors"))
    return f"{bucket}/vectors"


def lists_of(path):
    with h5py.File(path, "r") as file:
        return [file[name][...] for name in ("neighbours", "distances", "recording_ids")]


def assert_same_matrix(remote_run, local_run, tmp_path):
    fetched = tmp_path / "fetched.h5"
    (location(str(remote_run)) / "matrix.h5").get(fetched)
    for one, other in zip(lists_of(fetched), lists_of(local_run / "matrix.h5"), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def local_cluster():
    with connected(ClusterOptions(2)) as client:
        yield ClusterOptions(scheduler=client.scheduler.address)


@pytest.fixture(scope="module")
def local_runs(tmp_path_factory, local_set, local_cluster):
    """A function from a method to the run that it gives on a local path, made once."""
    made = {}

    def run(method):
        if method not in made:
            made[method] = tmp_path_factory.mktemp("local") / "run"
            api.build(local_set, made[method], k=K, method=method, cluster=local_cluster)
        return made[method]

    return run


@pytest.mark.parametrize(
    "method",
    ["selfjoin", *(pytest.param(name, marks=pytest.mark.long) for name in ("exact", "faiss-ivf"))],
)
@pytest.mark.slow
def test_workers_that_share_nothing_give_the_local_matrix(
    scheduler, remote_set, bucket, local_runs, tmp_path, method
):
    run = f"{bucket}/run"
    report = api.build(
        remote_set, run, k=K, method=method, cluster=ClusterOptions(scheduler=scheduler)
    )
    assert_same_matrix(run, local_runs(method), tmp_path)
    assert report.made
    if method == "selfjoin":
        assert report.parts == 1 + 6 + 3 * 7
    left = sorted(path.name for path in location(run).glob("*"))
    assert left == ["matrix.h5", "matrix.json", "run.json", "steps.jsonl"]
    again = api.build(
        remote_set, run, k=K, method=method, cluster=ClusterOptions(scheduler=scheduler)
    )
    assert not again.made


@pytest.mark.slow
class TestFaults:
    """Killed, damaged, cut off: the same command converges, and nothing is mixed."""

    @pytest.fixture
    def build(self, scheduler, remote_set, bucket):
        def build(**asked):
            cluster = ClusterOptions(scheduler=scheduler)
            return api.build(remote_set, f"{bucket}/run", k=K, **(
                {"method": "selfjoin", "cluster": cluster} | asked
            ))  # fmt: skip

        return build

    @pytest.fixture
    def stopped(self, build, bucket, monkeypatch):
        """A run whose parts are finished, and whose matrix isn't written."""

        def no_room(*_arguments, **_options):
            raise RuntimeError("stopped here")

        with monkeypatch.context() as patched:
            patched.setattr("nearfield.api.matrix.write_matrix", no_room)
            with pytest.raises(RuntimeError, match="stopped here"):
                build()
        return location(f"{bucket}/run")

    def test_finished_parts_are_kept(self, build, stopped, local_runs, tmp_path):
        report = build()
        assert (report.kept, report.parts) == (8, 8)
        assert_same_matrix(stopped, local_runs("selfjoin"), tmp_path)

    @pytest.mark.parametrize(
        "damage",
        [
            "truncated",
            *(pytest.param(name, marks=pytest.mark.long) for name in ("flipped", "gone")),
        ],
    )
    def test_a_damaged_part_is_made_again(self, build, stopped, local_runs, tmp_path, damage):
        part = stopped / "shards" / "0" / "merged-00002"
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        if damage == "gone":
            part.unlink()
        else:
            part.write_bytes(bytes(content[: len(content) // (2 if damage == "truncated" else 1)]))
        # what they were made from is gone, so the stages before are run again
        assert build().kept == 1 + 6
        assert_same_matrix(stopped, local_runs("selfjoin"), tmp_path)

    @pytest.mark.long
    def test_a_damaged_matrix_is_made_again(self, build, bucket, local_runs, tmp_path):
        build()
        matrix = location(f"{bucket}/run/matrix.h5")
        matrix.write_bytes(matrix.read_bytes()[:-1])
        with pytest.raises(DamagedArtefact, match=r"s3://.*matrix.h5 has"):
            api.status(f"{bucket}/run")
        assert build().made
        assert_same_matrix(f"{bucket}/run", local_runs("selfjoin"), tmp_path)

    def test_other_parameters_are_another_run(self, build, stopped):
        with pytest.raises(UsageError, match=r"holds another run.*recall"):
            build(recall=0.9)
        assert build().kept == 8

    @pytest.mark.long
    def test_other_vectors_are_another_run(self, build, stopped, remote_set, tmp_path):
        other = write_vector_set(
            tmp_path / "other", some_vectors() + 1, open_vector_set(remote_set).recordings,
            Geometry(space="l2"),
        )  # fmt: skip
        send_folder(other.path, location(remote_set))
        with pytest.raises(UsageError, match=r"holds another run.*vectors_fingerprint"):
            build()

    def test_a_changed_vector_set_is_refused(self, build, remote_set):
        vectors = location(remote_set) / "vectors.npy"
        content = bytearray(vectors.read_bytes())
        content[-1] ^= 1
        vectors.write_bytes(bytes(content))
        with pytest.raises(DamagedArtefact, match=r"s3://.*vectors.npy doesn't match"):
            build()

    @pytest.mark.long
    def test_a_store_that_goes_away_and_comes_back(
        self, build, server, bucket, local_runs, tmp_path
    ):
        def away():
            while not location(f"{bucket}/run/shards/0").glob("block-*"):
                time.sleep(0.01)
            server.stop()

        switch = threading.Thread(target=away)
        switch.start()
        try:
            with pytest.raises(NearfieldError) as error:
                build()
        finally:
            switch.join()
            server.start()
        assert error.value.exit_code == 5
        assert "run the same command again" in str(error.value)
        assert build().kept >= 2
        assert_same_matrix(f"{bucket}/run", local_runs("selfjoin"), tmp_path)


PROGRAM = """
import sys
from index_build import plan
from nearfield.cli import main
if __name__ == "__main__":
    for value in sys.argv.pop(1).split(","):
        name, number = value.split("=")
        setattr(plan, name, int(number))
    main()
"""


@pytest.mark.long
def test_a_killed_driver_is_resumed_at_once(scheduler, remote_set, bucket, local_runs, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    sizes = ",".join(f"{name}={value}" for name, value in BYTES.items())
    run = f"{bucket}/run"
    driver = subprocess.Popen(
        [
            sys.executable, str(tmp_path / "program.py"), sizes,
            "build", remote_set, "--out", run, "-k", str(K), "--method", "selfjoin",
            "--workers", "1",
        ],
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not location(f"{run}/shards/0").glob("lists-*"):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    # its lease is still there, but it was a process of this machine
    assert location(f"{run}/.lock").exists()
    report = api.build(
        remote_set, run, k=K, method="selfjoin", cluster=ClusterOptions(scheduler=scheduler)
    )
    assert report.kept >= 2
    assert_same_matrix(run, local_runs("selfjoin"), tmp_path)


@pytest.mark.long
def test_local_vectors_are_sent(scheduler, local_set, bucket, local_runs, tmp_path):
    api.build(local_set, f"{bucket}/run", k=K, cluster=ClusterOptions(scheduler=scheduler))
    assert_same_matrix(f"{bucket}/run", local_runs("auto"), tmp_path)


@pytest.mark.long
def test_a_local_run_takes_remote_vectors(remote_set, local_runs, local_cluster, tmp_path):
    api.build(remote_set, tmp_path / "run", k=K, method="selfjoin", cluster=local_cluster)
    assert api.verify(tmp_path / "run", sample=200, recall=0.9).passed
    for one, other in zip(
        lists_of(tmp_path / "run" / "matrix.h5"),
        lists_of(local_runs("selfjoin") / "matrix.h5"),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("server")
def test_a_run_without_its_bucket_says_so(local_set):
    with pytest.raises(MissingFile, match="no bucket"):
        api.build(local_set, "s3://never-made-bucket/run", k=K)
