"""Documentation that lags fails here: commands are run, links followed, the reference compared."""

import os
import re
import shlex
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import psycopg2
import pytest

from nearfield.api import embedded
from nearfield.cli.reference import reference
from nearfield.demo.dump import write_dump
from tests.cli.conftest import clustered

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def test_the_command_reference_is_current():
    assert (ROOT / "docs" / "cli.md").read_text() == reference(), (
        "run: .venv/bin/python -m nearfield.cli.reference > docs/cli.md"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page}: {target}"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the inputs that the README speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    write_dump(folder / "dump", recordings=300, seed=1)
    np.save(folder / "embeddings.npy", clustered(300))
    (folder / "ids.txt").write_text("".join(f"song-{i}\n" for i in range(300)))
    lines = [f"t{i},Title {i},Artist {i % 20},{60 + i % 90},{i * 0.01:.2f}" for i in range(300)]
    (folder / "tracks.csv").write_text("track_id,title,artist,bpm,energy\n" + "\n".join(lines))
    (folder / "job.toml").write_text("\n".join(blocks(ROOT / "README.md", "toml")))
    return folder


def in_workplace(folder, *command):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


def readme_commands():
    text = "\n".join(blocks(ROOT / "README.md", "bash"))
    return [line for line in text.splitlines() if line.startswith("nearfield ")]


@pytest.mark.slow
def test_the_readmes_commands_run_in_their_order(workplace):
    assert len(readme_commands()) >= 8
    for command in readme_commands():
        words = shlex.split(command, comments=True)
        if words[1] == "database":
            continue  # stays up until Ctrl-C; tests/cli covers it
        files = [
            match
            for word in words
            for match in (sorted(workplace.glob(word)) if "*" in word else [word])
        ]
        done = in_workplace(workplace, *map(str, files))
        assert done.returncode == 0, f"{command}\n{done.stderr}"


@pytest.mark.slow
def test_the_readmes_sql_runs(workplace):
    in_workplace(workplace, "nearfield", "run", "job.toml")
    with embedded(workplace / "postgres") as dsn, closing(psycopg2.connect(dsn)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT recording_id, neighbour_ids[1] FROM nearfield.neighbours LIMIT 1")
        recording, other = cursor.fetchone()
        cursor.execute("CREATE TEMP TABLE my_playlist AS SELECT %s AS recording_id", (recording,))
        (text,) = blocks(ROOT / "README.md", "sql")
        statements = [statement for statement in text.split(";\n") if statement.strip()]
        assert len(statements) == 5
        for statement in statements:
            named = statement.replace("RECORDING_ID", recording).replace("OTHER_ID", other)
            cursor.execute(named)
            assert cursor.fetchall(), statement


@pytest.mark.slow
def test_the_readmes_python_runs(workplace):
    (program,) = blocks(ROOT / "README.md", "python")
    done = in_workplace(workplace, sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr


def test_every_make_target_of_the_docs_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for command in re.findall(r"\bmake ([a-z-]+)", "\n".join(blocks(page, "bash"))):
            assert command in targets, f"{page}: make {command}"
