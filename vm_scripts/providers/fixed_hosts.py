"""Hosts that are there already: nothing is made, nothing is deleted, nothing powers off."""

from nearfield.clusters.inventory import Inventory, read_inventory
from nearfield.clusters.prices import read_prices
from nearfield.errors import UsageError
from vm_scripts.providers.base import Machine, Wanted, now
from vm_scripts.settings import MachineSettings


class FixedHosts:
    """The hosts of an inventory."""

    makes_machines = False

    def __init__(self, settings: MachineSettings) -> None:
        self.settings = settings

    def inventory(self) -> Inventory:
        """The hosts."""
        assert self.settings.hosts is not None  # noqa: S101  (read_settings has checked it)
        return read_inventory(self.settings.base / self.settings.hosts.inventory)

    def machines(self, run: str | None = None) -> list[Machine]:
        """The hosts, as machines of this run."""
        return [
            Machine(
                name=host.name,
                run=run or self.settings.run,
                id=host.name,
                kind="any",
                state="not ours",
                created=now(),
                address=host.address,
                ssh=host.ssh_address,
                port=host.port,
                host_key=host.host_key,
            )
            for host in self.inventory().hosts
        ]

    def create(self, wanted: Wanted) -> Machine:
        """Hosts can't be made."""
        raise UsageError(f"{wanted.name}: hosts of an inventory aren't made")

    def delete(self, machine: Machine) -> None:
        """They stay."""

    def delete_rest(self, run: str) -> list[str]:
        """There is nothing else."""
        return []

    def hourly(self, kind: str) -> float:
        """What the price file says of hosts."""
        return read_prices(self.settings.price_file).of("hosts", kind).hourly
