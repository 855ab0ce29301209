"""Asking the published matrix, for commands and for Python; SQL users call the same functions."""

from dataclasses import dataclass
from typing import Any

from dumps.postgres.connection import connected


@dataclass(frozen=True)
class Neighbour:
    """One neighbour: rank from 1, public id, distance in the run's space, its labels."""

    rank: int
    recording_id: str
    distance: float
    labels: dict[str, Any]


def similar(dsn: str, recording_id: str, k: int = 10) -> list[Neighbour]:
    """The k nearest recordings, nearest first; fewer when the published lists are shorter.

    Raises `InputRejected` for an unknown recording or k < 1, `UsageError` when nothing is
    published, `DatabaseError`. Cost: k + 2 index lookups.
    """
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT rank, recording_id, distance, labels FROM nearfield.similar_recordings(%s, %s)",
            (recording_id, k),
        )
        return [Neighbour(*row) for row in cursor.fetchall()]


def recording_labels(dsn: str, recording_id: str) -> dict[str, Any] | None:
    """Labels of one published recording; None where there is none of that id."""
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT labels FROM nearfield.recordings WHERE recording_id = %s", (recording_id,)
        )
        found = cursor.fetchone()
    return None if found is None else found[0]
