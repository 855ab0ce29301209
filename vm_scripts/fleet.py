"""The machines of a run: up, status, down, cost.

Owns the order, that nothing is made twice, and that what fails midway is deleted again. State lies
in `RUN.machines/`: the run's SSH key, the inventory, credentials, history of costs.
"""

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nearfield.clusters.inventory import Host, Inventory, read_inventory, write_inventory
from nearfield.clusters.prices import read_prices
from nearfield.clusters.ssh import Shell, forget_host_key, shell_for
from nearfield.errors import Infrastructure, NearfieldError, RunLocked
from nearfield.interrupts import finished_first
from nearfield.lock import locked
from vm_scripts import costs, remote
from vm_scripts.costs import Cost
from vm_scripts.providers.base import Machine, Provider, Wanted, now, owner_of, provider_for
from vm_scripts.providers.fixed_hosts import FixedHosts
from vm_scripts.settings import MachineSettings
from vm_scripts.user_data import user_data

READY_TIMEOUT_S = 900
POLL_S = 3.0


@dataclass(frozen=True)
class Fleet:
    """The machines of a run that exist, machines of other runs, and the cost so far."""

    run: str
    machines: tuple[Machine, ...]
    others: tuple[Machine, ...]
    cost: Cost
    deleted: tuple[str, ...] = ()


def plan(settings: MachineSettings) -> list[dict[str, object]]:
    """What `up` would make, with prices; nothing is made."""
    provider = provider_for(settings)
    if isinstance(provider, FixedHosts):
        hourly = provider.hourly("any")
        return [{"machine": m.name, "exists": True, "hourly": hourly} for m in provider.machines()]
    existing = {machine.name for machine in provider.machines(settings.run)}
    kind = _kind(settings)
    hourly = provider.hourly(kind)
    names = [_wanted(settings, number, "", "").name for number in range(settings.workers + 1)]
    return [
        {"machine": name, "type": kind, "exists": name in existing, "hourly": hourly}
        for name in names
    ]


def up(settings: MachineSettings) -> Inventory:
    """Make the machines that are missing, wait until all can work; the inventory of all of them.

    Raises `Infrastructure`; machines that this call made are deleted then, and those that can't be
    are named on standard error.
    """
    provider = provider_for(settings)
    state = settings.state
    with locked(state):
        if isinstance(provider, FixedHosts):
            inventory = provider.inventory()
            write_inventory(state / "inventory.toml", _absolute(inventory))
            shell = shell_of(settings)
            remote.share_folder(shell, settings.folder, mount=False)
            for machine in provider.machines():
                costs.note(state, machine, provider.hourly(machine.kind))
            return shell.inventory
        made: list[Machine] = []
        before = provider.machines(settings.run)
        _refuse_others(settings, before)
        try:
            machines = _existing_or_made(settings, provider, before, made)
            inventory = _inventory(settings, machines)
            write_inventory(state / "inventory.toml", inventory)
            shell = shell_of(settings)
            _everywhere(shell, lambda host: _ready(shell, host, settings.folder))
            with remote.beating(shell):
                _everywhere(shell, lambda host: remote.install(shell, host))
                remote.share_folder(shell, settings.folder, mount=True)
        except BaseException:
            with finished_first("deleting the machines that were made"):
                left = _delete_all(settings, provider, _new(settings, provider, before, made))
                if left:
                    print(_may_exist(left), file=sys.stderr)
            raise
    return shell.inventory


def shell_of(settings: MachineSettings) -> Shell:
    """SSH to the machines of the run that `up` has made."""
    inventory = read_inventory(settings.state / "inventory.toml")
    return shell_for(inventory, settings.state)


def status(settings: MachineSettings) -> Fleet:
    """What exists and what it costs, asked from the provider."""
    provider = provider_for(settings)
    return _fleet(settings, provider)


