"""Parts of a matrix: what was written is read, whatever was damaged is noticed."""

import signal

import h5py
import numpy as np
import pytest

from nearfield.errors import (
    DamagedArtefact,
    DiskFull,
    MissingFile,
)
from nearfield.hdf5 import new_file
from nearfield.neighbours import (
    NeighbourTable,
    part_is_finished,
    read_part,
    read_part_rows,
    write_part,
)
from tests.programs import exit_status, names


def table(rows=3000, k=4) -> NeighbourTable:
    rng = np.random.default_rng(0)
    return NeighbourTable(
        np.arange(rows, dtype=np.int32) * 2,
        rng.integers(0, 9999, (rows, k), dtype=np.int32),
        rng.random((rows, k), dtype=np.float32),
    )


class TestPart:
    @pytest.mark.parametrize(("rows", "k"), [(3000, 4), (1, 1), (0, 4), (5, 0)])
    def test_what_is_written_is_read(self, tmp_path, rows, k):
        written = table(rows, k)
        write_part(tmp_path / "part.h5", written, fingerprint="f")
        read = read_part(tmp_path / "part.h5")
        for name in ("rows", "neighbours", "distances"):
            np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
        assert part_is_finished(tmp_path / "part.h5", fingerprint="f")

    def test_another_fingerprint_isnt_finished(self, tmp_path):
        write_part(tmp_path / "part.h5", table(), fingerprint="f")
        assert not part_is_finished(tmp_path / "part.h5", fingerprint="g")

    @pytest.mark.parametrize("damage", ["truncate", "flip", "unlink", "manifest"])
    def test_a_damaged_part_isnt_finished_and_isnt_read(self, tmp_path, damage):
        path = tmp_path / "part.h5"
        write_part(path, table(), fingerprint="f")
        content = bytearray(path.read_bytes())
        if damage == "truncate":
            path.write_bytes(content[: len(content) // 2])
        elif damage == "flip":
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        elif damage == "unlink":
            path.unlink()
        else:
            path.with_suffix(".json").unlink()
        assert not part_is_finished(path, fingerprint="f")
        with pytest.raises((DamagedArtefact, MissingFile)):
            read_part(path)

    @pytest.mark.parametrize(
        ("first", "stop"), [(0, 3000), (1000, 1100), (2990, 9000), (7000, 8000)]
    )
    def test_some_rows_are_read_without_the_rest(self, tmp_path, first, stop):
        written = table(3000, 4)
        write_part(tmp_path / "part.h5", written, fingerprint="f")
        read = read_part_rows(tmp_path / "part.h5", first, stop)
        inside = (written.rows >= first) & (written.rows < stop)
        for name in ("rows", "neighbours", "distances"):
            np.testing.assert_array_equal(getattr(read, name), getattr(written, name)[inside])

    def test_a_flipped_list_isnt_read_by_rows(self, tmp_path):
        path, written = tmp_path / "part.h5", table(3000, 4)
        write_part(path, written, fingerprint="f")
        content = path.read_bytes()
        at = content.index(written.distances[1500].tobytes())
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(DamagedArtefact, match="was changed"):
            read_part_rows(path, int(written.rows[1400]), int(written.rows[1600]))

    def test_a_full_disk_is_said_and_leaves_nothing(self, small_disk):
        disk = small_disk(1 << 16)
        with pytest.raises(DiskFull):
            write_part(disk / "part.h5", table(100_000), fingerprint="f")
        assert names(disk) == []

    def test_a_killed_writer_leaves_a_file_that_no_reader_takes_for_whole(self, tmp_path):
        code = """
import os, signal, sys
from pathlib import Path
from nearfield.hdf5 import new_dataset, new_file
with new_file(Path(sys.argv[1]), 10_000) as file:
    new_dataset(file, "rows", (2000,), "<i4", -1)[:500] = 7
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
        assert exit_status(code, tmp_path / "x.h5") == -signal.SIGKILL
        with pytest.raises(OSError, match="open for write"):
            h5py.File(tmp_path / "x.h5", "r")

    def test_room_that_was_taken_and_not_used_is_given_back(self, tmp_path):
        with new_file(tmp_path / "x.h5", 50 << 20) as file:
            file["a"] = np.arange(100_000)
        assert 800_000 <= (tmp_path / "x.h5").stat().st_size < 900_000
        with h5py.File(tmp_path / "x.h5") as file:
            assert file["a"][-1] == 99_999
