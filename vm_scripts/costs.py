"""What a run has cost so far: every machine that exists or existed, by started hours.

Owns `STATE/history.json`: when each machine of the run was made and deleted, and its price.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from nearfield.errors import DamagedArtefact
from nearfield.files import write_bytes
from vm_scripts.providers.base import Machine, now


@dataclass(frozen=True)
class Rented:
    """One machine's life; times as ISO text, `deleted` None while it exists."""

    id: str
    name: str
    kind: str
    hourly: float
    created: str
    deleted: str | None = None

    def hours(self, at: datetime) -> int:
        """Started hours until `at`, or until it was deleted; one at least."""
        end = datetime.fromisoformat(self.deleted) if self.deleted else at
        seconds = (end - datetime.fromisoformat(self.created)).total_seconds()
        return max(1, math.ceil(seconds / 3600))

    def cost(self, at: datetime) -> float:
        """In the price file's currency, before tax."""
        return self.hourly * self.hours(at)


@dataclass(frozen=True)
class Cost:
    """Of a run so far: machines, how many still exist, what they cost until now and per hour."""

    machines: tuple[Rented, ...]
    existing: int
    so_far: float
    per_hour: float
    currency: str

    def text(self) -> str:
        """One line for people."""
        return (
            f"{self.so_far:.3f} {self.currency} so far, {self.per_hour:.3f} {self.currency} an "
            f"hour from now on ({self.existing} machines exist)"
        )


def read_history(state: Path) -> list[Rented]:
    """The machines of a run that this computer knows of."""
    path = state / "history.json"
    try:
        return [Rented(**entry) for entry in json.loads(path.read_bytes())]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise DamagedArtefact(f"{path} can't be read ({error}): costs are lost with it") from error


def note(state: Path, machine: Machine, hourly: float) -> None:
    """Remember a machine that exists."""
    history = read_history(state)
    if machine.id in {entry.id for entry in history if entry.deleted is None}:
        return
    created = machine.created.isoformat()
    _write(state, [*history, Rented(machine.id, machine.name, machine.kind, hourly, created)])


def note_deleted(state: Path, machine: Machine) -> None:
    """Remember when a machine went."""
    _write(
        state,
        [
            replace(entry, deleted=now().isoformat())
            if entry.id == machine.id and entry.deleted is None
            else entry
            for entry in read_history(state)
        ],
    )


def cost_of(history: list[Rented], currency: str, at: datetime) -> Cost:
    """The sum at a time."""
    existing = [entry for entry in history if entry.deleted is None]
    return Cost(
        machines=tuple(history),
        existing=len(existing),
        so_far=sum(entry.cost(at) for entry in history),
        per_hour=sum(entry.hourly for entry in existing),
        currency=currency,
    )


def _write(state: Path, history: list[Rented]) -> None:
    content = json.dumps([asdict(entry) for entry in history], indent=1)
    write_bytes(state / "history.json", content.encode())
