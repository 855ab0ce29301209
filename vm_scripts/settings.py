"""machines.toml: which machines a run gets, from whom. Unknown names are errors.

Holds no secret: the token of Hetzner Cloud comes from the environment variable HCLOUD_TOKEN.
"""

from pathlib import Path
from typing import Literal

import msgspec

from nearfield.clusters.inventory import NAME
from nearfield.clusters.prices import PRICE_FILE
from nearfield.errors import MissingFile, UsageError


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class HetznerSettings(_Section, frozen=True):
    """[hetzner]: server type, image and place as its API names them."""

    type: str = "cx43"
    image: str = "debian-12"
    location: str = "fsn1"
    zone: str = "eu-central"
    endpoint: str = "https://api.hetzner.cloud/v1"
    ssh_port: int = 22


class QemuSettings(_Section, frozen=True):
    """[qemu]: `image` is a disk image with cloud-init; `kernel` and `initrd` where it can't boot
    by itself. `accelerate`: kvm where the processor allows it, tcg (software) everywhere.
    """

    image: str
    kernel: str | None = None
    initrd: str | None = None
    memory_mb: int = 2048
    cores: int = 1
    disk_gb: int = 8
    accelerate: Literal["kvm", "tcg"] = "kvm"
    boot_timeout_s: int = 300


class HostsSettings(_Section, frozen=True):
    """[hosts]: an inventory of hosts that are there already, and stay."""

    inventory: str


class MachineSettings(_Section, frozen=True):
    """All of machines.toml. Paths count from its folder.

    run: label of everything that is made, and name of the cluster.
    workers: machines beside the head; with none, the head does it all.
    idle_minutes: a machine without a heartbeat of the driver for so long powers itself off.
    folder: on the machines; with workers, the head shares it with them over the private network.
    user: whom cloud-init makes, and who works there.
    max_hours: `rebuild` gives up after that.
    state_folder: here, for RUN.machines/ (key, inventory, credentials, history): a service that may
        not write beside its settings keeps them elsewhere.
    """

    run: str
    provider: Literal["hetzner", "hosts", "qemu"]
    workers: int = 0
    idle_minutes: int = 30
    max_hours: float = 12.0
    folder: str = "/srv/nearfield"
    python: str = "/opt/nearfield/venv/bin/python"
    user: str = "nearfield"
    prices: str | None = None
    state_folder: str = "."
    hetzner: HetznerSettings = HetznerSettings()
    hosts: HostsSettings | None = None
    qemu: QemuSettings | None = None
    base: Path = Path()

    @property
    def state(self) -> Path:
        """Where this run's key, inventory, credentials and history are kept."""
        return self.base / self.state_folder / f"{self.run}.machines"

    @property
    def price_file(self) -> Path:
        """The price file that counts."""
        return self.base / self.prices if self.prices else PRICE_FILE


def read_settings(path: Path) -> MachineSettings:
    """Read machines.toml. Raises `MissingFile`, or `UsageError` naming the wrong setting."""
    try:
        settings = msgspec.toml.decode(path.read_bytes(), type=MachineSettings)
    except FileNotFoundError as error:
        raise MissingFile(f"expected machine settings at {path}, found none") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the machine settings {path} can't be used: {error}") from error
    problem = _problem(settings)
    if problem:
        raise UsageError(f"the machine settings {path} can't be used: {problem}")
    return msgspec.structs.replace(settings, base=path.resolve().parent)


def _problem(settings: MachineSettings) -> str | None:
    if not NAME.fullmatch(settings.run):
        return f"run {settings.run!r} must be lower-case letters, digits and hyphens"
    if settings.provider != "hetzner" and getattr(settings, settings.provider) is None:
        return f"provider {settings.provider} needs a section [{settings.provider}]"
    if not NAME.fullmatch(settings.user):
        return f"user {settings.user!r} must be lower-case letters, digits and hyphens"
    if settings.workers < 0 or settings.idle_minutes < 5:
        return "expected workers of at least 0 and idle_minutes of at least 5"
    if not settings.folder.startswith("/") or any(c in settings.folder for c in " \"'$`\\\n"):
        return f"folder must be a plain absolute path, got {settings.folder!r}"
    return None
