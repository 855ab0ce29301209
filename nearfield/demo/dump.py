"""Writes the demo's dump: archives that look like those of AcousticBrainz, from a seed.

Owns names, layout and flaws of the archives. Like the real dumps it has repeated submissions,
submissions without a high-level document, documents without one model, and a few broken ones; the
report says how many of each, so that ingest can be checked against it.
"""

import io
import multiprocessing
import tarfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from nearfield.demo.model import Catalogue, catalogue
from nearfield.demo.model import recordings as made_up
from nearfield.demo.schema import high_level, low_level, noise
from nearfield.errors import DamagedArtefact, MissingFile, UsageError
from nearfield.files import atomic_path, remove_temporaries
from nearfield.lock import locked
from nearfield.manifest import Manifest, fingerprint, read_manifest, write_manifest
from nearfield.progress import progress

DATE = "20220623"
PARTS = 4
WITHOUT_HIGH_LEVEL = 0.02
WITHOUT_A_MODEL = 0.008
LACKING = ("genre_dortmund", "mood_happy", "voice_instrumental")
COPYING = b"Made up by nearfield's demo. To the extent possible under law, dedicated to the public \
domain (CC0 1.0).\n"
MTIME = 1_655_942_400

KIND = "demo dump"
VERSION = 1
MANIFEST = "MANIFEST"  # without .json, or ingest would take it for a document
LEVELS = ("lowlevel", "highlevel")

# what breaks a low-level document, and the reason that ingest must give
BREAKAGE: Mapping[str, tuple[bytes, bytes]] = {
    "no mfcc": (b'"mfcc": {', b'"mfcc_of_old": {'),
    "bpm is 0": (b'"bpm": ', b'"bpm": 0, "true_bpm": '),
    "unknown key": (b'"key_key": "', b'"key_key": "H'),
    "not JSON": (b'"average_loudness": ', b'"average_loudness": NaN, "old": '),
}


@dataclass(frozen=True)
class DumpReport:
    """What the dump holds. `rejects`: what ingest into `combined` must reject, by reason."""

    archives: tuple[Path, ...]
    low_level: int
    high_level: int
    rejects: Mapping[str, int]

    @property
    def documents(self) -> int:
        """Documents of both levels."""
        return self.low_level + self.high_level


def write_dump(
    folder: Path, *, recordings: int = 20_000, seed: int = 42, workers: int = 1
) -> DumpReport:
    """Write a dump of `recordings` made-up recordings into `folder`, in 4 + 4 archives.

    The bytes depend on `recordings` and `seed` alone, not on `workers` (processes). Each low-level
    document has about 33 kB (real ones 55). A dump that is there already is kept when it is the
    same one, else overwritten. Raises `UsageError` for fewer than one recording, `DiskFull`,
    `RunLocked` when another process writes there.
    """
    if recordings < 1 or workers < 1:
        raise UsageError(f"expected at least 1 recording and worker; got {recordings}, {workers}")
    with locked(folder):
        return _write_dump(folder, recordings, seed, workers)


def _write_dump(folder: Path, recordings: int, seed: int, workers: int) -> DumpReport:
    expected = fingerprint(kind=KIND, version=VERSION, recordings=recordings, seed=seed)
    manifest = _finished(folder, expected)
    if manifest is None:
        (folder / MANIFEST).unlink(missing_ok=True)
        remove_temporaries(folder)
        manifest = write_manifest(
            folder / MANIFEST,
            kind=KIND,
            fingerprint=expected,
            format_version=VERSION,
            files=[_archive(folder, level, part).name for level in LEVELS for part in range(PARTS)],
            facts=_write_parts(partial(_write_part, folder, recordings, seed), workers),
        )
    archives = tuple(folder / name for name in manifest.files)
    return DumpReport(archives, **manifest.facts)


def _finished(folder: Path, expected: str) -> Manifest | None:
    try:
        manifest = read_manifest(folder / MANIFEST, kind=KIND, verify=False)
    except (MissingFile, DamagedArtefact):
        return None
    return manifest if manifest.fingerprint == expected else None


