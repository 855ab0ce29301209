"""What a provider must be able to do, and what a machine is.

Every machine carries the label of its run, so that it can be found when all else is forgotten.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from vm_scripts.settings import MachineSettings

SSH_PORT = 22


@dataclass(frozen=True)
class Machine:
    """A machine that exists. `ssh`: how this computer reaches it; `address`: how the others do.

    `state` in the provider's words; whatever it is, a machine that exists may cost money.
    `host_key`: where the provider could tell it without trusting the first contact. `owner`: of
    whose key it was made for (`owner_of`), "" where the provider can't tell.
    """

    name: str
    run: str
    id: str
    kind: str
    state: str
    created: datetime
    address: str
    ssh: str
    port: int = SSH_PORT
    host_key: str | None = None
    owner: str = ""


@dataclass(frozen=True)
class Wanted:
    """What to make: the machine `number` of the run; 0 is the head."""

    run: str
    number: int
    user_data: str
    public_key: str

    @property
    def name(self) -> str:
        """Unique, and the same every time."""
        return f"{self.run}-{self.number or 'head'}"


class Provider(Protocol):
    """Makes, lists and deletes machines. All raise `Infrastructure` when the provider can't."""

    makes_machines: bool
    """False for hosts that were there before and stay."""

    def machines(self, run: str | None = None) -> list[Machine]:
        """All machines of the run, or of any run, that exist now."""
        ...

    def create(self, wanted: Wanted) -> Machine:
        """Make a machine and wait until it runs; one that fails halfway is deleted again."""
        ...

    def delete(self, machine: Machine) -> None:
        """Delete it; deleting what is gone is fine."""
        ...

    def delete_rest(self, run: str) -> list[str]:
        """Delete what belongs to the run beside machines (keys, networks); names of what went."""
        ...

    def hourly(self, kind: str) -> float:
        """Price of a machine of that type for an hour, in the price file's currency."""
        ...


def provider_for(settings: MachineSettings) -> Provider:
    """The provider that the settings name."""
    from vm_scripts.providers.fixed_hosts import FixedHosts
    from vm_scripts.providers.hetzner import Hetzner
    from vm_scripts.providers.local_vms import LocalVms

    if settings.provider == "hetzner":
        return Hetzner(settings)
    return LocalVms(settings) if settings.provider == "qemu" else FixedHosts(settings)


def owner_of(public_key: str) -> str:
    """What stands for the computer that has the key to a machine, fit for a label."""
    return hashlib.sha256(public_key.encode()).hexdigest()[:16]


def now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)
