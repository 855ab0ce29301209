"""Writing a dump: all files beside their place, synced, renamed, and LATEST last.

Owns the order in which a dump comes into being, and the report. A dump is there whole or not at
all; what a killed writer left is removed by the next one. Call under the locks of run and folder.
"""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from dumps.dump import names
from dumps.dump.describe import Facts, croissant, datapackage, readme
from dumps.dump.licence import Licence, licence_of
from dumps.dump.names import DumpName, dumps_in, new_temporary, temporaries
from dumps.dump.retention import Keep, delete, superseded
from dumps.dump.source import Matrix, mapped_ids
from dumps.dump.tables import (
    write_csv,
    write_flat,
    write_parquet,
    write_recordings,
    write_recordings_csv,
    write_sample,
)
from dumps.postgres.gate import Verdict, verdict
from dumps.postgres.source import opened_source
from nearfield.errors import DamagedArtefact, UsageError, disk_errors
from nearfield.files import TEMPORARY_MARK, fsync_path, sha256_of, write_bytes
from nearfield.machine import available_cores
from nearfield.manifest import fingerprint, library_versions
from nearfield.progress import progress
from nearfield.run import Run
from nearfield.vectorset import ID_COLUMN

FORMATS = ("hdf5", "parquet", "csv")
VERSION = 1
COPY_BYTES = 64 << 20
NO_KERNEL_COPY = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
"""What the system says where it can't copy between these two places by itself."""


@dataclass(frozen=True)
class DumpOptions:
    """What a dump holds. flat: also Parquet with a row per pair. licence: a name or a file."""

    formats: tuple[str, ...] = FORMATS
    flat: bool = False
    labels: bool = True
    licence: str | None = None
    force: bool = False


@dataclass(frozen=True)
class DumpReport:
    """What was done. `made` False: the same dump was there. files: bytes of each."""

    path: Path
    made: bool
    n: int
    k: int
    files: Mapping[str, int]
    bytes: int
    forced: bool
    deleted: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class _Content:
    """What is to be dumped: identified, judged, with its licence."""

    fingerprint: str
    sha256: str
    verdict: Verdict
    licence: Licence


def parse_formats(text: str) -> tuple[str, ...]:
    """Formats as they are written: `hdf5,parquet`. Raises `UsageError` for others."""
    chosen = {part.strip().lower() for part in text.split(",")}
    unknown = chosen.difference(FORMATS)
    if unknown:
        raise UsageError(
            f"expected --formats out of {','.join(FORMATS)}, got {', '.join(sorted(unknown))!r}"
        )
    return tuple(name for name in FORMATS if name in chosen)


def write_dump(
    run: Run, out: Path, options: DumpOptions, *, keep: Keep | None = None
) -> DumpReport:
    """Write the run as a dump into `out`, then delete what `keep` lets go.

    The newest dump there of the same content is kept, and nothing is written. Raises `QualityGate`
    for a run that isn't verified, unless forced, `DamagedArtefact`, `DiskFull`, `UsageError`.
    Memory: some 500 MB, whatever n is (docs/results/memory.md).
    """
    started = time.monotonic()
    check_options(options)
    content = _content(run, options)
    for left in temporaries(out):
        shutil.rmtree(left)
    for left in out.glob(f".{names.LATEST}{TEMPORARY_MARK}*"):
        left.unlink()
    same = find_same(out, content.fingerprint, forced=content.verdict.forced)
    path = same or _written(run, out, options, content)
    write_bytes(out / names.LATEST, f"{path.name}\n".encode())
    # a clock may have been ahead when another was named
    gone = [name for name in superseded(dumps_in(out), keep) if name != path.name] if keep else []
    delete(out, gone)
    files = {entry.name: entry.stat().st_size for entry in sorted(path.iterdir())}
    return DumpReport(
        path=path,
        made=same is None,
        n=json.loads((path / names.PROVENANCE).read_bytes())["recordings"],
        k=run.config.columns,
        files=files,
        bytes=sum(files.values()),
        forced=content.verdict.forced,
        deleted=tuple(gone),
        seconds=round(time.monotonic() - started, 3),
    )


def check_options(options: DumpOptions) -> None:
    """Raise `UsageError` for options that contradict each other."""
    if options.flat and "parquet" not in options.formats:
        raise UsageError("--flat is a form of Parquet: add parquet to --formats")
    licence_of(options.licence)


def find_same(out: Path, content: str, *, forced: bool) -> Path | None:
    """The newest dump in `out`, provided that it has the fingerprint `content` and says of its
    verification what one of now would say.
    """
    for name in dumps_in(out)[-1:] if out.is_dir() else []:
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads((out / name / names.PROVENANCE).read_bytes())
            if (found["fingerprint"], found["forced"]) == (content, forced):
                return out / name
    return None


def content_fingerprint(run: Run, options: DumpOptions, sha256: str) -> str:
    """Equal for dumps that would hold the same."""
    return fingerprint(
        version=VERSION,
        matrix=sha256,
        labels=options.labels and run.config.vectors_fingerprint,
        formats=options.formats,
        flat=options.flat,
        licence=asdict(licence_of(options.licence)),
    )


def _content(run: Run, options: DumpOptions) -> _Content:
    sha256 = run.finished_matrix().files[run.matrix.name].sha256
    return _Content(
        fingerprint=content_fingerprint(run, options, sha256),
        sha256=sha256,
        verdict=verdict(run, sha256, force=options.force, doing=("dump", "dumped")),
        licence=licence_of(options.licence),
    )


