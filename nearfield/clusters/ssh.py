"""Commands on a host through the system's ssh client, which knows the user's keys and agents.

A script and everything secret goes over standard input; the command line holds `sh -s` and nothing
else. Host keys are checked: against those of the inventory, or the user's known_hosts. A file of
ours names hosts in clear, since an address that a machine gave back must be found in it again.
"""

import base64
import hashlib
import hmac
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from nearfield.clusters.inventory import Host, Inventory
from nearfield.errors import Infrastructure, MissingFile, UsageError
from nearfield.files import write_bytes

CONNECT_TIMEOUT_S = 10
SSH_FAILED = 255


class Unreachable(Infrastructure):
    """The connection to a host failed: trying again may help."""


@dataclass(frozen=True)
class Shell:
    """Reaches the hosts of one inventory. `known_hosts` None: the user's own files."""

    inventory: Inventory
    known_hosts: Path | None

    def options(self, host: Host) -> list[str]:
        """Options of ssh for the host, without the program's name; rsync takes them too."""
        trusts = self.inventory.trust_new_hosts and not host.host_key
        words = [
            *("-o", "BatchMode=yes"),
            *("-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}"),
            *("-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"),
            *("-o", f"StrictHostKeyChecking={'accept-new' if trusts else 'yes'}"),
            *("-p", str(host.port)),
        ]
        if self.known_hosts is not None:
            words += ["-o", f"UserKnownHostsFile={_quoted(self.known_hosts)}"]
            # Debian's own settings say yes, and then the address can't be read in the file
            words += ["-o", "HashKnownHosts=no"]
            words += ["-o", "GlobalKnownHostsFile=/dev/null"]
        if self.inventory.identity:
            identity = self.inventory.base / Path(self.inventory.identity).expanduser()
            words += ["-i", str(identity), "-o", "IdentitiesOnly=yes"]
        if host.user:
            words += ["-l", host.user]
        return words

    def run(self, host: Host, script: str, *, timeout_s: float = 120) -> str:
        """Run a POSIX shell script on the host; its output.

        Raises `Unreachable` when the host can't be reached, `Infrastructure` when the script fails.
        """
        command = ["ssh", *self.options(host), "--", host.ssh_address, "sh -s"]
        try:
            done = subprocess.run(
                command, input=script, capture_output=True, text=True, timeout=timeout_s,
                check=False,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise UsageError("no ssh client here: install openssh-client") from error
        except subprocess.TimeoutExpired as error:
            raise Unreachable(
                f"{host.name} ({host.ssh_address}) gave no answer within {timeout_s:.0f} s"
            ) from error
        for line in done.stderr.splitlines():
            if "Permanently added" in line:
                print(f"{host.name}: new host key accepted. {line}", file=sys.stderr)
        if done.returncode == SSH_FAILED:
            raise Unreachable(
                f"{host.name} ({host.ssh_address} port {host.port}) can't be reached by ssh: "
                f"{_last(done.stderr)}{_hint(done.stderr)}"
            )
        if done.returncode:
            raise Infrastructure(f"{host.name}: {_last(done.stderr)}")
        return done.stdout


def shell_for(inventory: Inventory, state: Path) -> Shell:
    """A shell that checks host keys against the inventory's; new ones are kept in `state`."""
    if inventory.known_hosts:
        path = inventory.base / Path(inventory.known_hosts).expanduser()
        if not path.is_file():
            raise MissingFile(f"expected known host keys at {path}, as the inventory says")
        return Shell(inventory, path)
    given = [host for host in inventory.hosts if host.host_key]
    if not given and not inventory.trust_new_hosts:
        return Shell(inventory, None)
    path = state / "known_hosts"
    named = [_known_host(host) for host in given]
    kept = path.read_text().splitlines() if path.exists() else []
    places = [_place(host.ssh_address, host.port) for host in given]
    named += [line for line in kept if not any(_names(line, place) for place in places)]
    write_bytes(path, "".join(f"{line}\n" for line in named).encode())
    return Shell(inventory, path)


def forget_host_key(state: Path, address: str, port: int) -> None:
    """A machine that is gone: its address may soon be another's, with another key."""
    path = state / "known_hosts"
    if path.exists():
        lines = path.read_text().splitlines()
        kept = [line for line in lines if not _names(line, _place(address, port))]
        write_bytes(path, "".join(f"{line}\n" for line in kept).encode())


def _known_host(host: Host) -> str:
    return f"{_place(host.ssh_address, host.port)} {host.host_key}"


def _place(address: str, port: int) -> str:
    """As ssh names it in known_hosts."""
    return address if port == 22 else f"[{address}]:{port}"


def _names(line: str, place: str) -> bool:
    """Whether a line of known_hosts is of that host, in clear or hashed (sshd(8))."""
    hosts = line.split(" ", 1)[0]
    if not hosts.startswith("|1|"):
        return place in hosts.split(",")
    salt, digest = (base64.b64decode(part) for part in hosts.split("|")[2:4])
    return hmac.digest(salt, place.encode(), hashlib.sha1) == digest


def _quoted(path: Path) -> str:
    """As ssh reads it in an option: it splits at spaces, and a percent sign begins a token."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _last(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return " | ".join(lines[-3:]) or "no message"


def _hint(text: str) -> str:
    if "Host key verification failed" in text:
        return (
            ". Put its key into the inventory (host_key) or into known_hosts; "
            "trust_new_hosts = true accepts unknown keys"
        )
    if "Permission denied" in text:
        return ". Name the key (identity) and the user in the inventory, or start an agent"
    return ""