def down(settings: MachineSettings, *, all_runs: bool = False, only_own: bool = False) -> Fleet:
    """Delete the run's machines, also those that this computer knows nothing of; or of all runs.

    only_own: but for those that another computer has made, which may work there.

    Machines are found by label, so those of a driver that died are found too. Raises
    `Infrastructure` naming what still exists.
    """
    provider = provider_for(settings)
    with locked(settings.state):
        existing = provider.machines(None if all_runs else settings.run)
        found = [it for it in existing if not only_own or _is_own(settings, it)]
        ours = found if provider.makes_machines else []
        for machine in [] if provider.makes_machines else found:
            costs.note_deleted(settings.state, machine)  # it stays, and costs the run no more
        failed = _delete_all(settings, provider, ours)
        deleted = [machine.name for machine in ours]
        if not failed:
            runs = {settings.run, *(it.run for it in found)}
            deleted += _rest_deleted(
                provider, runs - {it.run for it in existing if it not in found}
            )
        fleet = _fleet(settings, provider, tuple(deleted))
    here = [it.name for it in fleet.machines if not only_own or _is_own(settings, it)]
    if failed or (provider.makes_machines and here):
        raise Infrastructure(_may_exist(failed or here))
    return fleet


def cost_so_far(settings: MachineSettings) -> Cost:
    """Of the machines that this computer has seen, without asking anybody."""
    currency = read_prices(settings.price_file).currency
    return costs.cost_of(costs.read_history(settings.state), currency, now())


def left_over(settings: MachineSettings, why: Exception) -> str:
    """What to say when machines can't be deleted, as far as this computer remembers them."""
    try:
        known = costs.read_history(settings.state)
    except NearfieldError:
        known = []
    names = [one.name for one in known if one.deleted is None]
    return f"{_may_exist(names or [f'those of {settings.run}'])} ({why})"


def _rest_deleted(provider: Provider, runs: set[str]) -> list[str]:
    """What belongs to runs beside machines costs nothing: no reason to fail."""
    deleted: list[str] = []
    for run in runs:
        try:
            deleted += provider.delete_rest(run)
        except Infrastructure as error:
            print(f"{error}; it costs nothing, the next `down` tries again", file=sys.stderr)
    return deleted


def _new(
    settings: MachineSettings, provider: Provider, before: list[Machine], made: list[Machine]
) -> list[Machine]:
    """What was made, and what exists now of the run and didn't: a request whose answer was lost."""
    known = {machine.id for machine in (*before, *made)}
    try:
        found = provider.machines(settings.run)
    except (NearfieldError, OSError) as error:
        print(f"what else exists is not known: {error}", file=sys.stderr)
        return made
    return [*made, *(it for it in found if it.id not in known and _is_own(settings, it))]


def _is_own(settings: MachineSettings, machine: Machine) -> bool:
    """Whether this computer's key gets in; where nobody knows, it counts as ours."""
    return machine.owner in ("", owner_of(_key(settings.state)))


def _refuse_others(settings: MachineSettings, existing: list[Machine]) -> None:
    others = [machine.name for machine in existing if not _is_own(settings, machine)]
    if others:
        raise RunLocked(
            f"{', '.join(others)} of the run {settings.run} were made by another computer, whose "
            f"key isn't in {settings.state}: wait until it is done, name another run, or delete "
            "them with vm_scripts/down"
        )


def _may_exist(machines: list[str]) -> str:
    return (
        f"these machines may still exist and cost money: {', '.join(machines)}. "
        "Run vm_scripts/down again, or delete them in the provider's console"
    )


def _fleet(settings: MachineSettings, provider: Provider, deleted: tuple[str, ...] = ()) -> Fleet:
    found = provider.machines()
    ours = tuple(machine for machine in found if machine.run == settings.run)
    if provider.makes_machines:
        for machine in ours:
            costs.note(settings.state, machine, provider.hourly(machine.kind))
        _note_vanished(settings, ours)
    return Fleet(
        run=settings.run,
        machines=ours,
        others=tuple(machine for machine in found if machine.run != settings.run),
        cost=cost_so_far(settings),
        deleted=deleted,
    )


def _note_vanished(settings: MachineSettings, existing: tuple[Machine, ...]) -> None:
    """Machines that somebody else deleted."""
    ids = {machine.id for machine in existing}
    for entry in costs.read_history(settings.state):
        if entry.deleted is None and entry.id not in ids:
            gone = Machine(entry.name, settings.run, entry.id, entry.kind, "gone", now(), "", "")
            costs.note_deleted(settings.state, gone)


