"""A cluster over SSH on four hosts that are network namespaces: up, job, faults, down.

The host that runs the commands reaches the others through the bridge alone.
"""

import json
import os
import signal
import stat
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from nearfield import api
from nearfield.machine import available_cores
from tests.cli.conftest import clustered
from tests.clusters.lab import Lab, missing, until

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
ROWS = 40_000


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    if reason := missing():
        pytest.skip(reason)
    with Lab(tmp_path_factory.mktemp("lab"), ("client", "head", "east", "west")) as running:
        yield running


@pytest.fixture(scope="module")
def inventory(lab):
    return lab.inventory(lab.folder / "hosts.toml")


@pytest.fixture(scope="module")
def truth(lab):
    """The vector set, and the matrix as this machine builds it alone."""
    np.save(lab.folder / "v.npy", clustered(ROWS))
    api.ingest([lab.folder / "v.npy"], lab.folder / "vectors")
    api.build(lab.folder / "vectors", lab.folder / "local", k=20, method="exact")
    return datasets(lab.folder / "local")


@pytest.fixture
def up(lab, inventory):
    report = nearfield(lab, "cluster", "up", inventory, "--json")
    assert report.returncode == 0, report.stderr
    return json.loads(report.stdout)


def nearfield(lab, *words):
    return lab.on("client", sys.executable, "-m", "nearfield", *words)


def datasets(run):
    with h5py.File(run / "matrix.h5") as file:
        return file["neighbours"][:], file["distances"][:]


def build(lab, name):
    """A build on the cluster, running; its run directory, which all hosts share."""
    words = (sys.executable, "-m", "nearfield", "build", lab.folder / "vectors", "--out",
             lab.folder / name, "-k", 20, "--method", "exact",
             "--scheduler", lab.folder / "hosts.cluster" / "cluster.toml")  # fmt: skip
    return lab.start("client", *words), lab.folder / name


def finish(started):
    process, run = started
    _out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return datasets(run)


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def parts(run):
    return list((run / "parts").glob("*.h5"))


def services(lab):
    return {name: len(lab.pids(name, "distributed")) for name in lab.names}


def test_the_cluster_builds_what_one_machine_builds(lab, up, truth):
    cores = available_cores()
    assert {one["host"]: one["workers"] for one in up["services"]} == {
        "head": None, "east": cores, "west": cores,
    }  # fmt: skip
    assert_same(finish(build(lab, "together")), truth)


def test_nobody_without_a_certificate_is_let_in(lab, up):
    probe = (
        "import sys\nfrom distributed import Client\n"
        "from distributed.security import Security\n"
        "try:\n    Client(sys.argv[1], timeout=4, security=Security.temporary()"
        " if sys.argv[1].startswith('tls') else None)\n"
        "except (OSError, TimeoutError) as error:\n    sys.exit(7)\n"
    )
    for address in (up["scheduler"], up["scheduler"].replace("tls:", "tcp:")):
        done = lab.on("client", sys.executable, "-c", probe, address)
        assert done.returncode == 7, (address, done.stdout, done.stderr)


def test_the_dashboard_listens_on_localhost_only(lab, up):
    listening = lab.on("head", "ss", "-tlnH").stdout
    assert "127.0.0.1:8787" in listening
    assert f"{lab.address('head')}:8786" in listening
    assert {line.split()[3].rpartition(":")[0] for line in listening.splitlines()} == {
        "127.0.0.1", lab.address("head"),
    }  # fmt: skip
    assert up["tunnel"].startswith(f"ssh -N -L 8787:127.0.0.1:8787 {lab.address('head')}")


def test_keys_are_readable_for_their_owner_and_in_no_command_line(lab, up):
    keys = [*lab.folder.glob("*.services/lab/host.key"), *lab.folder.glob("hosts.cluster/*.key")]
    assert len(keys) == 5  # three hosts, the authority, the client
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    secrets = [key.read_text().splitlines()[1] for key in keys]
    assert len(set(secrets)) == len(keys)
    for name in lab.names:
        assert not [pid for secret in secrets for pid in lab.pids(name, secret)]


