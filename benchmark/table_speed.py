"""How fast tables become vector sets, beside the floor: Arrow's own read of the same file.

    python -m benchmark.table_speed --rows 1000000 --columns 30 --folder SCRATCH

Owns the making of the files, the repetitions, each in a process of its own, and the printed table.
The floor reads the file with all cores and keeps nothing; ingest also scales, checks ids, writes
the vector set and its checksums, and fsyncs.
"""

import argparse
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from nearfield.ingest import ingest
from nearfield.manifest import library_versions

BLOCK_ROWS = 100_000


@dataclass(frozen=True)
class Measured:
    """One repetition: seconds by the monotonic clock, peak resident memory of its process."""

    seconds: float
    peak_bytes: int


def make_tables(folder: Path, rows: int, columns: int) -> None:
    """Write the same table as table.csv and table.parquet: id, title, normal numbers (seeded)."""
    rng = np.random.default_rng(0)
    csv_writer = parquet_writer = None
    for start in range(0, rows, BLOCK_ROWS):
        block = _block(rng, range(start, min(rows, start + BLOCK_ROWS)), columns)
        if csv_writer is None or parquet_writer is None:
            csv_writer = pc.CSVWriter(folder / "table.csv", block.schema)
            parquet_writer = pq.ParquetWriter(folder / "table.parquet", block.schema)
        csv_writer.write_table(block)
        parquet_writer.write_table(block)
    for writer in (csv_writer, parquet_writer):
        if writer is not None:
            writer.close()


def floor(path: Path) -> None:
    """Read the whole file with Arrow alone, with the types that it finds."""
    if path.suffix == ".parquet":
        pq.read_table(path)
    else:
        pc.read_csv(path)


def floor_streamed(path: Path) -> None:
    """Read the file with Arrow alone, a block at a time, keeping nothing: bounded memory."""
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as parquet:
            for _ in parquet.iter_batches():
                pass
    else:
        with pc.open_csv(path) as reader:
            for _ in reader:
                pass


def whole_ingest(path: Path) -> None:
    """`nearfield ingest` of the file with default options."""
    out = path.with_name("vectors")
    try:
        ingest([path], out)
    finally:
        shutil.rmtree(out, ignore_errors=True)


WAYS: dict[str, Callable[[Path], None]] = {
    "arrow, whole": floor,
    "arrow, streamed": floor_streamed,
    "ingest": whole_ingest,
}


def measure(way: str, path: Path) -> Measured:
    """Run one way in a process of its own."""
    command = (sys.executable, "-m", "benchmark.table_speed", "--one", way, "--file", str(path))
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = done.stdout.split()
    return Measured(float(seconds), int(peak))


def report(folder: Path, rows: int, columns: int, repetitions: int) -> None:
    """Make the files, measure every way in turn, print a table in Markdown."""
    make_tables(folder, rows, columns)
    versions = ", ".join(f"{name} {number}" for name, number in library_versions().items())
    print(
        f"{rows:,} rows x {columns} numbers; {_processor()}, {os.cpu_count()} cores; {versions}\n"
    )
    print("| file | MB | way | seconds (each repetition) | rows/s (median) | peak MiB |")
    print("|---|---|---|---|---|---|")
    for name in ("table.csv", "table.parquet"):
        path = folder / name
        size = path.stat().st_size / 1e6
        found: dict[str, list[Measured]] = {way: [] for way in WAYS}
        for _ in range(repetitions):
            for way in WAYS:
                found[way].append(measure(way, path))
        for way, measured in found.items():
            seconds = [one.seconds for one in measured]
            peak = max(one.peak_bytes for one in measured) / (1 << 20)
            print(
                f"| {name} | {size:,.0f} | {way} | {', '.join(f'{s:.2f}' for s in seconds)}"
                f" | {rows / float(np.median(seconds)):,.0f} | {peak:,.0f} |"
            )


def _block(rng: np.random.Generator, rows: range, columns: int) -> pa.Table:
    numbers = {f"c{column}": rng.normal(size=len(rows)) for column in range(columns)}
    ids = [f"00000000-0000-4000-8000-{row:012d}" for row in rows]
    return pa.table({"id": ids, **numbers, "title": [f"song {row}" for row in rows]})


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _one(way: str, path: Path) -> None:
    started = time.monotonic()
    WAYS[way](path)
    seconds = time.monotonic() - started
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Speed of the ingest of tables")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=30)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--one", choices=tuple(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _one(arguments.one, arguments.file)
    elif arguments.folder is None:
        parser.error("--folder is needed: an existing directory with room for the files")
    else:
        report(arguments.folder, arguments.rows, arguments.columns, arguments.repetitions)


if __name__ == "__main__":
    main()
