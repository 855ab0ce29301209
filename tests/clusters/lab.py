"""Hosts on one Linux box: a network namespace, a home and a real sshd each, on one bridge.

Needs root, ip and sshd. Host h has the address 10.86.0.(h + 1); the first one is the client.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
NETWORK = "10.86.0"


def missing():
    """Why the lab can't be set up here, or None."""
    if os.geteuid() != 0:
        return "needs root"
    if not shutil.which("ip") or not SSHD or not shutil.which("ssh"):
        return "needs ip, ssh and sshd"
    tried = subprocess.run(
        ["ip", "netns", "add", f"nf{os.getpid()}t"], check=False, capture_output=True
    )
    if tried.returncode:
        return "network namespaces aren't allowed here"
    _ip("netns", "del", f"nf{os.getpid()}t")
    return None


def _ip(*words):
    subprocess.run(["ip", *map(str, words)], check=True, capture_output=True, text=True)


@dataclass
class Lab:
    """`names` of the hosts; the first is the client. `cores`: which cores a host's sshd may use."""

    folder: Path
    names: tuple[str, ...]
    cores: dict[str, str] = field(default_factory=dict)

    def __enter__(self):
        self.mark = f"nf{os.getpid()}"
        self.folder.mkdir(parents=True, exist_ok=True)
        Path("/run/sshd").mkdir(exist_ok=True)
        self.key = self._key("user")
        (self.folder / "authorized").write_text((self.folder / "user.pub").read_text())
        self.services = self.folder / "services"
        self.services.mkdir()
        self.daemons = {}
        try:
            _ip("netns", "add", self.space("net"))
            _ip("-n", self.space("net"), "link", "add", "br0", "type", "bridge")
            _ip("-n", self.space("net"), "link", "set", "br0", "up")
            for name in self.names:
                self._plug(name)
            for name in self.names[1:]:
                self._serve(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error):
        for name in self.names:
            self.kill_all(name)
            subprocess.run(
                ["ip", "netns", "del", self.space(name)], check=False, capture_output=True
            )
        subprocess.run(["ip", "netns", "del", self.space("net")], check=False, capture_output=True)
        for daemon in self.daemons.values():
            daemon.wait(10)

    def space(self, name):
        return f"{self.mark}{name}"

    def address(self, name):
        return f"{NETWORK}.{self.names.index(name) + 1}"

    def host_key(self, name):
        return " ".join((self.folder / f"{name}.pub").read_text().split()[:2])

    def cut(self, name):
        """Pull the host's cable out."""
        _ip("-n", self.space(name), "link", "set", "eth0", "down")

    def mend(self, name):
        _ip("-n", self.space(name), "link", "set", "eth0", "up")

    def bytes_sent(self, name, device):
        """What left a host's interface, in bytes."""
        path = f"/sys/class/net/{device}/statistics/tx_bytes"
        return int(self.on(name, "cat", path, mounted=True).stdout)

    def pids(self, name, containing=""):
        """Processes of the host whose command line holds the text."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.space(name)], text=True, check=False, capture_output=True
        ).stdout.split()
        return [int(pid) for pid in listed if containing in _command_line(pid)]

    def kill_all(self, name):
        """A host that is gone: no process says goodbye."""
        for pid in self.pids(name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def on(self, name, *words, mounted=False, **options):
        """Run a program on a host, as if typed there."""
        prefix = ["ip", "netns", "exec"] if mounted else ["nsenter"]
        place = [self.space(name)] if mounted else [f"--net=/run/netns/{self.space(name)}"]
        return subprocess.run(
            [*prefix, *place, *map(str, words)],
            text=True,
            check=False,
            capture_output=True,
            **options,
        )

    def start(self, name, *words, **options):
        return subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.space(name)}", *map(str, words)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
        )  # fmt: skip

    def inventory(self, path, *, extra="", host_extra=None):
        """An inventory of all hosts but the client; the second one is the scheduler."""
        lines = [
            'name = "lab"',
            f'python = "{sys.executable}"',
            f'identity = "{self.key}"',
            f'folder = "{self.services}"',
            "tcp_timeout_s = 12",
            extra,
        ]
        for place, name in enumerate(self.names[1:]):
            lines += [
                "[[hosts]]",
                f'name = "{name}"',
                f'address = "{self.address(name)}"',
                f'role = "{"worker" if place else "scheduler"}"',
                f'host_key = "{self.host_key(name)}"',
                (host_extra or {}).get(name, ""),
            ]
        path.write_text("\n".join(lines) + "\n")
        return path

    def _key(self, name):
        path = self.folder / name
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path]
        subprocess.run(command, check=True)
        return path

    def _plug(self, name):
        space, net = self.space(name), self.space("net")
        _ip("netns", "add", space)
        _ip("-n", net, "link", "add", f"v{name}", "type", "veth", "peer", "name", "eth0",
            "netns", space)  # fmt: skip
        _ip("-n", net, "link", "set", f"v{name}", "master", "br0", "up")
        _ip("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", space, "link", "set", "lo", "up")

    def _serve(self, name):
        key, home = self._key(name), self.folder / f"{name}.services"
        home.mkdir()
        options = {
            "ListenAddress": self.address(name),
            "HostKey": key,
            "AuthorizedKeysFile": self.folder / "authorized",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
        }
        words = [word for pair in options.items() for word in ("-o", "=".join(map(str, pair)))]
        pinned = f"taskset -c {self.cores[name]} " if name in self.cores else ""
        # a folder for services of its own, as every host has; all else is shared
        script = f'mount --bind {home} {self.services} && exec {pinned}"$@"'
        command = ["unshare", "--mount", "sh", "-c", script, "sh", SSHD, "-D", "-e", "-f"]
        log = (self.folder / f"{name}.sshd.log").open("w")
        self.daemons[name] = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.space(name)}", *command, "/dev/null", *words],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        log.close()
        self._wait_for_sshd(name)

    def _wait_for_sshd(self, name):
        probe = f"import socket; socket.create_connection(('{self.address(name)}', 22), 1)"
        until(lambda: self.on(self.names[0], sys.executable, "-c", probe).returncode == 0)


def _command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def until(condition, timeout_s=60):
    """Wait for a condition that another process brings about."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
