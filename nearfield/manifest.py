"""The manifest: the small JSON file that is written last and says that an artefact is whole.

Owns its format, the fingerprint of a configuration, and the check of files against it.
A reader calls `read_manifest` before it touches the first byte.
"""

import hashlib
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from nearfield.errors import DamagedArtefact, MissingFile, NearfieldError
from nearfield.files import sha256_of, write_bytes
from nearfield.locations import Location, local_file, local_path

LIBRARIES = ("nearfield", "numpy", "faiss-cpu", "h5py", "dask", "pyarrow")


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and hex SHA-256 of one file, relative to its manifest."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an artefact is, what it was made from, and the checksums of its files.

    `fingerprint` identifies the configuration and all inputs: equal fingerprints mean that the
    artefact need not be made again.
    """

    kind: str
    fingerprint: str
    format_version: int
    files: Mapping[str, FileEntry]
    facts: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""


def fingerprint(**configuration: Any) -> str:
    """16 hex digits that change whenever any of the JSON-representable values does."""
    canonical = json.dumps(configuration, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def write_manifest(
    path: Location,
    *,
    kind: str,
    fingerprint: str,
    format_version: int,
    files: Sequence[str] | Mapping[str, FileEntry],
    facts: Mapping[str, Any],
) -> Manifest:
    """Write the manifest of `files` (names relative to `path`'s folder), atomically.

    Returns what was written. Cost: one read of every file, unless their entries are given.
    """
    if not isinstance(files, Mapping):
        files = {name: file_entry(local_path(path.parent / name)) for name in files}
    manifest = Manifest(
        kind=kind,
        fingerprint=fingerprint,
        format_version=format_version,
        files=dict(files),
        facts=dict(facts),
        versions=library_versions(),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    write_bytes(path, (json.dumps(asdict(manifest), indent=2) + "\n").encode())
    return manifest


def file_entry(path: Path) -> FileEntry:
    """Size and checksum of a file as it is now. Cost: one read."""
    return FileEntry(path.stat().st_size, sha256_of(path))


def read_manifest(path: Location, *, kind: str, verify: bool = True) -> Manifest:
    """Read a manifest and check its files: existence and size always, SHA-256 if `verify`.

    Raises `MissingFile` when there is no manifest (the artefact was never finished) and
    `DamagedArtefact` when it is unreadable, of another kind, names files outside of its folder, or
    a file doesn't match.
    """
    try:
        raw = json.loads(path.read_bytes())
        files = {name: FileEntry(**entry) for name, entry in raw.pop("files").items()}
        manifest = Manifest(files=files, **raw)
    except NearfieldError:
        raise
    except FileNotFoundError as error:
        raise MissingFile(
            f"expected a finished {kind} with a manifest at {path}, but there is none. "
            "Check the path; if a command was interrupted, run it again"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedArtefact(
            f"the manifest {path} can't be read ({error}); make it anew"
        ) from error
    if manifest.kind != kind:
        raise DamagedArtefact(f"expected a {kind} at {path.parent}, found a {manifest.kind}")
    outside = [name for name in manifest.files if not _is_below(name)]
    if outside:
        raise DamagedArtefact(
            f"the manifest {path} names files outside of its folder ({outside[0]!r}), which no"
            f" {kind} has: don't trust where it comes from; make it anew"
        )
    for name, entry in manifest.files.items():
        check_file(path.parent / name, entry, verify=verify)
    return manifest


def _is_below(name: str) -> bool:
    """Whether a name in a manifest is that of a file in its folder: copies are written by it."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def check_file(path: Location, entry: FileEntry, *, verify: bool = True) -> None:
    """Raise `DamagedArtefact` unless the file has the recorded size (and checksum)."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DamagedArtefact(
            f"{path} is named by its manifest but missing; make it anew"
        ) from None
    if size != entry.bytes:
        raise DamagedArtefact(
            f"{path} has {size:,} bytes where its manifest says {entry.bytes:,}: "
            "it was truncated or changed; make it anew"
        )
    if verify and _sha256_at(path) != entry.sha256:
        raise DamagedArtefact(f"{path} doesn't match its checksum: it was changed; make it anew")


def _sha256_at(path: Location) -> str:
    with local_file(path) as file:
        return sha256_of(file)


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape a result."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
