"""The table of all outcomes of a benchmark, as Parquet and as CSV with the same columns.

Owns both files and their types; a list column is written into CSV with semicolons between.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.results.outcome import COLUMNS, Outcome, Status
from nearfield.errors import DamagedArtefact, MissingFile
from nearfield.files import atomic_path

PARQUET = "outcomes.parquet"
CSV = "outcomes.csv"
_TYPES: dict[Any, pa.DataType] = {
    int: pa.int64(),
    int | None: pa.int64(),
    float | None: pa.float64(),
    bool: pa.bool_(),
    tuple[float, ...]: pa.list_(pa.float64()),
}
SCHEMA = pa.schema([(field.name, _TYPES.get(field.type, pa.string())) for field in fields(Outcome)])


def write_table(directory: Path, outcomes: Iterable[Outcome]) -> None:
    """Write `outcomes.parquet` and `outcomes.csv` into `directory`, each atomically."""
    ordered = sorted(outcomes, key=_order)
    rows = [asdict(outcome) | {"status": str(outcome.status)} for outcome in ordered]
    with atomic_path(directory / PARQUET) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary, compression="zstd")
    with atomic_path(directory / CSV) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _text(value) for name, value in row.items()} for row in rows)


def read_table(directory: Path) -> list[Outcome]:
    """The outcomes of a benchmark's directory. Raises `MissingFile` or `DamagedArtefact`."""
    path = directory / PARQUET
    try:
        rows = pq.read_table(path).to_pylist()
        return [outcome_from(row) for row in rows]
    except FileNotFoundError as error:
        raise MissingFile(
            f"expected the table of a benchmark at {path}, found none. "
            "Make one with: nearfield bench VECTORS --out DIR"
        ) from error
    except (pa.ArrowInvalid, OSError, TypeError, ValueError) as error:
        raise DamagedArtefact(
            f"{path} can't be read ({error}): run the benchmark again, finished measurements "
            "are kept"
        ) from error


def outcome_from(row: dict[str, Any]) -> Outcome:
    """An outcome out of a mapping of column names, as in the table or in a result file."""
    lists: dict[str, Sequence[float]] = {
        name: tuple(row[name]) for name in ("repetition_seconds", "repetition_recalls")
    }
    return Outcome(**{**row, **lists, "status": Status(row["status"])})


def _order(outcome: Outcome) -> tuple[Any, ...]:
    place = (outcome.n, outcome.workload, outcome.k, outcome.batch)
    return (*place, outcome.method, outcome.build, outcome.search, outcome.memory_limit_bytes or 0)


def _text(value: Any) -> Any:
    return ";".join(map(repr, value)) if isinstance(value, tuple | list) else value
