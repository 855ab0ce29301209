"""The whole path by commands, and the mistakes that a user makes on it."""

import hashlib
import json
import os
import time

import h5py
import numpy as np
import psutil
import pytest

from tests.cli.conftest import clustered
from tests.index_build.brute import nearest


class TestMainJob:
    def test_from_vectors_to_neighbours_in_sql(self, nearfield, embeddings):
        nearfield("ingest", "embeddings.npy", "--ids", "ids.txt", "--out", "vectors")
        nearfield("build", "vectors", "--out", "run", "-k", 10)
        verified = nearfield("verify", "run", "--json")
        assert verified.code == 0
        assert verified.json["recall"] == 1.0
        loaded = nearfield("load", "run", "--json")
        assert loaded.code == 0, loaded.err
        assert loaded.json["rows"] == 400

        answer = nearfield("query", "song-7", "-k", 5, "--run", "run", "--json")
        rows, distances = nearest(np.load(embeddings / "embeddings.npy"), 5, "l2")
        assert [hit["recording_id"] for hit in answer.json] == [f"song-{i}" for i in rows[7]]
        assert [hit["distance"] for hit in answer.json] == pytest.approx(distances[7].tolist())

        # without naming it, the only embedded database below the folder is asked
        assert nearfield("query", "song-7", "-k", 5, "--json").json == answer.json
        status = nearfield("status", "run", "--json").json
        assert status["stage"] == "verified"
        assert "nearfield query" in status["advice"]
        more = nearfield("query", "song-7", "-k", 11, "--run", "run")
        assert "the published run has 10 neighbours" in more.err
        assert not [
            process
            for process in psutil.process_iter(["cmdline"])
            if str(embeddings) in " ".join(process.info["cmdline"] or [])
        ]

    def test_text_output_names_the_next_command(self, at):
        nearfield = at("built")
        assert "nearfield verify run" in nearfield("status", "run").out
        assert "nearfield load run" in at("verified")("status", "run").out

    def test_building_again_does_nothing(self, at):
        nearfield = at("built")
        before = (nearfield.folder / "run" / "matrix.h5").stat()
        again = nearfield("build", "vectors", "--out", "run", "-k", 10, "--json")
        assert again.json["made"] is False
        assert (nearfield.folder / "run" / "matrix.h5").stat().st_mtime_ns == before.st_mtime_ns

    @pytest.mark.slow
    def test_a_damaged_matrix_is_built_again(self, at):
        nearfield = at("built")
        matrix = nearfield.folder / "run" / "matrix.h5"
        whole = matrix.read_bytes()
        matrix.write_bytes(whole[:-100])
        assert nearfield("verify", "run").code == 4
        done = nearfield("build", "vectors", "--out", "run", "-k", 10)
        assert done.code == 0
        assert "matrix.h5  (400 recordings x 10 neighbours)" in done.out
        with h5py.File(matrix) as file:
            assert file["neighbours"].shape == (400, 10)

    def test_a_dry_run_makes_nothing(self, nearfield, embeddings):
        nearfield("ingest", "embeddings.npy", "--out", "vectors")
        plan = nearfield("build", "vectors", "--out", "run", "--dry-run", "--json")
        assert plan.json["method"] == "exact"
        assert plan.json["seconds"] > 0
        assert not (embeddings / "run").exists()

    @pytest.mark.slow
    def test_with_fewer_recordings_than_k_all_others_are_listed(self, nearfield, tmp_path):
        np.save(tmp_path / "embeddings.npy", clustered(6))
        nearfield("ingest", "embeddings.npy", "--out", "vectors")
        done = nearfield("build", "vectors", "--out", "run")
        assert done.code == 0
        assert "6 recordings have only 5 neighbours each, not 100" in done.out
        assert nearfield("verify", "run").code == 0


