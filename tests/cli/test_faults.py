"""Full disks and Ctrl-C in every stage: a clear sentence, nothing lost, again converges."""

import subprocess
import time
from contextlib import suppress

import numpy as np
import psutil
import pytest

from tests.cli.conftest import clustered

MIB = 1 << 20


class TestFullDisk:
    def failed_cleanly(self, done):
        assert done.code == 5, done.err
        assert "no room left" in done.err
        assert "Traceback" not in done.err

    def test_at_ingest_no_vector_set_appears(self, nearfield, tmp_path, small_disk):
        np.save(tmp_path / "embeddings.npy", clustered(50_000))
        disk = small_disk(2 * MIB)
        self.failed_cleanly(nearfield("ingest", "embeddings.npy", "--out", disk / "vectors"))
        assert not (disk / "vectors" / "manifest.json").exists()
        assert not list((disk / "vectors").rglob("*partial*"))

    @pytest.mark.long
    @pytest.mark.parametrize("size", [1 * MIB, 3 * MIB], ids=["parts", "matrix"])
    def test_at_build_the_run_resumes_with_more_room(self, nearfield, tmp_path, small_disk, size):
        np.save(tmp_path / "embeddings.npy", clustered(5_000))
        nearfield("ingest", "embeddings.npy", "--out", "vectors")
        disk = small_disk(size)
        self.failed_cleanly(nearfield("build", "vectors", "--out", disk / "run", "-k", 40))
        assert not (disk / "run" / "matrix.json").exists()
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        again = nearfield("build", "vectors", "--out", disk / "run", "-k", 40)
        assert again.code == 0, again.err
        assert nearfield("verify", disk / "run").code == 0

    def test_at_load_the_run_stays_and_loads_elsewhere(self, at, small_disk):
        verified = at("verified")
        disk = small_disk(8 * MIB)
        done = verified("load", "run", "--database", disk / "postgres")
        assert done.code == 5
        assert "Traceback" not in done.err
        assert verified("load", "run").code == 0


class TestCtrlC:
    def interrupted(self, nearfield, *command, after):
        """Interrupt the command once `after()` is true."""
        process = nearfield.start(*command)
        deadline = time.monotonic() + 60
        while not after() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        ended = nearfield.interrupt(process) if process.poll() is None else None
        assert ended is not None, "the stage ended before it could be interrupted"
        assert ended.code == 130, ended.err
        assert "Traceback" not in ended.err
        assert "interrupted" in ended.err

    def test_in_ingest_leaves_nothing_that_looks_finished(self, nearfield, tmp_path):
        np.save(tmp_path / "embeddings.npy", np.zeros((3_000_000, 24), np.float32))
        out = tmp_path / "vectors"
        command = ("ingest", "embeddings.npy", "--out", "vectors")
        self.interrupted(nearfield, *command, after=(out / ".lock").exists)
        assert not (out / "manifest.json").exists()
        np.save(tmp_path / "embeddings.npy", clustered(100))
        assert nearfield(*command).code == 0

    @pytest.mark.parametrize("after_s", [0.7, 1.0, 1.4])
    def test_while_workers_start_is_one_sentence(self, at, after_s):
        nearfield = at("built")
        (nearfield.folder / "run" / "matrix.json").unlink()
        process = nearfield.start("build", "vectors", "--out", "run", "-k", 10)
        with suppress(subprocess.TimeoutExpired):
            process.wait(after_s)
        if process.poll() is None:
            ended = nearfield.interrupt(process)
            assert (ended.code, ended.err.count("\n")) == (130, 1), ended.err

    @pytest.mark.long
    def test_in_verify_leaves_no_verdict(self, nearfield, tmp_path):
        np.save(tmp_path / "embeddings.npy", clustered(20_000, 64))
        nearfield("ingest", "embeddings.npy", "--out", "large")
        assert nearfield("build", "large", "--out", "large-run", "-k", 10).code == 0
        command = ("verify", "large-run", "--sample", 20_000)
        started = time.monotonic()
        self.interrupted(nearfield, *command, after=lambda: time.monotonic() - started > 3)
        assert not (tmp_path / "large-run" / "verification.json").exists()
        assert nearfield("verify", "large-run", "--sample", 100).code == 0

    @pytest.mark.slow
    def test_in_load_leaves_no_server_and_loads_again(self, at, tmp_path):
        verified = at("verified")
        postgres = tmp_path / "run" / "postgres"
        self.interrupted(verified, "load", "run", after=postgres.exists)
        time.sleep(0.5)
        assert not [
            process.info
            for process in psutil.process_iter(["name", "cmdline"])
            if str(tmp_path) in " ".join(process.info["cmdline"] or [])
        ]
        assert verified("load", "run").code == 0
        assert verified("query", "song-7", "--run", "run").code == 0
