"""A run: one execution with one frozen configuration, and the names of the things in its directory.

    RUN/run.json           the frozen configuration, written first
    RUN/shards/  parts/    intermediate, removed when the matrix is finished
    RUN/matrix.h5          the matrix; matrix.json is its manifest and comes last
    RUN/verification.json  what `nearfield verify` found
    RUN/steps.jsonl        one line per finished step: name, seconds, what it did
    RUN/postgres/          data of the embedded Postgres, if it is used
    RUN/cells/             what an update of this run needs, kept for the next one
    RUN/update.json  delta/  vectors/   of a run that an update made: from what, and its vector set

The directory is a path, or a URL of an object store that all workers reach. Refuses to know how
any of it is made.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nearfield.errors import DamagedArtefact, MissingFile, NearfieldError, UsageError
from nearfield.files import remove_temporaries, write_bytes
from nearfield.locations import Location, local_path
from nearfield.manifest import Manifest, fingerprint, read_manifest
from nearfield.space import SpaceName

MATRIX_KIND = "matrix"
UPDATE = "update.json"
"""Says what an update is to do, and stays in the run that it makes."""
UPDATE_FILES = frozenset({UPDATE, "delta", "incoming", "rejects.csv", "vectors", "steps.jsonl"})
"""What an update puts into the directory of the run that it makes, before that is a run."""
WRITTEN_INTO = ("", "cells", "delta", "vectors")
"""Where in its directory files lie that are written whole: killed writers leave theirs there."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the result. `k` is as asked; the matrix has min(k, n - 1) columns."""

    vectors: str
    vectors_fingerprint: str
    n: int
    d: int
    space: SpaceName
    k: int
    recall: float
    method: str
    seed: int

    @property
    def columns(self) -> int:
        """Neighbours per recording in the matrix: min(k, n - 1)."""
        return min(self.k, self.n - 1)

    @property
    def fingerprint(self) -> str:
        """Identifies the result; where the vector set lies doesn't enter."""
        decisive = {key: value for key, value in asdict(self).items() if key != "vectors"}
        return fingerprint(**decisive)


@dataclass(frozen=True)
class Run:
    """An opened run directory."""

    path: Location
    config: RunConfig

    @property
    def folder(self) -> Path:
        """The directory, of a run that lies on this machine. Raises `UsageError` for another."""
        return local_path(self.path)

    @property
    def matrix(self) -> Path:
        """The HDF5 file with the matrix, of a run that lies on this machine."""
        return self.folder / "matrix.h5"

    @property
    def matrix_at(self) -> Location:
        """The same, wherever the run lies."""
        return self.path / "matrix.h5"

    @property
    def verification(self) -> Location:
        """The report of the last verification."""
        return self.path / "verification.json"

    @property
    def postgres(self) -> Path:
        """Data directory of the embedded Postgres."""
        return self.folder / "postgres"

    def finished_matrix(self, *, verify: bool = True) -> Manifest:
        """The matrix' manifest; `MissingFile` if unfinished, `DamagedArtefact` if changed."""
        return read_manifest(self.path / "matrix.json", kind=MATRIX_KIND, verify=verify)

    def steps(self) -> list[dict[str, Any]]:
        """The finished steps in order of their end: name, seconds, and what each reported.

        Raises `DamagedArtefact` when the file was changed by something else.
        """
        path = self.path / "steps.jsonl"
        try:
            return [json.loads(line) for line in path.read_bytes().decode().splitlines()]
        except FileNotFoundError:
            return []
        except NearfieldError:
            raise
        except ValueError as error:
            raise DamagedArtefact(
                f"{path} can't be read ({error}): remove it, only the timings of the run are lost"
            ) from error

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Time the block as a step; what it puts into the yielded dict is kept with it."""
        facts: dict[str, Any] = {}
        started = time.monotonic()
        yield facts
        entry = {"step": name, "seconds": round(time.monotonic() - started, 3), **facts}
        path = self.path / "steps.jsonl"
        # not appended to: a kill or a full disk midway would leave a line cut off
        before = path.read_bytes() if path.exists() else b""
        write_bytes(path, before + json.dumps(entry).encode() + b"\n")


def create_run(path: Location, config: RunConfig) -> Run:
    """Make the run directory, or open it if it was made with the same configuration.

    Call under its lock: what killed writers left of a matrix or a vector set is removed. When the
    vector set has been moved since, the run remembers the new place. Raises `UsageError` when the
    directory holds a run with another configuration, or other files.
    """
    there = run_there(path, config)
    _remove_partials(path)
    if there is None or there.config != config:
        _write_config(path, config)
    return Run(path, config)


def run_there(path: Location, config: RunConfig) -> Run | None:
    """The run of that configuration which is there, None where one may be made; writes nothing.

    Raises `UsageError` as `create_run` does.
    """
    if (path / "run.json").exists():
        run = open_run(path)
        if run.config.fingerprint != config.fingerprint:
            raise UsageError(
                f"{path} holds another run ({_difference(run.config, config)})."
                " Choose another directory, or remove this one"
            )
        return run
    others = [entry.name for entry in path.glob("[!.]*") if entry.name not in UPDATE_FILES]
    if others:
        raise UsageError(f"{path} isn't a run (it holds {others[0]}): choose another directory")
    return None


def open_run(path: Location) -> Run:
    """Open a run directory. Raises `MissingFile` when it isn't one."""
    if isinstance(path, Path):
        local_path(path)
    try:
        return Run(path, _at_home(path, RunConfig(**json.loads((path / "run.json").read_bytes()))))
    except NearfieldError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        if isinstance(path, Path) and (path / UPDATE).exists():
            raise MissingFile(
                f"{path} holds an update without its matrix: run the same `nearfield update` once "
                "more, without --no-matrix"
            ) from error
        raise MissingFile(
            f"expected a run directory at {path}, found no run.json there. "
            "Make a run with: nearfield build VECTORS --out RUN"
        ) from error
    except (ValueError, TypeError) as error:
        raise DamagedArtefact(f"{path}/run.json can't be read ({error})") from error


def _at_home(path: Location, config: RunConfig) -> RunConfig:
    """With the vector set that an update wrote into its run, wherever the run has been moved."""
    inside = path / "vectors"
    if isinstance(inside, Path) and (path / UPDATE).exists() and (inside / "space.json").exists():
        return replace(config, vectors=str(inside.resolve()))
    return config


def _remove_partials(path: Location) -> None:
    if isinstance(path, Path):
        for name in WRITTEN_INTO:
            remove_temporaries(path / name)


def _write_config(path: Location, config: RunConfig) -> None:
    write_bytes(path / "run.json", (json.dumps(asdict(config), indent=2) + "\n").encode())


def _difference(old: RunConfig, new: RunConfig) -> str:
    before, after = asdict(old), asdict(new)
    return ", ".join(
        f"{name} {before[name]} there, {after[name]} asked"
        for name in before
        if before[name] != after[name] and name != "vectors"
    )