class TestMistakes:
    @pytest.mark.parametrize(
        ("command", "code", "message"),
        [
            (["ingest", "nowhere.npy", "--out", "v"], 2, "nowhere.npy"),
            (["build", "nowhere", "--out", "r"], 2, "nearfield ingest"),
            (["verify", "nowhere"], 2, "nearfield build"),
            (["load", "nowhere"], 2, "nearfield build"),
            (["load", "r", "--redis", "redis://h/0", "--no-publish"], 2, "--no-publish is of"),
            (["load", "r", "--redis", "redis://h/0", "--connections", "2"], 2, "--connections is"),
            (["query", "x"], 2, "--run"),
            (["run", "nowhere.toml"], 2, "nowhere.toml"),
            (["run", "."], 2, "directory"),
            (["verify", "file"], 2, "nearfield build"),
            (["ingest", "file.npy", "--out", "file/vectors"], 2, "file/vectors"),
            (["query", "x", "--run", "r", "--database", "d"], 2, "--run or --database"),
            (["build", "vectors"], 2, "--out"),
            (["nonsense"], 2, "nonsense"),
        ],
    )
    def test_a_wrong_path_or_option_is_named(self, nearfield, command, code, message):
        (nearfield.folder / "file").touch()
        np.save(nearfield.folder / "file.npy", clustered(3))
        done = nearfield(*command)
        assert done.code == code
        assert message in done.err
        assert "Traceback" not in done.err

    @pytest.mark.parametrize(
        ("options", "code", "message"),
        [
            (["-k", "0"], 2, "k of at least 1, got 0"),
            (["--recall", "1.5"], 2, "got 1.5"),
            (["--method", "magic"], 2, "faiss-ivf"),
            (["--workers", "0"], 2, "at least one worker"),
            (["--scheduler", "tcp://127.0.0.1:9", "--workers", "2"], 2, "got both"),
        ],
    )
    def test_nonsense_for_a_build_is_refused(self, nearfield, embeddings, options, code, message):
        nearfield("ingest", "embeddings.npy", "--out", "vectors")
        done = nearfield("build", "vectors", "--out", "run", *options)
        assert (done.code, "Traceback" in done.err) == (code, False)
        assert message in done.err

    def test_another_configuration_needs_another_directory(self, at):
        done = at("built")("build", "vectors", "--out", "run", "-k", 11)
        assert done.code == 2
        assert "k 10 there, 11 asked" in done.err

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_vectors_that_arent_finite_are_rejected(self, nearfield, tmp_path, bad):
        vectors = clustered(40)
        vectors[5:20, 3] = bad
        np.save(tmp_path / "embeddings.npy", vectors)
        done = nearfield("ingest", "embeddings.npy", "--out", "vectors")
        assert done.code == 3
        assert "15 not finite" in done.err
        assert not (tmp_path / "vectors" / "manifest.json").exists()

    def test_an_empty_array_is_rejected(self, nearfield, tmp_path):
        np.save(tmp_path / "embeddings.npy", np.empty((0, 8), np.float32))
        assert nearfield("ingest", "embeddings.npy", "--out", "vectors").code == 3

    def test_one_recording_has_no_matrix(self, nearfield, tmp_path):
        np.save(tmp_path / "embeddings.npy", clustered(1))
        nearfield("ingest", "embeddings.npy", "--out", "vectors")
        assert nearfield("build", "vectors", "--out", "run").code == 3

    @pytest.mark.slow
    def test_an_unverified_run_is_loaded_only_by_force(self, at):
        nearfield = at("built")
        refused = nearfield("load", "run")
        assert refused.code == 4
        assert "nearfield verify" in refused.err
        assert nearfield("load", "run", "--force").code == 0

    @pytest.mark.slow
    def test_a_run_below_the_asked_recall_stops_with_4(self, at):
        nearfield = at("built")
        done = nearfield("verify", "run", "--recall", 1)
        assert done.code == 0
        worsen(nearfield.folder / "run")
        done = nearfield("verify", "run", "--json")
        assert done.code == 4
        assert done.json["recall"] == pytest.approx(0.7, abs=0.05)
        assert "recall" in done.err
        assert nearfield("load", "run").code == 4

    @pytest.mark.parametrize("named", ["no-such-song", "song\udcff"])
    def test_an_unknown_recording_is_named(self, at, named):
        done = at("loaded")("query", named)
        assert (done.code, "Traceback" in done.err) == (3, False)
        assert "unknown recording" in done.err
        assert ascii(named).strip("'") in done.err

    def test_a_database_that_isnt_there_is_infrastructure(self, at):
        done = at("verified")("load", "run", "--dsn", "postgresql://u:secret@127.0.0.1:9/db")
        assert done.code == 5
        assert "secret" not in done.err + done.out


