"""What the tests of `nearfield update` share."""

import h5py


def lists_of(folder):
    with h5py.File(folder / "matrix.h5") as file:
        return file["neighbours"][:], file["distances"][:], file["removed"][:]


def options(folder, ids="new.txt"):
    from nearfield.ingest.options import IngestOptions

    return IngestOptions(ids=folder / ids)


def damage(path):
    whole = path.read_bytes()
    path.write_bytes(whole[:-50] + bytes([whole[-50] ^ 1]) + whole[-49:])
