"""What taking room for a file says when it can't."""

import errno
import os
import resource
import signal

import pytest

from nearfield.errors import DiskFull
from nearfield.hdf5 import new_dataset, new_file


def write(path, data_bytes=1000):
    with new_file(path, data_bytes) as file:
        new_dataset(file, "numbers", (10,), "<i4", -1)[:] = 1


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