def worsen(run):
    """Replace the last 3 of 10 neighbours by others, with true distances and a new manifest."""
    config = json.loads((run / "run.json").read_bytes())
    vectors = np.load(f"{config['vectors']}/vectors.npy").astype(np.float64)
    with h5py.File(run / "matrix.h5", "r+") as file:
        neighbours = file["neighbours"][...]
        for row, near in enumerate(neighbours):
            others = np.setdiff1d(np.arange(len(vectors)), [row, *near])
            near[7:] = others[-3:]
            far = np.sqrt(((vectors[near] - vectors[row]) ** 2).sum(axis=1)).astype(np.float32)
            order = np.lexsort((near, far))
            file["neighbours"][row], file["distances"][row] = near[order], far[order]
    manifest = json.loads((run / "matrix.json").read_bytes())
    content = (run / "matrix.h5").read_bytes()
    manifest["files"]["matrix.h5"] = {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (run / "matrix.json").write_text(json.dumps(manifest))


class TestInterruption:
    @pytest.fixture
    def large(self, nearfield, tmp_path):
        np.save(tmp_path / "embeddings.npy", clustered(40_000, 64))
        assert nearfield("ingest", "embeddings.npy", "--out", "vectors").code == 0
        return nearfield

    def wait_for(self, path, pattern, process):
        deadline = time.monotonic() + 60
        while not list(path.glob(pattern)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    @pytest.mark.long
    def test_ctrl_c_in_a_build_is_resumed(self, large, tmp_path):
        process = large.start("build", "vectors", "--out", "run", "-k", 50)
        self.wait_for(tmp_path / "run", "parts/*.json", process)
        ended = large.interrupt(process)
        assert ended.code == 130
        assert ended.err.strip().splitlines()[-1].startswith("nearfield: interrupted")
        assert "Traceback" not in ended.err
        again = large("build", "vectors", "--out", "run", "-k", 50, "--json")
        assert again.code == 0, again.err
        assert again.json["kept"] >= 1
        assert large("verify", "run", "--sample", 100).code == 0

    @pytest.mark.long
    def test_the_second_of_two_on_one_run_stops_with_75(self, large, tmp_path):
        process = large.start("build", "vectors", "--out", "run", "-k", 50)
        self.wait_for(tmp_path, "run/run.json", process)
        second = large("build", "vectors", "--out", "run", "-k", 50)
        assert second.code == 75
        assert str(process.pid) in second.err
        process.communicate(timeout=120)
        assert process.returncode == 0

    @pytest.mark.slow
    def test_a_killed_driver_leaves_a_resumable_run_and_no_workers(self, large, tmp_path):
        process = large.start("build", "vectors", "--out", "run", "-k", 50)
        self.wait_for(tmp_path / "run", "parts/*.json", process)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate()
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive
        again = large("build", "vectors", "--out", "run", "-k", 50, "--json")
        assert again.json["kept"] >= 1


@pytest.mark.slow
def test_a_job_file_does_all_stages_and_converges(nearfield, embeddings):
    (embeddings / "job.toml").write_text(
        '[ingest]\nsources = ["embeddings.npy"]\nids = "ids.txt"\n[build]\nk = 5\n'
    )
    first = nearfield("run", "job.toml", "--json")
    assert first.code == 0, first.err
    second = nearfield("run", "job.toml", "--json")
    assert second.code == 0, second.err
    assert second.json["run_id"] == first.json["run_id"]
    assert second.json["matrix"] == first.json["matrix"]

    np.save(embeddings / "embeddings.npy", clustered(400, seed=9))
    third = nearfield("run", "job.toml", "--json")
    assert third.json["run_id"] != first.json["run_id"]
    answer = nearfield("query", "song-7", "-k", 5, "--json")
    rows, _ = nearest(clustered(400, seed=9), 5, "l2")
    assert [hit["recording_id"] for hit in answer.json] == [f"song-{i}" for i in rows[7]]

    (embeddings / "ids.txt").write_text("".join(f"tune-{i}\n" for i in range(400)))
    assert nearfield("run", "job.toml").code == 0
    answer = nearfield("query", "tune-7", "-k", 5, "--json")
    assert [hit["recording_id"] for hit in answer.json] == [f"tune-{i}" for i in rows[7]]


def test_sources_of_a_job_may_be_absolute_patterns(nearfield, embeddings):
    (embeddings / "jobs").mkdir()
    (embeddings / "jobs" / "job.toml").write_text(
        f'[ingest]\nsources = ["{embeddings}/emb*.npy", "../embeddings.npy"]\n'
    )
    plan = nearfield("run", "jobs/job.toml", "--dry-run", "--json")
    assert plan.json["ingest"] == "2 sources, to be read"
    assert plan.json["folder"] == str(embeddings / "jobs")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "job.toml"),
        ("\udcff", "job.toml"),
        ('[ingest]\nsources = ["/nowhere/*.csv"]', "matches nothing"),
        ('[ingest]\nsources = ["*.csv"]', "matches nothing"),
        ('[ingest]\nsources = ["embeddings.npy"]\n[build]\nkk = 3', "kk"),
        ('[ingest]\nsources = ["embeddings.npy"]\n[build]\nk = "three"', "build.k"),
        ('[ingest]\nsources = ["embeddings.npy"]\n[build]\nrecall = 1.5', "build.recall"),
        ('[ingest]\nsources = ["embeddings.npy"]\n[verify]\nsample = 0', "verify.sample"),
        ('[ingest]\nsources = ["embeddings.npy"]\n[load]\ndsn = "host=x"\ndatabase = "y"', "both"),
        ("[build]\nk = 3", "ingest"),
    ],
)
def test_a_wrong_job_file_is_refused(nearfield, embeddings, text, message):
    (embeddings / "job.toml").write_bytes(os.fsencode(text))
    done = nearfield("run", "job.toml")
    assert done.code == 2
    assert message in done.err


def test_json_output_is_one_document(nearfield):
    found = nearfield("doctor", "--json")
    assert json.loads(found.out)
