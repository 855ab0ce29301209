"""Names of dumps and of the files in them: the only place that spells or parses them.

DIR/nearfield-matrix-20261121-093000-k100/    a dump; the time (UTC) at which it was begun
DIR/.nearfield-matrix-...-k100.partial-...    one that is being written, or deleted
DIR/LATEST                                    the name of the newest dump, written last
"""

import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nearfield.files import TEMPORARY_MARK

LATEST = "LATEST"
SUMS = "SHA256SUMS"
README = "README.md"
LICENCE = "LICENSE.txt"
PROVENANCE = "provenance.json"
DATAPACKAGE = "datapackage.json"
CROISSANT = "croissant.json"
HDF5 = "matrix.h5"
PARQUET = "matrix.parquet"
FLAT = "matrix-flat.parquet"
CSV = "matrix.csv.zst"
RECORDINGS = "recordings.parquet"
RECORDINGS_CSV = "recordings.csv.zst"
SAMPLE = "sample.parquet"

_NAME = re.compile(r"nearfield-matrix-(\d{8}-\d{6})-k(\d+)", re.ASCII)
_TEMPORARY = re.compile(rf"\.{_NAME.pattern}{re.escape(TEMPORARY_MARK)}[0-9a-f]{{12}}", re.ASCII)
_STAMP = "%Y%m%d-%H%M%S"


@dataclass(frozen=True, order=True)
class DumpName:
    """When a dump was begun (UTC, whole seconds) and its neighbours per recording."""

    begun: datetime
    k: int

    def __str__(self) -> str:
        return f"nearfield-matrix-{self.begun.strftime(_STAMP)}-k{self.k}"


def parse_name(name: str) -> DumpName | None:
    """The dump of that name; None for any other name, were it ever so similar."""
    found = _NAME.fullmatch(name)
    if not found:
        return None
    try:
        begun = datetime.strptime(found[1], _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None
    parsed = DumpName(begun, int(found[2]))
    return parsed if str(parsed) == name else None


def new_temporary(directory: Path, name: str) -> Path:
    """A path in `directory` for a dump that is being written or deleted; nobody sees it."""
    return directory / f".{name}{TEMPORARY_MARK}{uuid.uuid4().hex[:12]}"


def temporaries(directory: Path) -> list[Path]:
    """What interrupted writers and deletions left in `directory`."""
    return [path for path in directory.iterdir() if _TEMPORARY.fullmatch(path.name)]


def dumps_in(directory: Path) -> list[str]:
    """Names of the dumps in `directory`, oldest first."""
    named = (parse_name(path.name) for path in directory.iterdir() if path.is_dir())
    return [str(name) for name in sorted(name for name in named if name)]
