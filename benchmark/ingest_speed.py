"""How fast documents are ingested, against what a fast JSON parser alone reaches on the same ones.

    python -m benchmark.ingest_speed [ARCHIVE...] [--repeat 5]

The floor is `orjson.loads` over the documents' bytes, which already lie decompressed in memory. The
whole path begins at the archive's file and ends at vectors: decompress, read the tar, decode,
spill, join, fold, fit, transform. One process, one thread; floor and path take turns in one run, so
that a busy machine slows both; every repetition is kept. Without ARCHIVE a demo dump is made.
Owns this one measurement; needs `orjson` (a development dependency).
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from nearfield.demo.dump import write_dump
from nearfield.ingest.archives import Archive
from nearfield.ingest.documents import gather_documents
from nearfield.ingest.options import IngestOptions
from nearfield.ingest.rejects import RejectLog

DEMO_RECORDINGS = 2000
LIBRARIES = ("msgspec", "orjson", "zstandard", "numpy", "pyarrow")


def measured(archives: Sequence[Path], repeat: int) -> dict[str, Any]:
    """Times in seconds of the floor and of the whole path, `repeat` each, and their ratio.

    Broken documents count for both: a parser that stops early on one has seen it, too. Memory: all
    documents of the archives at once, for the floor.
    """
    contents = [member.content or b"" for path in archives for member in Archive(path)]
    floor, path = [], []
    for _ in range(repeat):
        floor.append(_timed(lambda: _parse_all(contents)))
        path.append(_timed(lambda: _ingest(archives)))
    ratio = statistics.median(path) / statistics.median(floor)
    return {
        "documents": len(contents),
        "bytes_per_document": round(sum(map(len, contents)) / len(contents)),
        "floor_s": floor,
        "path_s": path,
        "floor_documents_per_s": round(len(contents) / statistics.median(floor)),
        "path_documents_per_s_per_core": round(len(contents) / statistics.median(path)),
        "ratio": round(ratio, 3),
    }


def _parse_all(contents: Sequence[bytes]) -> None:
    for content in contents:
        try:
            orjson.loads(content)
        except orjson.JSONDecodeError:
            continue


def _ingest(archives: Sequence[Path]) -> None:
    with tempfile.TemporaryDirectory() as work:
        gather_documents(archives, IngestOptions(workers=1), Path(work), RejectLog())


def _timed(act: Callable[[], None]) -> float:
    started = time.perf_counter()
    act()
    return round(time.perf_counter() - started, 5)


def _machine() -> dict[str, Any]:
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "processor": models[0].partition(": ")[2] if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description="documents per second per core, against orjson")
    parser.add_argument("archives", nargs="*", type=Path, metavar="ARCHIVE")
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archives = given.archives or write_dump(Path(folder), recordings=DEMO_RECORDINGS).archives
        result = {**_machine(), **measured(archives, given.repeat)}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
