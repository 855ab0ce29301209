"""Loading a finished run into Postgres, and publishing it."""

from dataclasses import dataclass

from nearfield.run import Run


@dataclass(frozen=True)
class LoadReport:
    """What a load did. `bytes`: what the copy sent; 0 and `already_loaded` if it was there."""

    run_id: int
    rows: int
    seconds: float
    bytes: int
    already_loaded: bool
    forced: bool
    dropped_runs: tuple[int, ...]
    notes: tuple[str, ...]


def load_run(run: Run, dsn: str, *, force: bool = False, labels: bool = True) -> LoadReport:
    """Load the run's matrix and recordings, check them, and publish them."""
    raise NotImplementedError
