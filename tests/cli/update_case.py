"""What the tests of `nearfield update` share."""

import h5py
import numpy as np


def lists_of(folder):
    with h5py.File(folder / "matrix.h5") as file:
        removed = file["removed"][:] if "removed" in file else np.empty(0, np.int32)
        return file["neighbours"][:], file["distances"][:], removed


def options(folder):
    from nearfield.ingest.options import IngestOptions

    return IngestOptions(ids=folder / "new.txt")


def damage(path):
    whole = path.read_bytes()
    path.write_bytes(whole[:-50] + bytes([whole[-50] ^ 1]) + whole[-49:])
