"""The program as a user runs it: a process of its own."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

COMMAND = (sys.executable, "-m", "nearfield")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@dataclass(frozen=True)
class Program:
    folder: Path

    def start(self, *arguments):
        environment = {k: v for k, v in os.environ.items() if k != "NEARFIELD_DSN"}
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments):
        process = self.start(*arguments)
        out, err = process.communicate(timeout=180)
        return Ended(process.returncode, out, err)

    def interrupt(self, process):
        """What Ctrl-C does: SIGINT to everything in the terminal's foreground."""
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        return Ended(process.returncode, out, err)


@pytest.fixture
def nearfield(tmp_path):
    return Program(tmp_path)


def clustered(n, d=16, seed=0):
    """float32 [n, d] on a curved surface of 4 dimensions."""
    rng = np.random.default_rng(seed)
    return np.tanh(rng.standard_normal((n, 4)) @ rng.standard_normal((4, d))).astype(np.float32)


EVERYTHING = np.concatenate([clustered(400), clustered(60, seed=1)])


def copy(source, target):
    """A copy with owners: the embedded database belongs to another user when root runs it."""
    subprocess.run(["cp", "-a", source, target], check=True)


def make_embeddings(folder):
    """`embeddings.npy` with 400 vectors and `ids.txt` in `folder`."""
    np.save(folder / "embeddings.npy", clustered(400))
    (folder / "ids.txt").write_text("".join(f"song-{i}\n" for i in range(400)))


@pytest.fixture
def embeddings(tmp_path):
    make_embeddings(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def stages(tmp_path_factory):
    """The folder of a job after each stage, made once: `built`, `verified`, `loaded`."""
    work = tmp_path_factory.mktemp("stages")
    folder = work / "now"
    folder.mkdir()
    make_embeddings(folder)
    program = Program(folder)
    for stage, commands in {
        "built": (
            ("ingest", "embeddings.npy", "--ids", "ids.txt", "--out", "vectors"),
            ("build", "vectors", "--out", "run", "-k", 10),
        ),
        "verified": (("verify", "run"),),
        "loaded": (("load", "run"),),
    }.items():
        for command in commands:
            done = program(*command)
            assert done.code == 0, done.err
        copy(folder, work / stage)
    return work


@pytest.fixture
def at(stages, nearfield):
    """A function that puts the folder of a stage in the program's place."""

    def put(stage):
        copy(f"{stages / stage}/.", nearfield.folder)
        return nearfield

    return put


@pytest.fixture
def job(at):
    """A verified run of 400 recordings, and 60 more of which 10 are there already, 5 changed."""
    program = at("verified")
    add = EVERYTHING[390:].copy()
    add[:5] += 0.01
    np.save(program.folder / "new.npy", add)
    (program.folder / "new.txt").write_text("".join(f"song-{i}\n" for i in range(390, 460)))
    (program.folder / "gone.txt").write_text("song-7\nsong-8\n")
    return program
