"""The nouns that everything stands on: files, manifests, spaces, runs, progress."""

import errno
import json
import os
import re
import resource
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nearfield import progress as progress_module
from nearfield.errors import (
    DamagedArtefact,
    DiskFull,
    InputRejected,
    MissingFile,
    UsageError,
    disk_errors,
)
from nearfield.files import atomic_path, remove_temporaries, write_bytes
from nearfield.manifest import fingerprint, read_manifest, write_manifest
from nearfield.progress import progress
from nearfield.run import RunConfig, create_run, open_run
from nearfield.space import pair_distances, prepared, space_named
from tests.programs import exit_status, names, python


class TestFiles:
    def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(self, tmp_path):
        target = tmp_path / "file"
        write_bytes(target, b"old")
        with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt
        assert target.read_bytes() == b"old"
        assert names(tmp_path) == ["file"]

    def test_a_kill_before_the_rename_keeps_the_old_file(self, tmp_path):
        target = tmp_path / "file"
        write_bytes(target, b"old")
        code = """
import os, signal, sys
from pathlib import Path
from nearfield.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
        assert exit_status(code, target) == -signal.SIGKILL
        assert target.read_bytes() == b"old"
        remove_temporaries(tmp_path)
        assert names(tmp_path) == ["file"]

    def test_the_folder_is_made(self, tmp_path):
        write_bytes(tmp_path / "a" / "b" / "file", b"new")
        assert (tmp_path / "a" / "b" / "file").read_bytes() == b"new"

    def test_a_full_disk_is_said_and_keeps_the_old_file(self, small_disk):
        disk = small_disk(1 << 16)
        write_bytes(disk / "file", b"old")
        with pytest.raises(DiskFull, match="free space there"):
            write_bytes(disk / "file", bytes(1 << 20))
        assert (disk / "file").read_bytes() == b"old"
        assert names(disk) == ["file"]

    def test_a_file_over_the_limit_leaves_nothing(self, tmp_path):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
            with pytest.raises(OSError, match="File too large"):
                write_bytes(tmp_path / "file", bytes(1 << 20))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)
        assert names(tmp_path) == []

    @pytest.mark.parametrize(
        ("code", "raised"),
        [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, OSError)],
    )
    def test_only_a_lack_of_room_is_called_that(self, code, raised):
        with pytest.raises(OSError, match=r".") as caught, disk_errors(Path("there")):
            raise OSError(code, os.strerror(code))
        assert type(caught.value) is raised


class TestManifest:
    @pytest.fixture
    def manifest(self, tmp_path):
        (tmp_path / "data").write_bytes(b"0123456789")
        write_manifest(
            tmp_path / "manifest.json",
            kind="thing",
            fingerprint="f",
            format_version=1,
            files=["data"],
            facts={"n": 3},
        )
        return tmp_path / "manifest.json"

    def test_it_says_what_was_written(self, manifest):
        read = read_manifest(manifest, kind="thing")
        assert (read.kind, read.fingerprint, read.facts) == ("thing", "f", {"n": 3})
        assert read.files["data"].bytes == 10
        assert read.versions["numpy"] == np.__version__

    def test_a_changed_byte_is_found_unless_not_asked_for(self, manifest):
        (manifest.parent / "data").write_bytes(b"0123456780")
        with pytest.raises(DamagedArtefact, match="checksum"):
            read_manifest(manifest, kind="thing")
        assert read_manifest(manifest, kind="thing", verify=False).fingerprint == "f"

    def test_a_truncated_file_is_always_found(self, manifest):
        (manifest.parent / "data").write_bytes(b"012345678")
        with pytest.raises(DamagedArtefact, match="9 bytes where its manifest says 10"):
            read_manifest(manifest, kind="thing", verify=False)

    def test_a_missing_file_is_found(self, manifest):
        (manifest.parent / "data").unlink()
        with pytest.raises(DamagedArtefact, match="missing"):
            read_manifest(manifest, kind="thing")

    def test_a_manifest_of_another_kind_is_refused(self, manifest):
        with pytest.raises(DamagedArtefact, match="expected a matrix"):
            read_manifest(manifest, kind="matrix")

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"files": 3}', '{"files": {}}'])
    def test_a_broken_manifest_is_said_to_be_broken(self, manifest, content):
        manifest.write_text(content)
        with pytest.raises(DamagedArtefact):
            read_manifest(manifest, kind="thing")

    @pytest.mark.parametrize("name", ["/etc/hosts", "../data", "library/../../data", "", "."])
    def test_a_manifest_that_names_files_elsewhere_is_refused(self, manifest, name):
        content = json.loads(manifest.read_text())
        content["files"][name] = content["files"]["data"]
        manifest.write_text(json.dumps(content))
        with pytest.raises(DamagedArtefact, match="names files outside of its folder"):
            read_manifest(manifest, kind="thing", verify=False)

    def test_a_file_in_a_folder_below_is_one_of_its_own(self, manifest):
        (manifest.parent / "library").mkdir()
        (manifest.parent / "library" / "data").write_bytes(b"0123456789")
        content = json.loads(manifest.read_text())
        content["files"]["library/data"] = content["files"]["data"]
        manifest.write_text(json.dumps(content))
        assert set(read_manifest(manifest, kind="thing").files) == {"data", "library/data"}

    def test_no_manifest_means_never_finished(self, tmp_path):
        with pytest.raises(MissingFile, match="expected a finished thing"):
            read_manifest(tmp_path / "manifest.json", kind="thing")

    def test_fingerprints_tell_values_apart_but_not_their_order(self):
        assert fingerprint(a=1, b="x") == fingerprint(b="x", a=1)
        assert fingerprint(a=1) != fingerprint(a=2)
        assert fingerprint(a=1) != fingerprint(b=1)
        assert re.fullmatch("[0-9a-f]{16}", fingerprint(a=None))


finite = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
pairs = st.integers(1, 6).flatmap(
    lambda d: st.tuples(*[hnp.arrays(np.float32, (d,), elements=finite)] * 2)
)


class TestSpace:
    @given(pairs)
    def test_l2_is_the_euclidean_distance(self, pair):
        x, y = ([float(value) for value in side] for side in pair)
        expected = sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) ** 0.5
        assert pair_distances(*pair, "l2") == pytest.approx(expected, rel=1e-6)

    @given(pairs)
    def test_ip_is_the_negative_inner_product(self, pair):
        x, y = ([float(value) for value in side] for side in pair)
        terms = [a * b for a, b in zip(x, y, strict=True)]
        room = 1e-6 * sum(map(abs, terms)) + 1e-30
        assert pair_distances(*pair, "ip") == pytest.approx(-sum(terms), abs=room)

    @given(pairs)
    def test_cosine_is_one_minus_the_cosine(self, pair):
        x, y = ([float(value) for value in side] for side in pair)
        lengths = [sum(value * value for value in side) ** 0.5 for side in (x, y)]
        if not all(length > 1e-12 for length in lengths):
            return
        cosine = sum(a * b for a, b in zip(x, y, strict=True)) / (lengths[0] * lengths[1])
        units = prepared(np.stack(pair), "cosine")
        found = pair_distances(units[0], units[1], "cosine")
        assert found == pytest.approx(1 - cosine, abs=1e-6)
        assert 0 <= found <= 2.000001

    @pytest.mark.parametrize("space", ["l2", "cosine"])
    @given(vector=hnp.arrays(np.float32, (4,), elements=finite))
    def test_equal_vectors_have_distance_exactly_zero(self, space, vector):
        assert pair_distances(vector, vector, space) == 0

    def test_a_zero_vector_has_no_direction(self):
        vectors = np.ones((5, 3), np.float32)
        vectors[3] = 0
        with pytest.raises(InputRejected, match=r"1 zero vectors .* row 3"):
            prepared(vectors, "cosine")
        assert prepared(vectors, "l2") is vectors

    def test_an_unknown_space_is_refused(self):
        with pytest.raises(UsageError, match="l2, cosine, ip"):
            space_named("euclid")


CONFIG = RunConfig(
    vectors="vectors",
    vectors_fingerprint="0" * 16,
    n=10,
    d=4,
    space="l2",
    k=100,
    recall=0.95,
    method="auto",
    seed=0,
)


class TestRun:
    def test_opening_gives_what_was_created(self, tmp_path):
        assert create_run(tmp_path / "run", CONFIG) == open_run(tmp_path / "run")
        assert create_run(tmp_path / "run", CONFIG).config == CONFIG

    def test_there_are_never_more_columns_than_others(self):
        assert CONFIG.columns == 9
        assert replace(CONFIG, k=3).columns == 3

    def test_another_configuration_is_refused_and_the_difference_named(self, tmp_path):
        create_run(tmp_path / "run", CONFIG)
        with pytest.raises(
            UsageError, match=r"k 100 there, 50 asked, recall 0\.95 there, 0\.9 asked"
        ):
            create_run(tmp_path / "run", replace(CONFIG, k=50, recall=0.9))

    def test_vectors_that_were_moved_are_found_at_their_new_place(self, tmp_path):
        before = create_run(tmp_path / "run", CONFIG)
        create_run(tmp_path / "run", replace(CONFIG, vectors="/elsewhere"))
        after = open_run(tmp_path / "run")
        assert after.config.vectors == "/elsewhere"
        assert after.config.fingerprint == before.config.fingerprint

    def test_what_killed_writers_left_goes_when_a_run_is_begun_or_gone_on_with(self, tmp_path):
        mark = f".partial-{'0' * 12}"
        of_an_update = [tmp_path / f".run.json{mark}", tmp_path / "vectors" / f".vectors.npy{mark}"]
        of_a_run = [tmp_path / f".matrix.h5{mark}", tmp_path / "cells" / f".rows.npy{mark}"]
        for left in (of_an_update, [*of_an_update, *of_a_run]):
            for path in (*left, tmp_path / "vectors" / "vectors.npy"):
                path.parent.mkdir(exist_ok=True)
                path.touch()
            create_run(tmp_path, CONFIG)
            assert not any(path.exists() for path in left)
            assert (tmp_path / "vectors" / "vectors.npy").exists()

    def test_a_folder_with_other_things_is_refused(self, tmp_path):
        (tmp_path / "thesis.txt").touch()
        with pytest.raises(UsageError, match=r"holds thesis\.txt"):
            create_run(tmp_path, CONFIG)

    def test_no_run_and_a_broken_one_are_told_apart(self, tmp_path):
        with pytest.raises(MissingFile, match="nearfield build"):
            open_run(tmp_path)
        (tmp_path / "run.json").write_text("{")
        with pytest.raises(DamagedArtefact):
            open_run(tmp_path)

    def test_steps_that_cant_be_read_are_named(self, tmp_path):
        run = create_run(tmp_path / "run", CONFIG)
        with run.step("one"):
            pass
        with (run.path / "steps.jsonl").open("a") as stream:
            stream.write('{"step": "tw')
        with pytest.raises(DamagedArtefact, match=r"steps\.jsonl.*remove it"):
            run.steps()

    def test_steps_are_kept_in_order_unless_they_fail(self, tmp_path):
        run = create_run(tmp_path / "run", CONFIG)
        assert run.steps() == []
        with run.step("first") as facts:
            facts["rows"] = 3
        with pytest.raises(ZeroDivisionError), run.step("broken"):
            raise ZeroDivisionError
        with run.step("second"):
            pass
        assert [step["step"] for step in run.steps()] == ["first", "second"]
        assert run.steps()[0]["rows"] == 3
        assert run.steps()[0]["seconds"] >= 0
        assert len(json.dumps(run.steps())) > 0


class TestProgress:
    @pytest.fixture
    def clock(self, monkeypatch):
        """A clock to set by hand."""
        now = [1000.0]
        monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
        return now

    def advance(self, clock, minutes, amount, total):
        with progress("join", total, "tasks") as advance:
            for _ in range(minutes):
                for _ in range(4):
                    clock[0] += 15
                    advance(amount)

    def test_without_a_terminal_there_is_a_line_a_minute_on_stderr(self, clock, capsys):
        self.advance(clock, minutes=3, amount=10, total=240)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.splitlines() == [
            "join: 40 tasks in 60 s, 17%, about 300 s left",
            "join: 80 tasks in 120 s, 33%, about 240 s left",
            "join: 120 tasks in 180 s, 50%, about 180 s left",
        ]

    def test_an_unknown_amount_has_no_estimate(self, clock, capsys):
        self.advance(clock, minutes=1, amount=10, total=None)
        assert capsys.readouterr().err == "join: 40 tasks in 60 s\n"

    def test_short_work_is_silent(self, capsys):
        with progress("join", 2, "tasks") as advance:
            advance(2)
        assert capsys.readouterr() == ("", "")

    def test_on_a_terminal_there_is_a_bar_that_goes_away(self):
        code = """
import sys
from nearfield.progress import progress
with progress("join", 3, "tasks") as advance:
    advance(2)
print("done")
"""
        ours, theirs = os.openpty()
        with python(code, stderr=theirs, env=os.environ | {"TERM": "xterm"}) as child:
            os.close(theirs)
            assert child.stdout.read() == "done\n"
        shown = os.read(ours, 1 << 16).decode()
        os.close(ours)
        assert "join" in shown
        assert "2/3" in shown
