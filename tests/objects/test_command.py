"""The program with URLs, as a user runs it."""

import json
import os
from urllib.request import Request, urlopen

import numpy as np
import pytest

from nearfield.locations import location
from tests.cli.conftest import Program, make_embeddings
from tests.objects.conftest import ACCESS


@pytest.fixture
def nearfield(bucket, tmp_path):
    make_embeddings(tmp_path)
    return Program(tmp_path)


def everything_in(url):
    return b"".join(
        path.read_bytes() if path.is_file() else everything_in(str(path))
        for path in location(url).glob("*")
    )


@pytest.mark.slow
def test_from_ingest_to_a_dump_by_url(nearfield, bucket):
    vectors, run = f"{bucket}/vectors", f"{bucket}/runs/first"
    commands = [
        ("ingest", "embeddings.npy", "--ids", "ids.txt", "--out", vectors),
        ("build", vectors, "--out", run, "-k", 10, "--dry-run"),
        ("build", vectors, "--out", run, "-k", 10, "--workers", 1),
        ("status", run),
        ("verify", run),
        ("status", run, "--json"),
        ("dump", run, "--out", "dumps", "--formats", "hdf5"),
        ("load", run, "--database", "db"),
        ("query", "song-7", "-k", 3, "--database", "db"),
    ]
    said = []
    for command in commands:
        done = nearfield(*command)
        assert done.code == 0, (command, done.err)
        said.append(done.out)
    assert f"nearfield build {vectors}" in said[0]
    assert f"nearfield verify {run}" in said[2]
    status = json.loads(said[5])
    assert (status["stage"], status["run"]) == ("verified", run)
    assert [step["step"] for step in status["steps"]][-1] == "verify"
    assert [step["step"] for step in nearfield("status", run, "--json").json["steps"]][-2:] == [
        "dump", "load",
    ]  # fmt: skip
    # nobody's credentials lie in what was stored, or were printed
    kept = everything_in(bucket) + "".join(said).encode()
    assert len(kept) > 10_000
    for secret in (ACCESS["AWS_ACCESS_KEY_ID"], ACCESS["AWS_SECRET_ACCESS_KEY"]):
        assert secret.encode() not in kept


@pytest.mark.long
def test_a_job_keeps_its_runs_in_a_store(nearfield, bucket, tmp_path):
    job = (
        '[ingest]\nsources = ["embeddings.npy"]\nids = "ids.txt"\n'
        f'[build]\nk = 5\nworkers = 1\nruns = "{bucket}/runs"\n'
    )
    (tmp_path / "job.toml").write_text(job)
    for k in (5, 4, 3):
        (tmp_path / "job.toml").write_text(job.replace("k = 5", f"k = {k}"))
        done = nearfield("run", "job.toml", "--json")
        assert done.code == 0, done.err
        assert done.json["run"].startswith(f"{bucket}/runs/")
    runs = location(f"{bucket}/runs").glob("*")
    assert len(runs) == 2
    assert location(done.json["run"]) in runs
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (("status", "s3://no-bucket-here/run"), 2, "no bucket s3://no-bucket-here"),
        (("status", "s3://KEY:topsecret@bucket/run"), 2, "no credentials"),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (
                (("update", "s3://b/run", "--remove", "ids.txt", "--out", "run2"), 2, "local path"),
                (("index", "s3://b/vectors", "--out", "index"), 2, "local path"),
                (("dump", "{bucket}/run", "--out", "s3://b/dumps"), 2, "local path"),
                (("status", "{bucket}/absent"), 2, "expected a run directory"),
                (("load", "{bucket}/absent"), 2, "--database"),
                (("build", "{bucket}/absent", "--out", "run"), 2, "expected a finished vector set"),
                (("status", "gs://b/run"), 2, "install fsspec's client"),
            )
        ),
    ],
)
def test_what_cant_be_is_said(nearfield, bucket, command, code, says):
    done = nearfield(*(str(word).replace("{bucket}", bucket) for word in command))
    assert done.code == code, done.err
    assert says in done.err
    assert "topsecret" not in done.err
    assert "Traceback" not in done.err


@pytest.mark.long
def test_a_server_that_isnt_there_is_infrastructure(nearfield, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    done = nearfield("status", "s3://bucket/run")
    assert done.code == 5, done.err
    assert "can't be reached" in done.err
    assert "Traceback" not in done.err


@pytest.mark.long
def test_wrong_credentials_are_said_and_not_repeated(nearfield, server, bucket):
    def ask_for_credentials(after_requests):
        kind = {"Content-Type": "text/plain"}
        urlopen(Request(f"{server.url}/moto-api/reset-auth", after_requests, kind)).close()

    ask_for_credentials(b"0")
    try:
        done = nearfield("status", f"{bucket}/run")
    finally:
        ask_for_credentials(b"inf")
    assert done.code == 2, done.err
    assert "access denied" in done.err
    assert ACCESS["AWS_SECRET_ACCESS_KEY"] not in done.err
    assert "Traceback" not in done.err


@pytest.mark.long
def test_no_credentials_at_all(nearfield, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    done = nearfield("status", "s3://bucket/run")
    assert done.code == 2, done.err
    assert "credentials" in done.err


@pytest.mark.long
def test_file_urls_are_paths(nearfield, tmp_path):
    assert nearfield(
        "ingest", "embeddings.npy", "--ids", "ids.txt", "--out", f"file://{tmp_path}/set"
    ).code == 0  # fmt: skip
    done = nearfield("build", f"file://{tmp_path}/set", "--out", "run", "-k", 5, "--workers", 1)
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "matrix.h5").exists()
    assert np.load(tmp_path / "set" / "vectors.npy").shape == (400, 16)
    assert not os.path.lexists(tmp_path / "file:")