def test_a_killed_worker_costs_a_retry(lab, up, truth):
    started = build(lab, "killed")
    until(lambda: parts(started[1]))
    victim = max(lab.pids("west", "spawn_main"))
    os.kill(victim, signal.SIGKILL)
    assert_same(finish(started), truth)


def test_a_cut_link_costs_the_hosts_tasks_again(lab, inventory, up, truth):
    started = build(lab, "cut")
    until(lambda: parts(started[1]))
    lab.cut("west")
    try:
        assert_same(finish(started), truth)
        status = nearfield(lab, "cluster", "status", inventory, "--json")
        assert status.returncode == 5
        assert "west: unreachable" in status.stderr
    finally:
        lab.mend("west")


def test_a_lost_host_costs_its_tasks_again_and_comes_back_with_up(lab, inventory, up, truth):
    started = build(lab, "lost")
    until(lambda: parts(started[1]))
    for pid in lab.pids("west", "distributed"):
        os.kill(pid, signal.SIGKILL)
    lab.cut("west")
    try:
        assert_same(finish(started), truth)
    finally:
        lab.mend("west")
    again = nearfield(lab, "cluster", "up", inventory, "--json")
    assert again.returncode == 0, again.stderr
    states = {one["host"]: one["state"] for one in json.loads(again.stdout)["services"]}
    assert states == {"head": "running", "east": "running", "west": "started"}


def test_down_leaves_no_service_and_no_credentials(lab, inventory, up):
    assert all(services(lab)[name] for name in lab.names[1:])
    done = nearfield(lab, "cluster", "down", inventory)
    assert done.returncode == 0, done.stderr
    assert not any(services(lab).values())
    assert not [*lab.folder.glob("*.services/lab/*.pem"), *lab.folder.glob("*.services/lab/*.key")]
    assert not [*lab.folder.glob("hosts.cluster/*.pem"), *lab.folder.glob("hosts.cluster/*.key")]
    assert nearfield(lab, "cluster", "down", inventory).returncode == 0


def test_a_rebuild_over_hosts_publishes_and_leaves_nothing_running(lab, inventory, truth):
    place = lab.folder / "rebuild"
    place.mkdir()
    (place / "job.toml").write_text(
        f'[ingest]\nsources = ["{lab.folder}/v.npy"]\n'
        '[build]\nk = 20\nmethod = "exact"\n[verify]\nsample = 50\n'
    )
    (place / "machines.toml").write_text(
        f'run = "lab"\nprovider = "hosts"\nfolder = "{lab.folder}/shared"\n'
        f'python = "{sys.executable}"\n[hosts]\ninventory = "{inventory}"\n'
    )
    environment = os.environ | {"NEARFIELD_PYTHON": sys.executable}
    script = ROOT / "vm_scripts" / "rebuild"
    done = lab.on("client", script, place / "job.toml", env=environment)
    assert done.returncode == 0, done.stderr
    assert "dashboard: ssh -N -L 8787:127.0.0.1:8787" in done.stderr
    (run,) = (place / "runs").iterdir()
    assert_same(datasets(run), truth)
    assert not any(services(lab).values())


def test_a_failed_start_leaves_no_scheduler_behind(lab):
    broken = lab.folder / "broken.toml"
    lab.inventory(broken, host_extra={"west": 'interface = "eth7"'})
    done = nearfield(lab, "cluster", "up", broken)
    assert done.returncode == 5
    assert "eth7" in done.stderr
    assert not any(services(lab).values())


def test_an_unknown_host_key_is_refused_unless_said(lab):
    other = lab.folder / "other.toml"
    text = lab.inventory(other).read_text()
    other.write_text(text.replace(lab.host_key("west"), lab.host_key("east")))
    done = nearfield(lab, "cluster", "up", other)
    assert done.returncode == 5
    assert "west" in done.stderr and "host_key" in done.stderr
    without = "\n".join(line for line in text.splitlines() if not line.startswith("host_key"))
    trusting = lab.folder / "trusting.toml"
    trusting.write_text("trust_new_hosts = true\n" + without)
    done = nearfield(lab, "cluster", "status", trusting)
    assert done.stderr.count("new host key accepted") == 3
    assert nearfield(lab, "cluster", "status", trusting).stderr.count("accepted") == 0
