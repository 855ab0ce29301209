"""Writes the report of a benchmark's directory from its table, `choice.toml` and `bench.json`.

    python -m benchmark.report DIR

Owns `report.html` and `report-kK.png` there. The same table gives the same page.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmark.choice import CHOICE, Choice, read_choice
from benchmark.report.page import Content, page
from benchmark.report.pictures import write_pictures
from benchmark.results.table import read_table
from nearfield.errors import DamagedArtefact, MissingFile
from nearfield.files import write_bytes

REPORT = "report.html"
BENCH = "bench.json"


def write_report(directory: Path) -> Path:
    """Write the pictures, where matplotlib is installed, then the page; returns the page.

    Where `choice.toml` or `bench.json` is missing the page lacks what they say. Raises
    `MissingFile` or `DamagedArtefact` for the table, `UsageError` for a broken choice, `DiskFull`.
    """
    outcomes = read_table(directory)
    content = Content(outcomes, _choice(directory), _facts(directory))
    pictures = write_pictures(directory, outcomes, content.lines, content.full)
    path = directory / REPORT
    write_bytes(path, page(Content(outcomes, content.choice, content.facts, pictures)))
    return path


def _choice(directory: Path) -> Choice | None:
    try:
        return read_choice(directory / CHOICE)
    except MissingFile:
        return None


def _facts(directory: Path) -> dict[str, Any]:
    path = directory / BENCH
    try:
        facts: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DamagedArtefact(
            f"{path} can't be read ({error}): run the benchmark again, finished measurements "
            "are kept"
        ) from error
    return facts


def main() -> None:
    """Write the report again and print where it is."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.report", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR")
    print(write_report(parser.parse_args().directory))


if __name__ == "__main__":
    main()
