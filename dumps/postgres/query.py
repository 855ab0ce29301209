"""Asking the published matrix, for commands and for Python; SQL users call the same functions."""

from dataclasses import dataclass
from typing import Any

from dumps.postgres.connection import connected
from nearfield.errors import InputRejected

GREATEST_INT = 2**31 - 1


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
    _check_text(recording_id)
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT rank, recording_id, distance, labels FROM nearfield.similar_recordings(%s, %s)",
            (recording_id, min(k, GREATEST_INT)),
        )
        return [Neighbour(*row) for row in cursor.fetchall()]


def _check_text(recording_id: str) -> None:
    """Postgres holds no text with a character 0 or half a character, so no id is one."""
    if "\0" in recording_id or any("\ud800" <= letter <= "\udfff" for letter in recording_id):
        raise InputRejected(f"unknown recording: {recording_id!r} isn't UTF-8 text")
