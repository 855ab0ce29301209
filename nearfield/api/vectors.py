"""From recordings to a vector set."""

from collections.abc import Sequence
from pathlib import Path

from nearfield import ingest as reading
from nearfield.cluster import available_cores
from nearfield.ingest import IngestReport
from nearfield.ingest.options import IngestOptions


def ingest(
    sources: Sequence[Path | str] | Path | str,
    out: Path | str,
    options: IngestOptions | None = None,
    *,
    extend: Path | str | None = None,
) -> IngestReport:
    """Turn recordings into the vector set `out`; see `nearfield.ingest.ingest` for what it raises.

    sources: one path or several of one kind. extend: a vector set whose recordings come first, at
    the rows that they have there.
    """
    paths = [sources] if isinstance(sources, Path | str) else sources
    return reading.ingest(
        [Path(path) for path in paths],
        Path(out),
        options or IngestOptions(workers=available_cores()),
        extend=None if extend is None else Path(extend),
    )
