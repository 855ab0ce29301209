"""The inventory: one TOML file that names the hosts of a cluster, shared with `vm_scripts/`.

Owns the file's format and its checks. Holds no secret: keys are named by path.
"""

import re
from pathlib import Path
from typing import Literal

import msgspec

from nearfield.errors import MissingFile, UsageError
from nearfield.files import write_bytes

Role = Literal["scheduler", "worker", "both"]
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
ADDRESS = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:_-]*")
"""What may stand in a command: nothing that a shell or ssh would take for something else."""


class Host(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One host. `address`: how the other hosts reach it; `ssh`: how this machine does (default
    the same). `cores` limits workers and their threads, `memory` ("12GiB") what they may use
    together. `workers`: processes, default one per core; with more, some compute while others wait
    for a shared folder. `interface`: bind to it instead of to `address`. `host_key`: as in
    known_hosts, type and key.
    """

    name: str
    address: str
    role: Role = "worker"
    user: str | None = None
    ssh: str | None = None
    port: int = 22
    cores: int | None = None
    workers: int | None = None
    memory: str | None = None
    interface: str | None = None
    host_key: str | None = None

    @property
    def ssh_address(self) -> str:
        """Where ssh connects to."""
        return self.ssh or self.address

    @property
    def memory_bytes(self) -> int:
        """What its workers may use together; 0 where that isn't said, or is no size."""
        from dask.utils import parse_bytes

        try:
            return int(parse_bytes(self.memory or 0))
        except ValueError:
            return 0

    @property
    def works(self) -> bool:
        """Whether it gets a worker."""
        return self.role != "scheduler"


class Inventory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cluster's hosts. Paths count from the folder of the file, `folder` and `python` are paths
    on the hosts (a relative `folder` counts from the user's home).

    trust_new_hosts: accept a host key that is in no file at the first contact, and remember it.
    start_timeout_s: how long scheduler and workers may take to come up, each.
    tcp_timeout_s: how long a silent connection counts as alive; Dask refuses less than 11.
    """

    name: str
    hosts: list[Host]
    python: str = "/opt/nearfield/venv/bin/python"
    folder: str = ".nearfield"
    scheduler_port: int = 8786
    dashboard_port: int = 8787
    identity: str | None = None
    known_hosts: str | None = None
    trust_new_hosts: bool = False
    tls: bool = True
    tcp_timeout_s: int = 30
    worker_ttl_s: int = 1800
    no_workers_timeout_s: int = 600
    start_timeout_s: int = 90
    base: Path = Path()

    @property
    def scheduler(self) -> Host:
        """The host that the scheduler runs on."""
        return next(host for host in self.hosts if host.role != "worker")

    @property
    def workers(self) -> list[Host]:
        """The hosts that workers run on."""
        return [host for host in self.hosts if host.works]

    @property
    def address(self) -> str:
        """The scheduler's address for workers and clients."""
        protocol = "tls" if self.tls else "tcp"
        host = self.scheduler.address
        literal = f"[{host}]" if ":" in host else host
        return f"{protocol}://{literal}:{self.scheduler_port}"


def read_inventory(path: Path) -> Inventory:
    """Read and check an inventory. Raises `MissingFile`, or `UsageError` naming what is wrong."""
    try:
        inventory = msgspec.toml.decode(path.read_bytes(), type=Inventory)
    except FileNotFoundError as error:
        raise MissingFile(f"expected an inventory of hosts at {path}, found none") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the inventory {path} can't be used: {error}") from error
    problems = list(_problems(inventory))
    if problems:
        raise UsageError(f"the inventory {path} can't be used: {'; '.join(problems)}")
    return msgspec.structs.replace(inventory, base=path.resolve().parent)


def write_inventory(path: Path, inventory: Inventory) -> None:
    """Write an inventory that `read_inventory` gives back."""
    import tomli_w

    content = msgspec.to_builtins(inventory, enc_hook=str)
    del content["base"]
    content["hosts"] = [_without_none(host) for host in content["hosts"]]
    write_bytes(path, tomli_w.dumps(_without_none(content)).encode())


def _without_none(values: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}


def _problems(inventory: Inventory) -> list[str]:
    found = []
    if not NAME.fullmatch(inventory.name):
        found.append(f"the name {inventory.name!r} must be lower-case letters, digits and hyphens")
    names = [host.name for host in inventory.hosts]
    if len(set(names)) != len(names):
        found.append("two hosts have the same name")
    schedulers = [host.name for host in inventory.hosts if host.role != "worker"]
    if len(schedulers) != 1:
        found.append(f"expected one host with role scheduler or both, got {len(schedulers)}")
    if not inventory.workers:
        found.append("no host has the role worker or both")
    if inventory.tcp_timeout_s < 11:
        found.append("tcp_timeout_s must be at least 11")
    for host in inventory.hosts:
        texts = (host.name, host.address, host.ssh, host.user, host.interface)
        found += [
            f"{text!r} of {host.name!r} is no name or address"
            for text in texts
            if text is not None and not ADDRESS.fullmatch(text)
        ]
        if host.memory is not None and not host.memory_bytes:
            found.append(f"the memory {host.memory!r} of {host.name} is no size such as 24GiB")
        for what, count in (("cores", host.cores), ("workers", host.workers)):
            if count is not None and count < 1:
                found.append(f"{host.name} has {count} {what}")
    return found
