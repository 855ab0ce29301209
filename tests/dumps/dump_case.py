"""Dumps of small runs for the tests of their files, their check and their faults."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zstandard

from dumps.dump.write import DumpOptions, DumpReport, write_dump
from nearfield.run import Run
from tests.dumps.postgres_case import loadable_run

N, K = 240, 6
EVERYTHING = DumpOptions(flat=True, licence="CC0-1.0")
AWKWARD = [0.1, 1e-45, 1.17549435e-38, 3.4028235e38, 16777216.0, 1 / 3]
"""Shortest and longest decimals, the smallest and the largest float32 there are."""


def dumpable_run(folder: Path, **options: Any) -> Run:
    """A verified run with labels that need quotes, and one row of awkward distances."""
    labels = {
        "title": [None if i % 7 == 0 else f'Tïtle "{i}", {{a}}\nb' for i in range(N)],
        "year": [None if i % 5 == 0 else 1900 + i for i in range(N)],
        "live": [i % 2 == 0 for i in range(N)],
    }
    ids = [f"id {i}'ß\"" for i in range(N)]
    run = loadable_run(folder, n=N, k=K, ids=ids, labels=labels)
    if options.get("awkward", True):
        rewrite(run)
    return run


def rewrite(run: Run) -> None:
    """Put awkward distances into the matrix and make manifest and verdict agree with it."""
    from tests.dumps.postgres_case import write_verdict
    from tests.dumps.small_run import alter

    def change(file: h5py.File) -> None:
        file["distances"][3] = np.sort(np.array(AWKWARD, np.float32))

    alter(run, change)
    write_verdict(run)


def dumped(folder: Path, options: DumpOptions = EVERYTHING) -> DumpReport:
    """A dump of such a run in `folder`/dumps."""
    run = dumpable_run(folder)
    out = folder / "dumps"
    out.mkdir()
    return write_dump(run, out, options)


def csv_rows(path: Path) -> list[list[str]]:
    """All records of a compressed CSV file, by Python's own reader."""
    with zstandard.open(path, "rb") as stream:
        text = stream.read().decode()
    return list(csv.reader(io.StringIO(text, newline="")))


def provenance(path: Path) -> dict[str, Any]:
    """The dump's provenance."""
    return json.loads((path / "provenance.json").read_text())


def resum(path: Path) -> None:
    """Make every description agree with the files as they are: what a forger would do."""
    import hashlib

    described = {"datapackage.json", "croissant.json", "SHA256SUMS"}
    files = sorted(entry for entry in path.iterdir() if entry.name not in described)
    facts = {
        entry.name: (entry.stat().st_size, hashlib.sha256(entry.read_bytes()).hexdigest())
        for entry in files
    }
    package = json.loads((path / "datapackage.json").read_text())
    for each in package["resources"]:
        each["bytes"], digest = facts[each["path"]]
        each["hash"] = f"sha256:{digest}"
    (path / "datapackage.json").write_text(json.dumps(package))
    croissant = json.loads((path / "croissant.json").read_text())
    for each in croissant["distribution"]:
        size, each["sha256"] = facts[each["contentUrl"]]
        each["contentSize"] = f"{size} B"
    (path / "croissant.json").write_text(json.dumps(croissant))
    everything = sorted(entry for entry in path.iterdir() if entry.name != "SHA256SUMS")
    (path / "SHA256SUMS").write_text(
        "".join(
            f"{hashlib.sha256(entry.read_bytes()).hexdigest()}  {entry.name}\n"
            for entry in everything
        )
    )
