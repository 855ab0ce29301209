"""Host keys of machines that come and go, seen by the real ssh and a real sshd on this machine."""

import getpass
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from nearfield.clusters.certificates import write_ssh_key
from nearfield.clusters.inventory import Host, Inventory
from nearfield.clusters.ssh import forget_host_key, shell_for
from nearfield.errors import Infrastructure
from tests.clusters.lab import SSHD, free_port, until
from vm_scripts.remote import copy_to

real_ssh = pytest.mark.skipif(not (SSHD and shutil.which("ssh")), reason="needs sshd and ssh")


def made_key(path):
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path]
    subprocess.run(command, check=True)
    return path


@contextmanager
def machine(folder, key, port, user_key):
    """A machine that answers on the port with its own host key."""
    options = {
        "ListenAddress": "127.0.0.1", "Port": port, "HostKey": key, "PidFile": "none",
        "AuthorizedKeysFile": f"{user_key}.pub", "StrictModes": "no", "UsePAM": "no",
    }  # fmt: skip
    words = [word for pair in options.items() for word in ("-o", "=".join(map(str, pair)))]
    Path("/run/sshd").mkdir(exist_ok=True)
    log = folder / "sshd.log"
    with log.open("w") as said:
        daemon = subprocess.Popen([SSHD, "-D", "-e", "-f", "/dev/null", *words], stderr=said)
    try:
        until(lambda: "listening" in log.read_text())
        yield
    finally:
        daemon.terminate()
        daemon.wait(10)


@real_ssh
@pytest.mark.parametrize("kept", ["state", "state of 100% mine"])
def test_an_address_may_come_back_with_another_key(tmp_path, kept):
    state, port, user = tmp_path / kept, free_port(), made_key(tmp_path / "user")
    state.mkdir()
    host = Host("head", "127.0.0.1", role="both", port=port, user=getpass.getuser())
    shell = shell_for(Inventory("c", [host], identity=str(user), trust_new_hosts=True), state)
    with machine(tmp_path, made_key(tmp_path / "first"), port, user):
        assert shell.run(host, "echo here") == "here\n"
    assert [path.name for path in state.iterdir()] == ["known_hosts"]
    with machine(tmp_path, made_key(tmp_path / "second"), port, user):
        with pytest.raises(Infrastructure):
            shell.run(host, "echo here")
        forget_host_key(state, "127.0.0.1", port)
        assert shell.run(host, "echo here") == "here\n"
        if shutil.which("rsync"):
            copy_to(shell, host, [f"{user}.pub"], str(tmp_path / "copied"))
            assert (tmp_path / "copied").read_text() == Path(f"{user}.pub").read_text()


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
def test_a_key_that_we_make_is_one_that_ssh_reads(tmp_path):
    path = tmp_path / "new" / "id_ed25519"
    write_ssh_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    read = subprocess.run(["ssh-keygen", "-y", "-f", path], check=True, capture_output=True)
    public = path.with_suffix(".pub").read_text().split()
    assert read.stdout.decode().split()[:2] == public[:2]
    assert public[0] == "ssh-ed25519"


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
@pytest.mark.parametrize(("address", "port"), [("10.1.2.3", 22), ("10.1.2.3", 2222)])
def test_a_key_is_forgotten_also_where_ssh_has_hashed_its_host(tmp_path, address, port):
    key = " ".join(made_key(tmp_path / "k").with_suffix(".pub").read_text().split()[:2])
    place = address if port == 22 else f"[{address}]:{port}"
    known = tmp_path / "known_hosts"
    known.write_text(f"{place} {key}\n10.9.9.9 {key}\n{place},h.example {key}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
    assert all(line.startswith("|1|") for line in known.read_text().splitlines())
    forget_host_key(tmp_path, address, port)
    assert len(known.read_text().splitlines()) == 2  # the other host, and the other's second name
    forget_host_key(tmp_path, "10.9.9.9", 22)
    assert len(known.read_text().splitlines()) == 1
