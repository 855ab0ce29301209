"""Compressed single files (.gz, .bz2, .xz, .zst), as a stream or unpacked into scratch.

Owns the error for data that ends too early or isn't what its suffix says. Archives with members
are documents' business.
"""

import lzma
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pyarrow as pa

from nearfield.errors import InputRejected
from nearfield.ingest.sources import COMPRESSED

ARROW_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
COPY_BYTES = 8 << 20


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield a binary stream of the file's decompressed content.

    Raises `InputRejected` when the compressed data is broken or cut off.
    """
    suffix = path.suffix.lower()
    with unreadable_rejected(path):
        if suffix == ".xz":
            with lzma.open(path) as stream:
                yield pa.PythonFile(stream, mode="r")
        else:
            with pa.input_stream(str(path), compression=ARROW_CODECS.get(suffix)) as stream:
                yield stream


def unpacked(path: Path, work: Path) -> Path:
    """`path` itself, or where it was decompressed to inside the directory `work`."""
    if path.suffix.lower() not in COMPRESSED:
        return path
    # another source may have the same name, and the first is mapped
    target = Path(mkdtemp(dir=work)) / path.stem
    with opened(path) as stream, target.open("wb") as out:
        shutil.copyfileobj(stream, out, COPY_BYTES)
    return target


@contextmanager
def unreadable_rejected(path: Path) -> Iterator[None]:
    """Turn a decompressor's error inside the block into `InputRejected` naming the file."""
    try:
        yield
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise _broken(path, error) from error
    except OSError as error:
        if error.errno is not None or path.suffix.lower() not in COMPRESSED:
            raise
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> InputRejected:
    return InputRejected(
        f"{path} can't be decompressed ({error}): it is cut off, damaged or not what its suffix"
        " says. Compare its size and checksum with the origin and fetch it again"
    )
