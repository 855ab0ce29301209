"""Virtual machines on this computer: QEMU with cloud-init, without root.

Each has two network cards: one through QEMU's own network, where this computer reaches its sshd on
a port of localhost, and one on a network of the run's machines alone (multicast on localhost). They
live in the run's folder: a disk over the image, a seed with the user-data, a console log. The
machine's host key is read from its console, so nothing is trusted blindly.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from datetime import datetime
from pathlib import Path

from nearfield.clusters.prices import read_prices
from nearfield.errors import Infrastructure, MissingFile, UsageError
from nearfield.files import write_bytes
from vm_scripts.providers.base import Machine, Wanted, now
from vm_scripts.settings import MachineSettings, QemuSettings

SEED = (("user-data", "user_data"), ("meta-data", "meta"), ("network-config", "network"))
HOST_KEY = re.compile(r"^(ssh-ed25519 [A-Za-z0-9+/=]+)", re.MULTILINE)
NETWORK_CONFIG = """\
version: 2
ethernets:
  outside:
    match: {{macaddress: "{outside}"}}
    set-name: outside
    dhcp4: true
  inside:
    match: {{macaddress: "{inside}"}}
    set-name: inside
    addresses: ["{address}/16"]
"""


class LocalVms:
    """Machines in `STATE/vms/NAME/`."""

    makes_machines = True

    def __init__(self, settings: MachineSettings) -> None:
        assert settings.qemu is not None  # noqa: S101  (read_settings has checked it)
        self.settings = settings
        self.qemu: QemuSettings = settings.qemu
        self.folder = settings.state / "vms"

    def machines(self, run: str | None = None) -> list[Machine]:
        """Machines of this run whose folder is there, running or not."""
        found = [self._read(path) for path in sorted(self.folder.glob("*/machine.json"))]
        return [machine for machine in found if run in (None, machine.run)]

    def create(self, wanted: Wanted) -> Machine:
        """Start a machine and wait until its console shows its host key."""
        place = self.folder / wanted.name
        place.mkdir(parents=True)
        try:
            return self._start(wanted, place)
        except BaseException:
            self._end(place)
            raise

    def delete(self, machine: Machine) -> None:
        """End its process and remove its disk."""
        self._end(self.folder / machine.name)

    def delete_rest(self, run: str) -> list[str]:
        """There is nothing else."""
        return []

    def hourly(self, kind: str) -> float:
        """What the price file says of local machines."""
        return read_prices(self.settings.price_file).of("qemu", kind).hourly

    def _start(self, wanted: Wanted, place: Path) -> Machine:
        address = f"10.77.0.{wanted.number + 2}"
        cards = [f"52:54:00:77:0{card}:{wanted.number + 2:02x}" for card in (0, 1)]
        self._disks(wanted, place, address, cards)
        port = _free_port()
        _run(self._command(wanted, place, port, cards))
        facts = {"run": wanted.run, "created": now().isoformat(), "address": address}
        write_bytes(place / "machine.json", json.dumps(facts | {"port": port}).encode())
        self._wait_for_key(place)
        return self._read(place / "machine.json")

    def _disks(self, wanted: Wanted, place: Path, address: str, cards: list[str]) -> None:
        image = self.settings.base / self.qemu.image
        if not image.is_file():
            raise MissingFile(f"expected a disk image at {image}, found none")
        form = json.loads(_run(["qemu-img", "info", "--output=json", str(image)]))["format"]
        overlay = [
            "qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "-F",
            form,
            "-b",
            str(image.resolve()),
        ]
        _run([*overlay, str(place / "disk.qcow2"), f"{self.qemu.disk_gb}G"])
        texts = {
            "user_data": wanted.user_data,
            "meta": f"instance-id: {wanted.name}-{int(time.time())}\n"
            f"local-hostname: {wanted.name}\n",
            "network": NETWORK_CONFIG.format(outside=cards[0], inside=cards[1], address=address),
        }
        for name, text in SEED:
            (place / name).write_text(texts[text])
        _run(
            ["genisoimage", "-quiet", "-output", str(place / "seed.iso"), "-volid", "cidata",
             "-joliet", "-rock", *(str(place / name) for name, _ in SEED)]
        )  # fmt: skip

    def _command(self, wanted: Wanted, place: Path, port: int, cards: list[str]) -> list[str]:
        qemu = self.qemu
        group = f"230.77.0.1:{20000 + sum(map(ord, wanted.run)) % 10000}"
        command = [
            *("qemu-system-x86_64", "-name", f"nearfield-{wanted.name}"),
            *("-accel", qemu.accelerate, "-m", str(qemu.memory_mb), "-smp", str(qemu.cores)),
            *("-cpu", "host" if qemu.accelerate == "kvm" else "max"),
            *("-drive", f"file={place / 'disk.qcow2'},if=virtio"),
            *("-drive", f"file={place / 'seed.iso'},if=virtio,format=raw,readonly=on"),
            *("-netdev", f"user,id=outside,hostfwd=tcp:127.0.0.1:{port}-:22"),
            *("-device", f"virtio-net-pci,netdev=outside,mac={cards[0]}"),
            *("-netdev", f"socket,id=inside,mcast={group},localaddr=127.0.0.1"),
            *("-device", f"virtio-net-pci,netdev=inside,mac={cards[1]}"),
            *("-device", "virtio-rng-pci"),
            *("-display", "none", "-serial", f"file:{place / 'console.log'}"),
            *("-daemonize", "-pidfile", str(place / "pid")),
        ]
        if qemu.kernel:
            command += ["-kernel", str(self.settings.base / qemu.kernel)]
            # an emulated processor that waits for its turn fails the kernel's check of its timer
            command += ["-append", "root=/dev/vda console=ttyS0 quiet no_timer_check"]
        if qemu.initrd:
            command += ["-initrd", str(self.settings.base / qemu.initrd)]
        return command

    def _wait_for_key(self, place: Path) -> None:
        deadline = time.monotonic() + self.qemu.boot_timeout_s
        while not _host_key(place):
            if _pid(place) is None or time.monotonic() > deadline:
                end = _console(place)[-300:]
                raise Infrastructure(
                    f"the machine {place.name} ended or showed no host key within "
                    f"{self.qemu.boot_timeout_s} s; end of its console: {end!r}"
                )
            time.sleep(1)

    def _read(self, path: Path) -> Machine:
        facts = json.loads(path.read_bytes())
        return Machine(
            name=path.parent.name,
            run=facts["run"],
            id=path.parent.name,
            kind="any",
            state="off" if _pid(path.parent) is None else "running",
            created=datetime.fromisoformat(facts["created"]),
            address=facts["address"],
            ssh="127.0.0.1",
            port=facts["port"],
            host_key=_host_key(path.parent),
        )

    def _end(self, place: Path) -> None:
        pid = _pid(place)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            while _pid(place) is not None:
                time.sleep(0.05)
        shutil.rmtree(place, ignore_errors=True)


def _pid(place: Path) -> int | None:
    """The process of the machine, if it is still that one and alive."""
    try:
        pid = int((place / "pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(str(place / "pid")) in command else None


def _host_key(place: Path) -> str | None:
    found = HOST_KEY.search(_console(place))
    return found[1] if found else None


def _console(place: Path) -> str:
    try:
        return (place / "console.log").read_text(errors="replace").replace("\r", "")
    except OSError:
        return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UsageError(
            f"no {command[0]} here: install qemu-system-x86, qemu-utils and genisoimage"
        ) from error
    if done.returncode:
        raise Infrastructure(f"{command[0]} failed: {done.stderr.strip()[-300:]}")
    return done.stdout
