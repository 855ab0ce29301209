"""docs/operations.md: its `bash` blocks are run, the options of its `sh` blocks exist."""

import shlex

import numpy as np
import pytest

from nearfield.cli.reference import reference
from tests.cli.conftest import clustered
from tests.docs.test_docs import ROOT, blocks, in_workplace

PAGE = ROOT / "docs" / "operations.md"


def sections():
    """Each command's part of the reference."""
    parts = reference().split("\n## ")[1:]
    return {title: body for title, _, body in (part.partition("\n") for part in parts)}


def shown():
    indented = [line.strip() for line in PAGE.read_text().splitlines()]
    return [line for line in indented if line.startswith("nearfield ")]


@pytest.mark.parametrize("command", shown())
def test_every_command_of_the_page_exists_with_its_options(command):
    words = shlex.split(command)
    known = sections()
    name = " ".join(words[:3]) if " ".join(words[:3]) in known else " ".join(words[:2])
    for option in (word for word in words if word.startswith("-")):
        assert f"{option} " in known[name], f"{name} has no {option}"


@pytest.mark.long
@pytest.mark.postgres
def test_what_is_done_before_renting_runs(tmp_path):
    np.save(tmp_path / "embeddings.npy", clustered(300))
    (tmp_path / "ids.txt").write_text("".join(f"song-{i}\n" for i in range(300)))
    (job,) = blocks(PAGE, "toml")
    (tmp_path / "job.toml").write_text(job)
    commands = "\n".join(blocks(PAGE, "bash")).splitlines()
    assert len(commands) == 5
    for command in commands:
        done = in_workplace(tmp_path, *shlex.split(command))
        assert done.returncode == 0, f"{command}\n{done.stderr}"
