"""Saved indexes: a fresh process answers the same, and what is wrong with files or libraries."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from benchmark.methods import METHODS, method_class
from benchmark.methods.base import FACTS
from nearfield.errors import DamagedArtefact, DiskFull, MissingFile, UsageError
from tests.benchmark.method_cases import (
    CASES,
    COMPILES,
    NAMES,
    K,
    asked,
    built,
    clustered,
    index_of,
)

FAST = [(name, space) for name, one in METHODS.items() for space in one.spaces if name != COMPILES]


def reloaded(folder, cases):
    """Answers of a fresh process, after saving the indexes of all cases that are installed."""
    places = []
    for name, space in cases:
        if METHODS[name].unavailable():
            continue
        place = folder / f"{name}--{space}"
        place.mkdir()
        names = index_of(name, space).save(place)
        assert sorted(names) == sorted(path.name for path in place.iterdir())
        places.append(str(place))
    command = [sys.executable, "-m", "tests.benchmark.method_cases", str(folder / "answers.npz")]
    subprocess.run([*command, *places], check=True, timeout=600)
    return dict(np.load(folder / "answers.npz"))


@pytest.fixture(scope="session")
def answers(tmp_path_factory):
    return reloaded(tmp_path_factory.mktemp("indexes"), FAST)


@pytest.mark.parametrize(("name", "space"), CASES)
def test_a_fresh_process_answers_the_same(name, space, request, tmp_path):
    expected = asked(index_of(name, space))
    slow = name == COMPILES
    found = reloaded(tmp_path, [(name, space)]) if slow else request.getfixturevalue("answers")
    for mapped in (False, True)[: 1 + METHODS[name].maps]:
        np.testing.assert_array_equal(found[f"{name}--{space}--{mapped}"], expected)
        efforts = found[f"{name}--{space}--{mapped}--efforts"].tolist()
        assert efforts == list(index_of(name, space).efforts(K))


@pytest.mark.parametrize("name", NAMES)
class TestFiles:
    def test_a_file_that_was_cut_is_refused(self, name, tmp_path):
        (tmp_path / "written").mkdir()
        names = index_of(name, "l2").save(tmp_path / "written")
        folder = tmp_path / "copied"  # Annoy goes on reading what it wrote
        shutil.copytree(tmp_path / "written", folder)
        for cut in names:
            content = (folder / cut).read_bytes()
            (folder / cut).write_bytes(content[: len(content) // 2])
            with pytest.raises(DamagedArtefact, match="build the index again"):
                METHODS[name].load(folder, threads=1)
            (folder / cut).unlink()
            with pytest.raises((DamagedArtefact, MissingFile), match=r"missing|found none"):
                METHODS[name].load(folder, threads=1)
            (folder / cut).write_bytes(content)
        METHODS[name].load(folder, threads=1)

    def test_a_full_disk_is_named(self, name, small_disk):
        index, place = index_of(name, "l2"), small_disk(1 << 14)
        with pytest.raises(DiskFull, match="no room left"):
            index.save(place)

    def test_another_method_and_an_impossible_mapping_are_refused(self, name, tmp_path):
        index_of(name, "l2").save(tmp_path)
        other = METHODS["annoy" if name != "annoy" else "faiss-flat"]
        with pytest.raises(
            UsageError, match=f"expected an index of {other.name} in .*; got {name}"
        ):
            other.load(tmp_path, threads=1)
        if not METHODS[name].maps:
            with pytest.raises(UsageError, match=f"{name} can't map"):
                METHODS[name].load(tmp_path, threads=1, mapped=True)
        elif METHODS[name].adds:
            mapped = METHODS[name].load(tmp_path, threads=1, mapped=True)
            with pytest.raises(UsageError, match=f"{name} can't add to a mapped index"):
                mapped.add(clustered(3))


def test_a_changed_description_is_refused(tmp_path):
    built("faiss-flat", clustered(20), "l2").save(tmp_path)
    facts = json.loads((tmp_path / FACTS).read_text())
    (tmp_path / FACTS).write_text(json.dumps(facts | {"n": 21}))
    with pytest.raises(DamagedArtefact, match="it holds 20 vectors"):
        METHODS["faiss-flat"].load(tmp_path, threads=1)


BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"annoy", "nmslib", "hnswlib", "sklearn", "pynndescent"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
import json
import numpy as np
from benchmark.methods import METHODS
from nearfield.errors import UsageError

said = {}
for name, method in METHODS.items():
    try:
        method().build(np.ones((3, 2), np.float32), "l2", threads=1, seed=0)
    except UsageError as error:
        assert str(error) == method.unavailable()
        said[name] = str(error)
print(json.dumps(said))
"""


def test_a_library_that_is_missing_is_named_with_what_to_install():
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED], check=True, capture_output=True, text=True, env=os.environ
    )
    said = json.loads(done.stdout)
    others = ("annoy", "nmslib-hnsw", "nmslib-sw-graph", "hnswlib", "pynndescent", "ball-tree")
    assert sorted(said) == sorted(others)
    for name, message in said.items():
        module = method_class(name).library
        assert f"{name} needs the module {module}, which isn't installed: " in message
        assert "pip install" in message
