"""Streams the JSON members of an archive, one after the other, without writing any of them to disk.

Owns decompression (recognised by content, not by name), the tar format and the caps that keep
hostile archives harmless. Refuses to look inside a member. Only regular files named `*.json` come
out; links, devices, folders and whatever a member's path says have no effect, because nothing is
extracted. `tarfile` isn't used for reading: it keeps every member in memory, believes declared
header sizes, and alone takes longer than parsing the documents.

Policies: an archive that is cut short gives what came before the cut and sets `truncated`. One
whose bytes contradict themselves (checksum, header) raises `InputRejected`, since the numbers
already read can't be trusted either.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from nearfield.errors import InputRejected, MissingFile

SUFFIXES = (
    *(".tar", ".tar.zst", ".tar.bz2", ".tar.xz", ".tar.gz"),
    *(".tzst", ".tbz2", ".txz", ".tgz"),
)

TAR_BLOCK = 512
REGULAR = (b"0", b"\0", b"7")
HEADER_OF_NEXT = (b"x", b"L")  # pax and GNU: the real name of the next member
DAMAGE = (zstandard.ZstdError, zlib.error, lzma.LZMAError, OSError, ValueError)


@dataclass(frozen=True)
class Limits:
    """Caps on what an archive may ask for. `ratio`: bytes out per byte in, after the free bytes."""

    member_bytes: int = 16 << 20
    members: int = 20_000_000
    ratio: float = 250.0
    ratio_free_bytes: int = 64 << 20
    name_bytes: int = 64 << 10
    window_bytes: int = 128 << 20


@dataclass(frozen=True)
class Member:
    """A regular file: its path inside the archive and its bytes; `content` None: over the cap."""

    name: str
    size: int
    content: bytes | None


class _CutShort(Exception):
    """The stream ended where more had to come."""


class Archive:
    """One pass over an archive: iterate for its `*.json` members in stored order.

    After the pass, `truncated` says whether the end was missing and `skipped` how many members
    were no regular `*.json` files. Memory: one member and the decompressor's window. Raises
    `MissingFile`, and `InputRejected` for what isn't an archive, is damaged, or breaks a cap.
    """

    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        self.path = path
        self.limits = limits or Limits()
        self.truncated = False
        self.skipped = 0
        self._members = 0
        self._bytes_out = 0

    @property
    def bytes_in(self) -> int:
        """Bytes of the file that were read so far; only during the pass."""
        return self._file.tell()

    def __iter__(self) -> Iterator[Member]:
        with self._opened() as file:
            self._file = file
            try:
                self._stream = _decompressed(file, self.limits)
                yield from self._documents()
                self._check_the_end()
            except (_CutShort, EOFError):
                self.truncated = True
                self._refuse_if_nothing_came()
            except InputRejected:
                raise
            except DAMAGE as error:
                raise self._rejected(f"is damaged or no tar archive ({error})") from error

    def _opened(self) -> io.BufferedReader:
        try:
            return self.path.open("rb")
        except FileNotFoundError as error:
            raise MissingFile(f"expected an archive at {self.path}, there is nothing") from error
        except OSError as error:
            raise self._rejected(f"can't be opened ({error.strerror})") from error

    def _documents(self) -> Iterator[Member]:
        renamed: dict[str, str] = {}
        while (header := self._read(TAR_BLOCK)).strip(b"\0"):
            self._members += 1
            if self._members > self.limits.members:
                raise self._rejected(f"has more than {self.limits.members:,} members")
            kind = header[156:157]
            size = _checked_size(header)
            if "size" in renamed:
                size = _not_negative(int(renamed["size"]))
            if kind in HEADER_OF_NEXT:
                renamed |= self._names(kind, size)
                continue
            name = renamed.get("path") or _name(header)
            renamed = {}
            if kind in REGULAR and name.endswith(".json"):
                yield self._member(name, size)
            else:
                self.skipped += 1
                self._skip(size)

    def _member(self, name: str, size: int) -> Member:
        if size > self.limits.member_bytes:
            self._skip(size)
            return Member(name, size, None)
        content = self._read(size)
        self._read(-size % TAR_BLOCK)
        return Member(name, size, content)

    def _names(self, kind: bytes, size: int) -> dict[str, str]:
        if size > self.limits.name_bytes:
            raise self._rejected(f"has a member name of {size:,} bytes")
        raw = self._read(size)
        self._read(-size % TAR_BLOCK)
        if kind == b"L":
            return {"path": raw.rstrip(b"\0").decode(errors="replace")}
        return {key: value for key, value in _pax(raw) if key in ("path", "size")}

    def _read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._bytes_out += len(content)
        if len(content) < size:
            raise _CutShort
        if self._bytes_out > self.limits.ratio_free_bytes:
            self._check_ratio()
        return content

    def _skip(self, size: int) -> None:
        left = size + -size % TAR_BLOCK
        while left:
            left -= len(self._read(min(left, 1 << 20)))

    def _check_ratio(self) -> None:
        if self._bytes_out > self.limits.ratio * self.bytes_in:
            raise self._rejected(
                f"unpacks to more than {self.limits.ratio:g} times its size, which no dump does"
            )

    def _check_the_end(self) -> None:
        # the checksum of a compressed stream is compared only when its end is read
        self._bytes_out += len(self._stream.read(1 << 20))

    def _refuse_if_nothing_came(self) -> None:
        if not self._members:
            raise self._rejected("ends before its first member")

    def _rejected(self, what: str) -> InputRejected:
        return InputRejected(
            f"expected a readable tar archive (plain, zst, bz2, xz or gz); {self.path} {what}"
            f" (after {self._members:,} members). Fetch it again, or leave it out"
        )


def is_archive_name(name: str) -> bool:
    """Whether a file of that name is taken for an archive of documents."""
    return name.lower().endswith(SUFFIXES)


def _decompressed(file: io.BufferedReader, limits: Limits) -> BinaryIO:
    magic = file.peek(8)[:8]
    if magic.startswith(b"\x28\xb5\x2f\xfd") or magic[1:4] == b"\x2a\x4d\x18":
        decompressor = zstandard.ZstdDecompressor(max_window_size=limits.window_bytes)
        reader = decompressor.stream_reader(file, read_size=1 << 18, read_across_frames=True)
        return io.BufferedReader(cast(io.RawIOBase, reader), 1 << 17)
    if magic.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.open(file))
    if magic.startswith(b"BZh"):
        return cast(BinaryIO, bz2.open(file))
    if magic.startswith(b"\xfd7zXZ\0"):
        return cast(BinaryIO, lzma.open(file))
    return file


def _checked_size(header: bytes) -> int:
    stored = int(header[148:156].strip(b"\0 ") or b"0", 8)
    # the checksum counts its own eight bytes as spaces
    if sum(header) - sum(header[148:156]) + 8 * 32 != stored:
        raise ValueError("a member header doesn't match its checksum")
    field = header[124:136]
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    return _not_negative(int(field.strip(b"\0 ") or b"0", 8))


def _not_negative(size: int) -> int:
    if size < 0:
        raise ValueError("a member of negative size")
    return size


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return name.decode(errors="replace")


def _pax(raw: bytes) -> Iterator[tuple[str, str]]:
    while raw:
        length = int(raw.partition(b" ")[0])
        if not 0 < length <= len(raw):
            raise ValueError("a pax header that doesn't add up")
        key, _, value = raw[:length].partition(b" ")[2].rstrip(b"\n").partition(b"=")
        yield key.decode(errors="replace"), value.decode(errors="replace")
        raw = raw[length:]
