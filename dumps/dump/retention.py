"""Which old dumps go: a policy as data, a pure function of names, and the deletion apart.

Owns the policy. Never names what isn't a dump's name, and never the newest dump.
"""

import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path

from dumps.dump.names import DumpName, new_temporary, parse_name
from nearfield.errors import UsageError
from nearfield.files import fsync_path


@dataclass(frozen=True)
class Keep:
    """How many dumps stay: the `newest`, and the newest of each of the last so many days, ...

    Periods without a dump don't count: `monthly` 12 keeps twelve dumps, however old.
    """

    newest: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0


_PERIOD: dict[str, Callable[[datetime], object]] = {
    "newest": lambda begun: begun,
    "daily": lambda begun: begun.date(),
    "weekly": lambda begun: begun.isocalendar()[:2],
    "monthly": lambda begun: (begun.year, begun.month),
}


def parse_keep(text: str) -> Keep:
    """A policy as it is written: `3`, or `newest=3,daily=7,monthly=12`.

    Raises `UsageError`, also for a policy that would keep nothing.
    """
    known = [field.name for field in fields(Keep)]
    chosen: dict[str, int] = {}
    for part in text.split(","):
        found = re.fullmatch(r"(?:(\w+)=)?(\d+)", part.strip(), re.ASCII)
        name = (found[1] or "newest") if found else ""
        if found is None or name not in known or name in chosen:
            raise UsageError(
                f"expected --keep as a number or as {', '.join(f'{name}=N' for name in known)}, "
                f"got {text!r}"
            )
        chosen[name] = int(found[2])
    if not any(chosen.values()):
        raise UsageError(f"--keep {text} would keep no dump: keep at least one")
    return Keep(**chosen)


def superseded(names: Iterable[str], keep: Keep) -> list[str]:
    """Names of the dumps that `keep` lets go, oldest first; other names are passed over.

    Dumps of different k are one sequence. The newest dump always stays.
    """
    dumps = sorted({name for name in map(parse_name, names) if name}, reverse=True)
    staying = set(dumps[:1])
    for field in fields(keep):
        staying |= _newest_of_each(dumps, _PERIOD[field.name], getattr(keep, field.name))
    return [str(name) for name in reversed(dumps) if name not in staying]


def _newest_of_each(
    dumps: Sequence[DumpName], period: Callable[[datetime], object], most: int
) -> set[DumpName]:
    """The first dump of each period, of the first `most` periods; dumps are newest first."""
    chosen: dict[object, DumpName] = {}
    for name in dumps:
        if len(chosen) < most:
            chosen.setdefault(period(name.begun), name)
    return set(chosen.values())


def delete(directory: Path, names: Iterable[str]) -> None:
    """Delete dumps: each vanishes whole, by a rename, before its files go. Needs the lock."""
    for name in names:
        hidden = new_temporary(directory, name)
        (directory / name).rename(hidden)
        fsync_path(directory)
        shutil.rmtree(hidden)