def _written(run: Run, out: Path, options: DumpOptions, content: _Content) -> Path:
    begun = _free_moment(out, run.config.columns)
    name = str(DumpName(begun, run.config.columns))
    with _beside(out, name) as folder, opened_source(run, labels=options.labels) as source:
        matrix = Matrix(source, mapped_ids(source, folder))
        files = _tables(run, matrix, folder, options)
        created = begun.strftime("%Y-%m-%dT%H:%M:%SZ")
        facts = _facts(name, run, matrix, content, files)
        provenance = {
            **_stated(options, content),
            "created": created,
            "recordings": facts.n,
            **_origin(run),
        }
        sums = _explained(folder, facts, created, provenance)
        if sums.get(names.HDF5, (0, content.sha256))[1] != content.sha256:
            raise DamagedArtefact(f"{run.matrix} changed while it was copied: dump again")
    return out / name


def _free_moment(out: Path, k: int) -> datetime:
    """Now, in whole seconds, unless a dump of that name is there: then the next free second."""
    while (out / str(DumpName(now := datetime.now(UTC).replace(microsecond=0), k))).exists():
        time.sleep(0.1)
    return now


@contextmanager
def _beside(out: Path, name: str) -> Iterator[Path]:
    """A folder that becomes `out`/`name` when the block succeeds, and vanishes when it fails."""
    temporary = new_temporary(out, name)
    try:
        with disk_errors(out):
            temporary.mkdir()
            yield temporary
            for path in temporary.iterdir():
                fsync_path(path)
            fsync_path(temporary)
            temporary.rename(out / name)
            fsync_path(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _tables(run: Run, matrix: Matrix, folder: Path, options: DumpOptions) -> tuple[str, ...]:
    """Write the files that hold data; returns their names."""
    steps: dict[str, Callable[[Path, Callable[[int], None]], None]] = {}
    if "hdf5" in options.formats:
        steps[names.HDF5] = lambda path, _: copy_file(run.matrix, path)
    if "parquet" in options.formats:
        steps[names.PARQUET] = lambda path, advance: write_parquet(path, matrix, advance)
    if options.flat:
        steps[names.FLAT] = lambda path, advance: write_flat(path, matrix, advance)
    if "csv" in options.formats:
        steps[names.CSV] = lambda path, advance: write_csv(path, matrix, advance)
        steps[names.RECORDINGS_CSV] = lambda path, _: write_recordings_csv(path, matrix)
    steps[names.RECORDINGS] = lambda path, _: write_recordings(path, matrix)
    steps[names.SAMPLE] = lambda path, _: write_sample(path, matrix)
    for name, write in steps.items():
        with progress(f"dump {name}", matrix.n, "recordings") as advance:
            write(folder / name, advance)
    return tuple(steps)


def copy_file(source: Path, target: Path) -> None:
    """Copy within the kernel: at once where the file system can share blocks."""
    try:
        with source.open("rb") as old, target.open("xb") as new:
            while os.copy_file_range(old.fileno(), new.fileno(), COPY_BYTES):
                pass
    except OSError as error:
        if error.errno not in NO_KERNEL_COPY:
            raise
        shutil.copyfile(source, target)


def _facts(name: str, run: Run, matrix: Matrix, content: _Content, files: tuple[str, ...]) -> Facts:
    labels = matrix.source.labels
    schema = pq.read_schema(labels.path / "recordings.parquet") if labels else []
    return Facts(
        name=name,
        n=matrix.recordings_count,
        k=matrix.k,
        space=run.config.space,
        first_id=matrix.source.ids(matrix.source.rows_at(np.zeros(1, np.int64)))[0],
        labels=tuple((f.name, str(f.type)) for f in schema if f.name != ID_COLUMN),
        licence=content.licence,
        files=(*files, names.LICENCE, names.PROVENANCE, names.README),
    )


def _stated(options: DumpOptions, content: _Content) -> dict[str, Any]:
    return {
        "format_version": VERSION,
        "fingerprint": content.fingerprint,
        "formats": list(options.formats),
        "flat": options.flat,
        "labels": options.labels,
        "licence": content.licence.name,
        "forced": content.verdict.forced,
    }


def _origin(run: Run) -> dict[str, Any]:
    """Where the numbers come from, without paths of this machine."""
    config = {key: value for key, value in asdict(run.config).items() if key != "vectors"}
    manifest = run.finished_matrix(verify=False)
    return {
        "run_fingerprint": run.config.fingerprint,
        "run": config,
        "matrix": {"created": manifest.created, "versions": manifest.versions, **manifest.facts},
        "verification": _verification(run),
        "versions": library_versions(),
    }


def _verification(run: Run) -> Any:
    try:
        return json.loads(run.verification.read_bytes())
    except FileNotFoundError:
        return None


def _explained(
    folder: Path, facts: Facts, created: str, provenance: Mapping[str, Any]
) -> Mapping[str, tuple[int, str]]:
    """Write the texts, then the checksums of everything: (bytes, hex SHA-256), returned too."""
    texts = {
        names.LICENCE: facts.licence.text,
        names.PROVENANCE: json.dumps(provenance, indent=2, ensure_ascii=False) + "\n",
        names.README: readme(facts),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    sums = _summed(folder, facts.files)
    described = {names.DATAPACKAGE: datapackage, names.CROISSANT: croissant}
    for name, describe in described.items():
        (folder / name).write_text(describe(facts, sums, created), encoding="utf-8")
    sums |= _summed(folder, tuple(described))
    lines = "".join(f"{digest}  {name}\n" for name, (_, digest) in sorted(sums.items()))
    (folder / names.SUMS).write_text(lines, encoding="utf-8")
    return sums


def _summed(folder: Path, files: tuple[str, ...]) -> dict[str, tuple[int, str]]:
    with ThreadPoolExecutor(available_cores()) as pool:
        digests = pool.map(lambda name: sha256_of(folder / name), files)
        return {
            name: ((folder / name).stat().st_size, digest)
            for name, digest in zip(files, digests, strict=True)
        }
