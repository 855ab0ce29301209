"""The matrix as files for others, and in Redis: dump, its check, what it would do; load_redis."""

import os
from dataclasses import dataclass
from pathlib import Path

from dumps import redis
from dumps.dump import check as checking
from dumps.dump.check import DumpCheck
from dumps.dump.names import dumps_in, parse_name
from dumps.dump.retention import Keep, superseded
from dumps.dump.write import (
    DumpOptions,
    DumpReport,
    check_options,
    content_fingerprint,
    find_same,
    write_dump,
)
from dumps.redis import RedisReport
from nearfield.api.databases import LoadPlan
from nearfield.api.run_status import status
from nearfield.copies import run_at_hand
from nearfield.errors import UsageError
from nearfield.locations import Location, local_path, location
from nearfield.lock import locked
from nearfield.run import open_run

REDIS_VARIABLE = "NEARFIELD_REDIS"
FROM_ENVIRONMENT = "env"
FLAT_BYTES = 30
"""Of a pair in the flat Parquet: about half of a UUID's text, and the distance. Measured."""
CSV_BYTES = 10
"""Of a neighbour with its distance in compressed CSV. Measured."""
PARQUET_BYTES = 7.5


@dataclass(frozen=True)
class DumpPlan:
    """What `dump` would do. `same`: the newest dump there holds the same, so nothing is written.

    bytes: about how much would be written; free_bytes: room there. delete: dumps that would go.
    """

    out: Path
    rows: int
    k: int
    stage: str
    formats: tuple[str, ...]
    bytes: int
    free_bytes: int
    same: str | None
    delete: tuple[str, ...]


def dump(
    run: Path | str,
    out: Path | str,
    options: DumpOptions | None = None,
    *,
    keep: Keep | None = None,
) -> DumpReport:
    """Write a verified run as a dump into the folder `out`, then delete what `keep` lets go.

    Nothing is written if the newest dump there holds the same. Raises `QualityGate` for an
    unverified run unless forced, `UsageError`, `DamagedArtefact`, `DiskFull`, `RunLocked`.
    """
    folder = local_path(Path(out))
    chosen = options or DumpOptions()
    check_options(chosen)
    with run_at_hand(run, vectors=chosen.labels) as opened:
        _check_place(opened.folder, folder)
        with locked(folder), opened.step("dump") as facts:
            report = write_dump(opened, folder, chosen, keep=keep)
            facts |= {"dump": report.path.name, "made": report.made}
    return report


def plan_dump(
    run: Path | str,
    out: Path | str,
    options: DumpOptions | None = None,
    *,
    keep: Keep | None = None,
) -> DumpPlan:
    """What `dump` with the same arguments would do; writes nothing."""
    opened, folder = open_run(location(run)), local_path(Path(out))
    chosen = options or DumpOptions()
    check_options(chosen)
    _check_place(opened.path, folder)
    sha256 = opened.finished_matrix(verify=False).files[opened.matrix_at.name].sha256
    stage = status(run).stage
    content = content_fingerprint(opened, chosen, sha256)
    same = find_same(folder, content, forced=stage != "verified")
    existing = dumps_in(folder) if folder.is_dir() else []
    # the new one is the newest, whenever it comes
    coming = [] if same else [f"nearfield-matrix-99991231-235959-k{opened.config.columns}"]
    config, matrix_bytes = opened.config, opened.matrix_at.stat().st_size
    pairs = config.n * config.columns
    sizes = {"hdf5": matrix_bytes, "parquet": PARQUET_BYTES * pairs, "csv": CSV_BYTES * pairs}
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    room = os.statvfs(there)
    return DumpPlan(
        out=folder,
        rows=config.n,
        k=config.columns,
        stage=stage,
        formats=chosen.formats,
        bytes=int(sum(sizes[name] for name in chosen.formats) + chosen.flat * FLAT_BYTES * pairs),
        free_bytes=room.f_bavail * room.f_frsize,
        same=same.name if same else None,
        delete=tuple(superseded([*existing, *coming], keep)) if keep else (),
    )


def check_dump(directory: Path | str) -> DumpCheck:
    """Examine a dump that was downloaded: every byte, and every list of every format.

    `directory`: the dump, or the folder whose LATEST names it. Problems are reported, not raised.
    """
    return checking.check_dump(Path(directory))


def load_redis(run: Path | str, url: str = FROM_ENVIRONMENT, *, force: bool = False) -> RedisReport:
    """Load a verified run's lists into Redis and publish them there; see `dumps.redis`.

    url: redis://, rediss:// or unix://, without a password; `env` takes the whole of it from the
    environment variable NEARFIELD_REDIS. Resumes when called again. Raises `QualityGate` for an
    unverified run unless `force`, `UsageError`, `DatabaseError`, `RunLocked`.
    """
    address = _redis_address(url)
    with run_at_hand(run, vectors=False) as opened, opened.step("load redis") as facts:
        report = redis.load_redis(opened, address, force=force)
        facts |= {"rows": report.rows, "run": report.run}
    return report


def plan_load_redis(run: Path | str, url: str = FROM_ENVIRONMENT) -> LoadPlan:
    """What `load_redis` would do, and the memory that it takes there; asks no server."""
    config, address = open_run(location(run)).config, _redis_address(url)
    return LoadPlan(
        rows=config.n,
        k=config.columns,
        stage=status(run).stage,
        bytes=config.n * (8 * config.columns + redis.KEY_BYTES),
        target=f"Redis at {redis.shown(address)}",
    )


def _redis_address(url: str) -> str:
    found = os.environ.get(REDIS_VARIABLE) if url == FROM_ENVIRONMENT else url
    if not found:
        raise UsageError(f"expected the address of a Redis in {REDIS_VARIABLE}, it isn't set")
    redis.check_address(found)
    if url != FROM_ENVIRONMENT and redis.has_password(url):
        raise UsageError(
            "others can read a password on the command line: put the address into "
            f"{REDIS_VARIABLE}, and give --redis {FROM_ENVIRONMENT}"
        )
    return found


def _check_place(run: Location, out: Path) -> None:
    resolved = out.resolve()
    if resolved == run.resolve() or parse_name(resolved.name):
        raise UsageError(
            f"{out} is {'the run itself' if resolved == run.resolve() else 'a dump'}: "
            "give the folder that is to hold the dumps"
        )
