"""What taking room for a file says when it can't; and rows read past HDF5 are those it holds."""

import errno
import os
import resource
import signal
from contextlib import closing

import h5py
import numpy as np
import pytest

from nearfield.errors import DamagedArtefact, DiskFull
from nearfield.hdf5 import RowReader, new_dataset, new_file


def write(path, data_bytes=1000):
    with new_file(path, data_bytes) as file:
        new_dataset(file, "numbers", (10, 1), "<i4", -1)[:] = 1


def test_a_full_disk_is_a_full_disk(small_disk):
    with pytest.raises(DiskFull, match="no room left"):
        write(small_disk(64 << 10) / "file.h5")


def test_a_limit_on_the_size_of_files_is_no_room_either(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(DiskFull):
            write(tmp_path / "file.h5", 2 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_another_fault_is_called_by_its_name(tmp_path):
    pipe = tmp_path / "file.h5"
    os.mkfifo(pipe)  # nothing can be reserved in a pipe, and no disk is full
    with pytest.raises(OSError, match=r"file\.h5") as caught:
        write(pipe)
    assert caught.value.errno == errno.ESPIPE
    assert not isinstance(caught.value, DiskFull)


@pytest.mark.parametrize("options", [{}, {"fletcher32": True}, {"compression": "gzip"}, "whole"])
@pytest.mark.parametrize("kind", ["<i4", "<f4", ">i4"])
def test_rows_are_read_as_hdf5_reads_them(tmp_path, options, kind):
    values = np.arange(2500 * 7).reshape(2500, 7).astype(kind)
    with h5py.File(tmp_path / "file.h5", "w") as file:
        if options == "whole":
            file["rows"] = values
        else:
            file.create_dataset("rows", data=values, chunks=(1024, 7), **options)
    with h5py.File(tmp_path / "file.h5") as file, closing(RowReader(file["rows"])) as reader:
        for first, stop in ((0, 2500), (0, 1024), (1000, 2100), (2048, 2500), (7, 7), (2499, 2500)):
            found = reader.read(first, stop)
            assert found.dtype == values.dtype
            np.testing.assert_array_equal(found, values[first:stop])


def test_holes_are_read_as_hdf5_fills_them(tmp_path):
    with h5py.File(tmp_path / "file.h5", "w") as file:
        new_dataset(file, "rows", (3000, 5), "<i4", -1)[:10] = 1
    with h5py.File(tmp_path / "file.h5") as file, closing(RowReader(file["rows"])) as reader:
        np.testing.assert_array_equal(reader.read(0, 3000), file["rows"][:])


def test_a_file_that_is_cut_while_it_is_read_is_damaged(tmp_path):
    path = tmp_path / "file.h5"
    write(path)
    with h5py.File(path) as file, closing(RowReader(file["numbers"])) as reader:
        assert reader.read(3, 5).tolist() == [[1], [1]]
        os.truncate(path, 100)
        with pytest.raises(DamagedArtefact, match="row 3"):
            reader.read(3, 5)
