"""From recordings to a vector set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nearfield import ingest as reading
from nearfield.copies import open_vector_set, send_folder
from nearfield.ingest import IngestReport
from nearfield.ingest.options import IngestOptions
from nearfield.locations import location, scratch_folder
from nearfield.lock import held
from nearfield.machine import available_cores


def ingest(
    sources: Sequence[Path | str] | Path | str,
    out: Path | str,
    options: IngestOptions | None = None,
    *,
    extend: Path | str | None = None,
) -> IngestReport:
    """Turn recordings into the vector set `out`; see `nearfield.ingest.ingest` for what it raises.

    sources: one path or several of one kind. out: a path, or the URL of an object store. extend: a
    vector set, likewise, whose recordings come first, at the rows that they have there.
    """
    paths = [Path(path) for path in ([sources] if isinstance(sources, Path | str) else sources)]
    chosen = options or IngestOptions(workers=available_cores())
    base = None if extend is None else open_vector_set(extend).path
    place = location(out)
    if isinstance(place, Path):
        return reading.ingest(paths, place, chosen, extend=base)
    with held(place) as check, scratch_folder() as folder:
        made = folder / "vectors"
        report = reading.ingest(paths, made, chosen, extend=base)
        check()
        send_folder(made, place, check)
    return replace(report, path=place, rejects_file=place / report.rejects_file.name)
