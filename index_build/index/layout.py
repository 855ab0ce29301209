"""The directory of a sharded index: names, configuration, manifests, and the check before opening.

    INDEX/index.json          the frozen configuration, written first
    INDEX/shards/NNNNN/       rows.npy, vectors.npy (kind shard), then the library's files in
                              library/ and their manifest library.json (kind shard index)
    INDEX/centres.npy  members.npy  starts.npy  recordings.parquet  space.json
    INDEX/manifest.json       kind sharded index; comes last, with recall against shards asked

Owns the rule that no library opens a file whose checksum, fingerprint and size don't match. Refuses
to search.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nearfield.errors import DamagedArtefact, MissingFile, UsageError
from nearfield.files import remove_temporaries, write_bytes
from nearfield.manifest import Manifest, fingerprint, read_manifest
from nearfield.space import SpaceName

KIND = "sharded index"
SHARD_INDEX_KIND = "shard index"
FORMAT_VERSION = 2
WIDTHS = (10, 100)
"""Effort and recall are measured for these k and for the index' own."""
CONFIG = "index.json"
LIBRARY = "library"
LIBRARY_MANIFEST = "library.json"
FILES = ("centres.npy", "members.npy", "starts.npy", "recordings.parquet", "space.json")


@dataclass(frozen=True)
class IndexConfig:
    """Everything that decides the index. `k`: the most neighbours for which recall is measured."""

    vectors_fingerprint: str
    n: int
    d: int
    space: SpaceName
    method: str
    shard_rows: int
    k: int
    seed: int

    @property
    def fingerprint(self) -> str:
        """Identifies the index."""
        return fingerprint(index=FORMAT_VERSION, **asdict(self))

    def shard_fingerprint(self, number: int) -> str:
        """Identifies one shard, so that no other index' shard is taken for it."""
        return fingerprint(index=self.fingerprint, shard=number)


@dataclass(frozen=True)
class IndexPlan:
    """What a build would make: shards, bytes on disk and in memory of one worker."""

    method: str
    reason: str
    n: int
    d: int
    shards: int
    disk_bytes: int
    memory_bytes: int


def measured_widths(k: int) -> list[int]:
    """For which numbers of neighbours effort and recall are measured, up to `k`; ascending."""
    return sorted({min(width, k) for width in (*WIDTHS, k)})


def shard_path(index: Path, number: int) -> Path:
    """The directory of a shard."""
    return index / "shards" / f"{number:05d}"


def create_index(path: Path, config: IndexConfig) -> None:
    """Write the configuration, or find the same one there; raises `UsageError` for another.

    Call under its lock: what killed writers left is removed.
    """
    for folder in (path, *path.glob("shards/*")):
        remove_temporaries(folder)
    if (path / CONFIG).exists():
        there = read_config(path)
        if there != config:
            changed = ", ".join(
                f"{name} {value} there, {getattr(config, name)} asked"
                for name, value in asdict(there).items()
                if value != getattr(config, name)
            )
            raise UsageError(f"{path} holds another index ({changed}): choose another directory")
        return
    others = [entry.name for entry in path.glob("[!.]*")] if path.exists() else []
    if others:
        raise UsageError(f"{path} isn't an index (it holds {others[0]}): choose another directory")
    write_bytes(path / CONFIG, (json.dumps(asdict(config), indent=2) + "\n").encode())


def read_config(path: Path) -> IndexConfig:
    """The configuration of the index at `path`; raises `MissingFile`, `DamagedArtefact`."""
    try:
        return IndexConfig(**json.loads((path / CONFIG).read_bytes()))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFile(
            f"expected an index at {path}, found no {CONFIG} there. "
            "Make one with: nearfield index VECTORS --out INDEX"
        ) from error
    except (ValueError, TypeError) as error:
        raise DamagedArtefact(f"{path}/{CONFIG} can't be read ({error}): make it anew") from error


def finished_index(path: Path, config: IndexConfig, *, verify: bool = True) -> Manifest:
    """The manifest of a finished index; raises `MissingFile`, `DamagedArtefact`."""
    manifest = read_manifest(path / "manifest.json", kind=KIND, verify=verify)
    if manifest.fingerprint != config.fingerprint:
        raise DamagedArtefact(f"{path}/manifest.json belongs to another index: make it anew")
    return manifest


def library_bytes(path: Path, number: int) -> int:
    """Bytes of the library's files of a shard, by its manifest."""
    folder = shard_path(path, number)
    manifest = read_manifest(folder / LIBRARY_MANIFEST, kind=SHARD_INDEX_KIND, verify=False)
    return sum(entry.bytes for entry in manifest.files.values())


def checked_shard(path: Path, config: IndexConfig, number: int) -> dict[str, Any]:
    """Check every file of a shard against its manifests; the facts of its library's files.

    Only after this may a library open the files: truncated and foreign files kill the process or
    answer wrongly. Cost: one read of the shard. Raises `DamagedArtefact`, `MissingFile`.
    """
    folder = shard_path(path, number)
    for name, kind in (("manifest.json", "shard"), (LIBRARY_MANIFEST, SHARD_INDEX_KIND)):
        manifest = read_manifest(folder / name, kind=kind)
        if manifest.fingerprint != config.shard_fingerprint(number):
            raise DamagedArtefact(
                f"{folder} belongs to another index or shard ({manifest.fingerprint}): make the"
                " index anew, the others of its shards are kept"
            )
    return dict(manifest.facts)
