"""Examining a dump that came from somewhere: nothing missing, nothing changed, all of it sound.

Owns the verdict. Shares no code with the writer: names, formats and checksums are read by rules of
its own, strictly, so that no byte of any file can change unnoticed. What fails its checksum isn't
opened. Refuses to repair, and to trust: a forged dump may be wrong, but must not hang the check.
"""

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dumps.dump.contents import content_problems
from nearfield.errors import MissingFile
from nearfield.machine import available_cores
from nearfield.progress import progress

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]*)", re.ASCII)
ALWAYS = frozenset(
    {
        *("README.md", "LICENSE.txt", "provenance.json", "datapackage.json", "croissant.json"),
        *("recordings.parquet", "sample.parquet"),
    }
)
BY_FORMAT = {
    "hdf5": {"matrix.h5"},
    "parquet": {"matrix.parquet"},
    "csv": {"matrix.csv.zst", "recordings.csv.zst"},
}
DESCRIBED = {"datapackage.json", "croissant.json", SUMS}
"""They describe the others, not themselves."""
MOST_TEXT_BYTES = 16 << 20


@dataclass(frozen=True)
class DumpCheck:
    """What was found. `passed` means no `problems` (sentences)."""

    path: Path
    passed: bool
    problems: tuple[str, ...]
    files: int
    bytes: int
    n: int
    k: int
    seconds: float


def check_dump(directory: Path) -> DumpCheck:
    """Check the dump in `directory`, or the one that LATEST names there.

    Checksums of all files first; only if they hold, the contents: every list of every format, and
    that the formats agree to the bit. Raises `MissingFile` when there is no dump. Cost: two reads
    of everything; memory some 650 MB and a bit per recording; 20 bytes and the id per recording
    in the system's temporary folder.
    """
    started = time.monotonic()
    path = _dump_at(directory)
    sums, problems = _sums(path)
    sizes, found = _files(path, sums)
    problems += found
    n = k = 0
    if not problems:
        provenance, problems = _described(path, sums, sizes)
        if provenance and not problems:
            n, k, problems = content_problems(path, provenance)
    return DumpCheck(
        path=path,
        passed=not problems,
        problems=tuple(problems),
        files=len(sizes),
        bytes=sum(sizes.values()),
        n=n,
        k=k,
        seconds=round(time.monotonic() - started, 3),
    )


def _dump_at(directory: Path) -> Path:
    path = directory
    latest = directory / "LATEST"
    if latest.is_file() and not (directory / SUMS).exists():
        named = latest.read_bytes()[:200].decode(errors="replace").strip()
        path = directory / named
        if Path(named).name != named or not path.is_dir():
            raise MissingFile(f"{latest} names {named!r}, which isn't a dump there")
    if not path.is_dir():
        raise MissingFile(f"expected the folder of a dump at {path}, there is none: check the path")
    return path


def _sums(path: Path) -> tuple[dict[str, str], list[str]]:
    """The checksums that the dump came with, and what is wrong with their list."""
    try:
        if (path / SUMS).stat().st_size > MOST_TEXT_BYTES:
            return {}, [f"{SUMS} is too large to be one"]
        text = (path / SUMS).read_bytes().decode("ascii")
    except FileNotFoundError:
        return {}, [f"{SUMS} is missing: no file can be checked without it"]
    except (UnicodeDecodeError, OSError) as error:
        return {}, [f"{SUMS} can't be read ({error})"]
    matches = [LINE.fullmatch(line) for line in text.split("\n")[:-1]]
    sums = {found[2]: found[1] for found in matches if found}
    problems = [
        f"{SUMS}, line {place + 1}: expected a SHA-256 and a file's name"
        for place, found in enumerate(matches)
        if not found
    ]
    if text != "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())):
        problems.append(f"{SUMS} was changed or cut off: it isn't a whole, sorted list")
    return sums, problems


def _files(path: Path, sums: Mapping[str, str]) -> tuple[dict[str, int], list[str]]:
    """Bytes of each file that is there, and which are missing, too many, or changed."""
    sizes: dict[str, int] = {}
    problems = []
    for entry in os.scandir(path):
        if not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            problems.append(f"{entry.name} isn't a plain file: it doesn't belong here")
        elif entry.name not in sums and entry.name != SUMS:
            problems.append(f"{entry.name} isn't part of the dump: {SUMS} doesn't name it")
        else:
            sizes[entry.name] = entry.stat().st_size
    problems += [f"{name} is missing" for name in sums if not (path / name).exists()]
    there = sorted(sizes.keys() & sums.keys())
    with (
        ThreadPoolExecutor(available_cores()) as pool,
        progress("checksums", sum(sizes.values()), "bytes") as advance,
    ):
        for name, digest in zip(there, pool.map(lambda n: _sha256(path / n), there), strict=True):
            if digest != sums[name]:
                problems.append(
                    f"{name} doesn't match its checksum ({sizes[name]:,} bytes): download it again"
                )
            advance(sizes[name])
    return sizes, sorted(problems)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _described(
    path: Path, sums: Mapping[str, str], sizes: Mapping[str, int]
) -> tuple[dict[str, Any], list[str]]:
    """The provenance, and where the dump's own descriptions contradict its files."""
    try:
        texts = {}
        for name in ("provenance.json", "datapackage.json", "croissant.json"):
            if sizes.get(name, 0) > MOST_TEXT_BYTES:
                raise ValueError(f"{name} is too large")
            texts[name] = json.loads((path / name).read_bytes())
        provenance = dict(texts["provenance.json"])
        expected = set(ALWAYS).union(*(BY_FORMAT[name] for name in provenance["formats"]))
        expected |= {"matrix-flat.parquet"} if provenance["flat"] else set()
        package = {
            each["path"]: (each["bytes"], each["hash"].removeprefix("sha256:"))
            for each in texts["datapackage.json"]["resources"]
        }
        croissant = {
            each["contentUrl"]: (int(each["contentSize"].removesuffix(" B")), each["sha256"])
            for each in texts["croissant.json"]["distribution"]
        }
    except FileNotFoundError as error:
        return {}, [f"{Path(error.filename).name} is missing, also in {SUMS}"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return {}, [f"the dump's descriptions can't be read ({error!r})"]
    problems = [
        f"{name} should be part of this dump and isn't" for name in sorted(expected - sums.keys())
    ]
    problems += [f"{name} isn't a file that a dump has" for name in sorted(sums.keys() - expected)]
    truth = {name: (sizes[name], sums[name]) for name in sums if name not in DESCRIBED}
    for name, said in (("datapackage.json", package), ("croissant.json", croissant)):
        if said != truth:
            problems.append(f"{name} doesn't describe these files (names, sizes or checksums)")
    return provenance, problems