def _existing_or_made(
    settings: MachineSettings, provider: Provider, before: list[Machine], made: list[Machine]
) -> list[Machine]:
    public_key = _key(settings.state)
    text = user_data(
        public_key=public_key,
        idle_minutes=settings.idle_minutes,
        folder=settings.folder,
        user=settings.user,
    )
    existing = {machine.name: machine for machine in before}
    hourly = provider.hourly(_kind(settings))
    machines = []
    for number in range(settings.workers + 1):
        wanted = _wanted(settings, number, text, public_key)
        machine = existing.get(wanted.name)
        if machine is not None and machine.state == "off":
            # the dead-man switch took it; its disk may be in any state
            _delete(settings, provider, machine)
            machine = None
        if machine is None:
            print(f"making {wanted.name}", file=sys.stderr)
            machine = provider.create(wanted)
            made.append(machine)
            # its address may have been another's, whose deletion this computer didn't see
            _forget_key(settings, machine)
            costs.note(settings.state, machine, hourly)
        machines.append(machine)
    return machines


def _wanted(settings: MachineSettings, number: int, text: str, key: str) -> Wanted:
    return Wanted(settings.run, number, text, key)


def _kind(settings: MachineSettings) -> str:
    return settings.hetzner.type if settings.provider == "hetzner" else "any"


def _delete_all(
    settings: MachineSettings, provider: Provider, machines: list[Machine]
) -> list[str]:
    """Delete every one, whatever becomes of the others; those that failed, with the reason."""
    failed = []
    for machine in machines:
        try:
            _delete(settings, provider, machine)
        except (NearfieldError, OSError) as error:
            failed.append(f"{machine.name} ({error})")
    return failed


def _delete(settings: MachineSettings, provider: Provider, machine: Machine) -> None:
    print(f"deleting {machine.name}", file=sys.stderr)
    provider.delete(machine)
    _forget_key(settings, machine)
    costs.note_deleted(settings.state, machine)


def _forget_key(settings: MachineSettings, machine: Machine) -> None:
    for state in (settings.state, settings.state / "cluster"):
        forget_host_key(state, machine.ssh, machine.port)


def _key(state: Path) -> str:
    """The run's own SSH key, made when it isn't there; its public half."""
    path = state / "id_ed25519"
    if not path.exists():
        from nearfield.clusters.certificates import write_ssh_key

        write_ssh_key(path)
    return path.with_suffix(".pub").read_text().strip()


def _inventory(settings: MachineSettings, machines: list[Machine]) -> Inventory:
    alone = len(machines) == 1
    hosts = [
        Host(
            name=machine.name,
            address=machine.address,
            ssh=machine.ssh,
            port=machine.port,
            user=settings.user,
            # the head works too: its cores are paid for
            role="both" if place == 0 else "worker",
            host_key=machine.host_key,
        )
        for place, machine in enumerate(machines)
    ]
    return Inventory(
        name=settings.run,
        hosts=hosts,
        python=settings.python,
        identity=str(settings.state / "id_ed25519"),
        # a cloud tells nobody its host keys: the first contact decides, and is said
        trust_new_hosts=not all(machine.host_key for machine in machines),
        tls=not alone,
        start_timeout_s=300,
    )


def _absolute(inventory: Inventory) -> Inventory:
    import msgspec

    paths = {
        name: str(inventory.base / Path(value).expanduser())
        for name in ("identity", "known_hosts")
        if (value := getattr(inventory, name))
    }
    return msgspec.structs.replace(inventory, **paths)


def _ready(shell: Shell, host: Host, folder: str) -> None:
    """Wait until sshd answers and cloud-init has done its part."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            answer = shell.run(host, remote.ready_script(folder), timeout_s=60).strip()
        except Infrastructure as error:
            answer = str(error)
        if answer == "ready":
            return
        if time.monotonic() > deadline or answer.startswith("failed"):
            raise Infrastructure(f"{host.name} isn't ready after its start: {answer}")
        time.sleep(POLL_S)


def _everywhere(shell: Shell, function: Callable[[Host], None]) -> None:
    hosts = shell.inventory.hosts
    with ThreadPoolExecutor(max_workers=len(hosts)) as pool:
        for future in [pool.submit(function, host) for host in hosts]:
            future.result()
