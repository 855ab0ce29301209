"""Copies on this machine of vector sets and runs in an object store, for what reads local files.

Owns where they lie in the cache, that they are compared with their manifest each time before they
are used, and what of a run goes back to the store. Refuses to change what lies in the store else.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from nearfield.errors import DamagedArtefact, MissingFile, NearfieldError
from nearfield.files import atomic_path, remove_temporaries, write_bytes
from nearfield.locations import Location, cache_folder, location, remove_unused
from nearfield.lock import held
from nearfield.manifest import FileEntry, Manifest, check_file, read_manifest
from nearfield.objects import ObjectPath
from nearfield.run import MATRIX_KIND, Run, RunConfig, open_run
from nearfield.vectorset import KIND, VectorSet, opened_copy
from nearfield.vectorset import open_vector_set as open_local_set

MADE_BY_READERS = ("verification.json", "steps.jsonl")
"""What commands that read a run add to it."""


def open_vector_set(path: Location | str, *, verify: bool = True) -> VectorSet:
    """Open a vector set by path or URL, one in a store as a copy; see `vectorset.open_vector_set`.

    A copy is always compared with its checksums.
    """
    place = location(path)
    if isinstance(place, Path):
        return open_local_set(place, verify=verify)
    manifest = read_manifest(place / "manifest.json", kind=KIND, verify=False)
    with _exclusive(f"sets/{_key(place, manifest.fingerprint)}") as folder:
        _fetch(place, folder, manifest)
        return opened_copy(folder, manifest, place)


@contextmanager
def run_at_hand(run: Location | str, *, vectors: bool = True) -> Iterator[Run]:
    """A run under its lock with everything as local files: itself, or a copy of one in a store.

    With `vectors`, also the vector set that it was made from. What the block finds out of the run
    (its verification, its steps) is sent back. Raises what `open_run` and `held` raise, and
    `MissingFile` when the vector set is asked for and gone.
    """
    place = location(run)
    opened = open_run(place)
    with held(place) as check:
        if isinstance(place, Path):
            yield Run(place, _with_local_vectors(opened.config)) if vectors else opened
            return
        with _exclusive(f"runs/{_key(place)}") as folder:
            copy = _copied(opened, place, folder, vectors=vectors)
            with _named(folder, place):
                yield copy
            check()
            for name in MADE_BY_READERS:
                _send_if_changed(folder / name, place / name)


def send_folder(folder: Path, target: ObjectPath, check: Callable[[], None] = lambda: None) -> None:
    """Make `target` hold the files of `folder`, its manifest last and without it in between.

    `check` (see `held`) is called before the manifest is sent. A lock stays where it is: there the
    same name is the lease.
    """
    (target / "manifest.json").unlink(missing_ok=True)
    files = (path for path in folder.glob("[!.]*") if path.is_file())
    for path in sorted(files, key=lambda path: (path.name == "manifest.json", path.name)):
        if path.name == "manifest.json":
            check()
        (target / path.name).put(path)


def _copied(opened: Run, place: ObjectPath, folder: Path, *, vectors: bool) -> Run:
    for name in MADE_BY_READERS:
        _bring(place / name, folder / name)
    try:
        manifest = opened.finished_matrix(verify=False)
    except MissingFile:
        (folder / "matrix.json").unlink(missing_ok=True)
    else:
        if manifest.kind == MATRIX_KIND:
            _fetch(place, folder, manifest, name="matrix.json")
    config = _with_local_vectors(opened.config) if vectors else opened.config
    copy = Run(folder, config)
    write_bytes(folder / "run.json", (json.dumps(asdict(config), indent=2) + "\n").encode())
    return copy


def _with_local_vectors(config: RunConfig) -> RunConfig:
    if isinstance(location(config.vectors), Path):
        return config
    return replace(config, vectors=str(open_vector_set(config.vectors).path))


def _fetch(
    place: ObjectPath, folder: Path, manifest: Manifest, *, name: str = "manifest.json"
) -> None:
    """Bring the files of a manifest that aren't in `folder` as they should be, then itself."""
    for file, entry in manifest.files.items():
        if not _same(folder / file, entry):
            with atomic_path(folder / file, durable=False) as temporary:
                (place / file).get(temporary)
                try:
                    check_file(temporary, entry)
                except DamagedArtefact as error:
                    raise DamagedArtefact(
                        f"{place / file} doesn't match its manifest: it was changed, or is being "
                        "replaced. Try again, and make it anew if that stays"
                    ) from error
    write_bytes(folder / name, (json.dumps(asdict(manifest), indent=2) + "\n").encode())


def _same(file: Path, entry: FileEntry) -> bool:
    try:
        check_file(file, entry)
    except DamagedArtefact:
        return False
    return True


def _bring(source: ObjectPath, target: Path) -> None:
    try:
        write_bytes(target, source.read_bytes())
    except FileNotFoundError:
        target.unlink(missing_ok=True)


def _send_if_changed(source: Path, target: ObjectPath) -> None:
    if not source.exists():
        return
    content = source.read_bytes()
    try:
        if target.read_bytes() == content:
            return
    except FileNotFoundError:
        pass
    target.write_bytes(content)


@contextmanager
def _exclusive(name: str) -> Iterator[Path]:
    """A folder of the cache for the block, waiting for other processes; unused ones are removed."""
    folder = cache_folder() / name
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        remove_temporaries(folder)
        os.utime(folder)
        remove_unused(folder.parent)
        yield folder
    finally:
        os.close(descriptor)


@contextmanager
def _named(folder: Path, place: ObjectPath) -> Iterator[None]:
    """Messages about the copy name the place that it is a copy of."""
    try:
        yield
    except NearfieldError as error:
        error.args = tuple(
            arg.replace(str(folder), str(place)) if isinstance(arg, str) else arg
            for arg in error.args
        )
        raise


def _key(place: ObjectPath, content: str = "") -> str:
    """The name of a copy. What a store says of its content is hashed: it could name any folder."""
    return hashlib.sha256(f"{place.url} {content}".encode()).hexdigest()[:16]
