"""The matrix as files for others, and in Redis: dump, its check, what it would do; load_redis."""

import os
from dataclasses import dataclass
from pathlib import Path

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
from nearfield.api.matrix import status
from nearfield.errors import UsageError
from nearfield.lock import locked
from nearfield.run import open_run

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
    opened, folder = open_run(Path(run)), Path(out)
    chosen = options or DumpOptions()
    check_options(chosen)
    _check_place(opened.path, folder)
    with locked(opened.path), locked(folder), opened.step("dump") as facts:
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
    opened, folder = open_run(Path(run)), Path(out)
    chosen = options or DumpOptions()
    check_options(chosen)
    _check_place(opened.path, folder)
    sha256 = opened.finished_matrix(verify=False).files[opened.matrix.name].sha256
    same = find_same(folder, content_fingerprint(opened, chosen, sha256))
    existing = dumps_in(folder) if folder.is_dir() else []
    # the new one is the newest, whenever it comes
    coming = [] if same else [f"nearfield-matrix-99991231-235959-k{opened.config.columns}"]
    config, matrix_bytes = opened.config, opened.matrix.stat().st_size
    pairs = config.n * config.columns
    sizes = {"hdf5": matrix_bytes, "parquet": PARQUET_BYTES * pairs, "csv": CSV_BYTES * pairs}
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    room = os.statvfs(there)
    return DumpPlan(
        out=folder,
        rows=config.n,
        k=config.columns,
        stage=status(run).stage,
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


def _check_place(run: Path, out: Path) -> None:
    resolved = out.resolve()
    if resolved == run.resolve() or parse_name(resolved.name):
        raise UsageError(
            f"{out} is {'the run itself' if resolved == run.resolve() else 'a dump'}: "
            "give the folder that is to hold the dumps"
        )