def _write_parts(write: Callable[[int], Counter[str]], workers: int) -> dict[str, Any]:
    total: Counter[str] = Counter()
    with progress("make dump", PARTS, "parts") as advance:
        for counts in _counts_of_parts(write, workers):
            total += counts
            advance(1)
    return {
        "low_level": total.pop("lowlevel"),
        "high_level": total.pop("highlevel"),
        "rejects": dict(sorted(total.items())),
    }


def _counts_of_parts(write: Callable[[int], Counter[str]], workers: int) -> Iterator[Counter[str]]:
    if workers == 1:
        yield from map(write, range(PARTS))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, PARTS), context) as pool:
        yield from pool.map(write, range(PARTS))


def _archive(folder: Path, level: str, part: int) -> Path:
    return folder / f"acousticbrainz-{level}-json-{DATE}-{part}.tar.zst"


def _write_part(folder: Path, total: int, seed: int, part: int) -> Counter[str]:
    rng = np.random.default_rng([seed, 1, part])
    count = total * (part + 1) // PARTS - total * part // PARTS
    written: Counter[str] = Counter()
    with (
        _archive_writer(_archive(folder, "lowlevel", part), "lowlevel") as add_low,
        _archive_writer(_archive(folder, "highlevel", part), "highlevel") as add_high,
    ):
        for name, low, high in _submissions(catalogue(total, seed), count, part, rng, written):
            add_low(name, low)
            written["lowlevel"] += 1
            if high:
                add_high(name, high)
                written["highlevel"] += 1
    return written


def _submissions(
    known: Catalogue, count: int, part: int, rng: np.random.Generator, rejects: Counter[str]
) -> Iterator[tuple[str, bytes, bytes | None]]:
    """Name, low-level and perhaps high-level document of every submission of a part."""
    broken = _breakages(count, part)
    for place, recording in enumerate(made_up(known, count, rng)):
        mbid = str(uuid.UUID(bytes=rng.bytes(16), version=4))
        filling = noise(rng, len(recording.submissions))
        for offset, sound in enumerate(recording.submissions):
            low = low_level(mbid, recording, sound, filling[offset])
            without_high, lacking = rng.random() < WITHOUT_HIGH_LEVEL, _lacking(rng)
            reason = broken.get(place) if offset == 0 else None
            if reason:
                low = _broken(low, reason, part)
            elif without_high:
                reason = "no high-level document"
            elif lacking:
                reason = f"no model {lacking}"
            if reason:
                rejects[reason] += 1
            high = None if without_high else high_level(mbid, recording, sound, lacking)
            yield f"{mbid}-{offset}.json", low, high


def _breakages(count: int, part: int) -> dict[int, str]:
    """Which recordings of a part have a broken first document: few, all kinds over the parts."""
    kinds = sorted(BREAKAGE)
    number = min(len(kinds) + 1, count // 50)
    return {50 * i + 7: kinds[(part + i) % len(kinds)] for i in range(number)}


def _broken(document: bytes, reason: str, part: int) -> bytes:
    if reason == "not JSON" and part % 2:
        return document[: len(document) // 2]
    return document.replace(*BREAKAGE[reason], 1)


def _lacking(rng: np.random.Generator) -> str:
    if rng.random() >= WITHOUT_A_MODEL:
        return ""
    return LACKING[int(rng.integers(len(LACKING)))]


@contextmanager
def _archive_writer(path: Path, level: str) -> Iterator[Callable[[str, bytes], None]]:
    """Yield a function that adds a document by name; the archive appears when the block ends."""
    root = path.name.rpartition("-")[0]

    def add(name: str, content: bytes) -> None:
        _add_file(tar, f"{root}/{level}/{name[:2]}/{name[2]}/{name}", content)

    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        zstandard.ZstdCompressor(3).stream_writer(file) as compressed,
        tarfile.open(fileobj=compressed, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
    ):
        _add_file(tar, f"{root}/COPYING", COPYING)
        yield add


def _add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(content), MTIME
    tar.addfile(member, io.BytesIO(content))
