"""Small sources that the tests of ingest write, and short ways to ingest and look at them."""

import csv
from pathlib import Path
from typing import Any

from nearfield.ingest import ingest
from nearfield.ingest.options import IngestOptions, TableOptions
from nearfield.vectorset import VectorSet, open_vector_set


def write_text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def options(
    *, scale: str | None = "none", max_rejected: float = 0.5, **choices: Any
) -> IngestOptions:
    """Options with the table's choices given by name; unscaled, so that values can be compared."""
    own = {
        name: choices.pop(name) for name in list(choices) if name in IngestOptions.__annotations__
    }
    return IngestOptions(
        max_rejected=max_rejected, tables=TableOptions(scale=scale, **choices), **own
    )


def ingested(*sources: Path, out: Path | None = None, **choices: Any) -> VectorSet:
    target = out or sources[0].parent / "vectors"
    ingest(sources, target, options(**choices))
    return open_vector_set(target)


def rejects_of(vector_set: VectorSet) -> list[dict[str, str]]:
    with (vector_set.path / "rejects.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))
