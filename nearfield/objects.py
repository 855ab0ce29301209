"""Paths in an object store, by any fsspec URL: whole objects only, written by one PUT.

Owns `ObjectPath`, which has what nearfield needs of `pathlib.Path`, so that the same code reads and
writes both; and the translation of a store's errors. Who may write comes from the environment or
the store's own files, never from a URL. Transient errors are retried by the store's client, not
here. Refuses to append, rename or write in place: stores can't.
"""

import fnmatch
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from nearfield.errors import MissingFile, NearfieldError, StoreError, UsageError

EXTRAS = {"s3": "objects", "s3a": "objects"}
"""Which of nearfield's extras brings the client of a kind of store."""
WINDOW_BYTES = 4 << 20
"""Read at once from a file that is opened for a few ranges."""
TAKEN = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")
NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError")
DENIED = (
    *("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403", "Forbidden"),
    *("ExpiredToken", "InvalidToken", "InvalidClientTokenId", "AuthFailure", "RequestExpired"),
)


@dataclass(frozen=True)
class ObjectSize:
    """What `ObjectPath.stat` tells."""

    st_size: int


class ObjectPath:
    """One key, or the prefix of many: `url` without a slash at its end. Equal by URL."""

    __slots__ = ("url",)

    def __init__(self, url: str) -> None:
        if "@" in url.split("://", 1)[1].split("/", 1)[0]:
            raise UsageError(
                "an address of an object store may hold no credentials, others would read them in "
                "logs and manifests: put them into the environment or the profile of the store"
            )
        self.url = url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __repr__(self) -> str:
        return f"ObjectPath({self.url!r})"

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "ObjectPath":
        return ObjectPath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.url).name

    @property
    def parent(self) -> "ObjectPath":
        """All but the last part."""
        return ObjectPath(self.url.rpartition("/")[0])

    @property
    def protocol(self) -> str:
        """The kind of store: s3, gs, ..."""
        return self.url.partition("://")[0]

    def with_suffix(self, suffix: str) -> "ObjectPath":
        """Beside it, with another suffix."""
        return self.parent / PurePosixPath(self.name).with_suffix(suffix).name

    def resolve(self) -> "ObjectPath":
        """Itself: a URL is the same everywhere."""
        return self

    def read_bytes(self) -> bytes:
        """The whole object. Raises `FileNotFoundError`."""
        with self._asked() as (store, key):
            return store.cat_file(key)

    def read_range(self, first: int, size: int) -> bytes:
        """`size` bytes from `first` on, fewer at the end; a negative `first` counts from there."""
        if size == 0:
            return b""
        with self._asked() as (store, key):
            stop = first + size
            return store.cat_file(key, start=first, end=None if first < 0 <= stop else stop)

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """A stream for readers of a few ranges, such as HDF5."""
        with self._asked() as (store, key):
            stream = store.open(key, "rb", block_size=WINDOW_BYTES, cache_type="readahead")
        with stream:
            yield stream

    def get(self, target: Path) -> None:
        """Copy the object to the file `target`, a block at a time."""
        with self._asked() as (store, key):
            store.get_file(key, str(target))

    def put(self, source: Path) -> None:
        """Make the file `source` the object, in one step for every reader."""
        with self._asked() as (store, key):
            store.put_file(str(source), key)

    def write_bytes(self, content: bytes) -> None:
        """Make `content` the object, in one step."""
        with self._asked() as (store, key):
            store.pipe_file(key, content)

    def create(self, content: bytes) -> bool:
        """Make `content` the object unless there is one; whether it was made.

        Decided by the store (If-None-Match) where it can; else whoever looks last wins.
        """
        try:
            with self._asked() as (store, key):
                if self.exists():
                    return False
                store.pipe_file(key, content, mode="create")
        except FileExistsError:
            return False
        return True

    def stat(self) -> ObjectSize:
        """Its size. Raises `FileNotFoundError`."""
        with self._asked() as (store, key):
            return ObjectSize(int(store.info(key)["size"]))

    def modified(self) -> float:
        """When it was written, in seconds since 1970, by the store's clock."""
        with self._asked() as (store, key):
            return float(store.modified(key).timestamp())

    def is_file(self) -> bool:
        """Whether there is such an object."""
        with self._asked() as (store, key):
            return store.isfile(key)

    def exists(self) -> bool:
        """Whether there is such an object."""
        return self.is_file()

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object; stores that don't say whether there was one count it as there."""
        try:
            with self._asked() as (store, key):
                store.rm_file(key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def glob(self, pattern: str) -> list["ObjectPath"]:
        """Whatever is directly below and matches, ascending: objects, and prefixes of others."""
        with self._asked() as (store, key):
            try:
                found = store.ls(key, detail=False)
            except FileNotFoundError:
                return []
            # a key is listed below itself
            below = [entry for entry in found if entry.rstrip("/") != store._strip_protocol(key)]
        names = sorted({PurePosixPath(entry).name for entry in below})
        return [self / name for name in names if fnmatch.fnmatchcase(name, pattern)]

    def remove_tree(self) -> None:
        """Delete every object below."""
        with self._asked() as (store, key):
            found = store.find(key)
            if found:
                store.rm(found)

    @contextmanager
    def _asked(self) -> Iterator[tuple[Any, str]]:
        """The store and the key there, for one request; its errors as ours."""
        try:
            yield _store(self.protocol), self.url
        except (NearfieldError, FileExistsError):
            raise
        except Exception as error:
            raise _translated(error, self.url) from error


@functools.cache
def _store(protocol: str) -> Any:
    import fsspec

    try:
        # what is listed must be what is there now, not when somebody else looked
        return fsspec.filesystem(protocol, use_listings_cache=False)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        name = f"pip install 'nearfield[{extra}]'" if extra else "install fsspec's client for it"
        raise UsageError(
            f"{protocol}:// needs a package that isn't installed ({error}): {name}, "
            "here and on the workers"
        ) from error
    except ValueError as error:
        raise UsageError(f"no kind of object store is called {protocol}: {error}") from error


def _translated(error: Exception, url: str) -> Exception:
    """What to raise instead: a missing object stays a `FileNotFoundError`."""
    code = _code(error)
    if isinstance(error, FileNotFoundError):
        return _missing(code, url)
    if code in TAKEN:
        return FileExistsError(f"there is a {url} already")
    if type(error).__name__ in NO_CREDENTIALS:
        return UsageError(
            f"{url}: no credentials. Put them into the environment (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY) or a profile, here and on the workers"
        )
    if isinstance(error, PermissionError) or code in DENIED:
        return UsageError(
            f"{url}: access denied ({code or 'by the store'}). Check the credentials in the "
            "environment or the profile, here and on the workers, and their rights on the bucket"
        )
    if type(error).__module__ == "builtins" and not isinstance(error, OSError):
        return error
    return StoreError(
        f"{url}: the object store can't be reached or broke off ({type(error).__name__}: {error}). "
        "What is finished is kept: run the same command again to resume"
    )


def _missing(code: str, url: str) -> FileNotFoundError:
    if code != "NoSuchBucket":
        return FileNotFoundError(f"there is no {url}")
    bucket = "/".join(url.split("/")[:3])
    return MissingFile(f"there is no bucket {bucket}: make it, or check the address")


def _code(error: BaseException | None) -> str:
    """The code of a store's answer, from the error or what caused it."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__ or error.__context__
    return ""
