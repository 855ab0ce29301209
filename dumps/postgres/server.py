"""Where the matrix' database is: a given server, or one embedded in a run's directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def database(dsn: str | None, directory: Path | None) -> Iterator[str]:
    """Yield a DSN: `dsn`, else NEARFIELD_DSN, else the embedded server's in `directory`."""
    raise NotImplementedError


def find_embedded(start: Path) -> Path:
    """The one embedded database in `start` or one of its folders."""
    raise NotImplementedError
