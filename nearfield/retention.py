"""Which runs of a job stay.

Owns the list of what a job has made where others may have runs, and the removal of old ones.
Refuses to remove what somebody uses, or what it doesn't know to be the job's.

    FOLDER/runs.json    {place of the runs: their names}, for places outside of the job's folder
"""

import json
import sys
from pathlib import Path

from nearfield.errors import DamagedArtefact, RunLocked
from nearfield.files import modified, remove_tree, write_bytes
from nearfield.locations import Location
from nearfield.lock import held, is_held

LIST = "runs.json"


def note_run(folder: Path, run: Location) -> None:
    """Remember a run that the job in `folder` is about to make; nothing to do within `folder`.

    What isn't there any more is forgotten. Raises `DamagedArtefact`.
    """
    if _within(folder, run):
        return
    noted, place = _noted(folder), run.parent
    there = [name for name in noted.get(str(place), []) if name != run.name]
    there = [name for name in there if (place / name / "run.json").is_file()]
    write_bytes(
        folder / LIST, json.dumps(noted | {str(place): [*there, run.name]}, indent=2).encode()
    )


def keep_newest(folder: Path, current: Location, keep: int) -> None:
    """Remove old runs of the job in `folder`: `current` and the newest stay, `keep` in all.

    One that is in use stays too, and is named on standard error: it goes another time.
    """
    place = current.parent
    made: list[Location] = (
        [*place.glob("*")]
        if _within(folder, current)
        else [place / name for name in _noted(folder).get(str(place), [])]
    )
    others = [run for run in made if run != current and (run / "run.json").is_file()]
    others.sort(key=lambda run: modified(run / "run.json"), reverse=True)
    for run in others[max(0, keep - 1) :]:
        try:
            with held(run):
                _check_not_served(run)
                _remove(run)
        except RunLocked as error:
            print(f"an old run stays for now: {error}", file=sys.stderr)


def _check_not_served(run: Location) -> None:
    """Raise `RunLocked` while an embedded server runs on the database of the run."""
    lock = run / "postgres" / "running.lock"
    if isinstance(lock, Path) and is_held(lock):
        raise RunLocked(f"the database in {lock.parent} is in use")


def _remove(run: Location) -> None:
    """All of it, run.json last: it tells the next call what an interrupted one has left."""
    for entry in run.glob("*"):
        if entry.name == "run.json":
            continue
        if entry.is_file():
            entry.unlink(missing_ok=True)
        else:
            remove_tree(entry)
    remove_tree(run)


def _within(folder: Path, run: Location) -> bool:
    """All runs there are the job's: one job at a time has the folder."""
    return isinstance(run, Path) and run.resolve().is_relative_to(folder.resolve())


def _noted(folder: Path) -> dict[str, list[str]]:
    path = folder / LIST
    try:
        return {str(place): list(names) for place, names in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise DamagedArtefact(
            f"{path} can't be read ({error}): remove it; runs that it named aren't removed then"
        ) from error
