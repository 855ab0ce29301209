"""The inventory file, and what is made of it for each host."""

import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from nearfield.clusters import services
from nearfield.clusters.hosts import cluster_state
from nearfield.clusters.inventory import Host, Inventory, read_inventory, write_inventory
from nearfield.clusters.ssh import Shell, shell_for
from nearfield.errors import MissingFile, UsageError

GOOD = """
name = "weekly"
[[hosts]]
name = "head"
address = "10.0.0.1"
role = "both"
[[hosts]]
name = "w1"
address = "10.0.0.2"
cores = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "hosts.toml"
    path.write_text(GOOD)
    return path


def test_an_inventory_is_read_with_its_defaults(file):
    inventory = read_inventory(file)
    assert inventory.address == "tls://10.0.0.1:8786"
    assert [host.name for host in inventory.workers] == ["head", "w1"]
    assert inventory.scheduler.name == "head"
    assert inventory.base == file.parent


def test_what_is_written_is_read_again(tmp_path):
    hosts = [
        Host("a", "fd00::1", role="scheduler", port=2222),
        Host("b", "h.example", memory="4GiB"),
    ]
    inventory = Inventory("x", hosts, identity="/home/u/my key", trust_new_hosts=True)
    write_inventory(tmp_path / "i.toml", inventory)
    read = read_inventory(tmp_path / "i.toml")
    assert read.hosts == hosts
    assert (read.identity, read.trust_new_hosts) == ("/home/u/my key", True)
    assert read.address == "tls://[fd00::1]:8786"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('role = "both"', "", "one host with role scheduler or both, got 0"),
        ('name = "w1"', 'name = "head"', "two hosts"),
        ('name = "weekly"', 'name = "Weekly Run"', "lower-case"),
        ("cores = 3", "cores = 0", "0 cores"),
        ("cores = 3", "workers = 0", "0 workers"),
        ("cores = 3", "colour = 3", "colour"),
        ("10.0.0.2", "-oProxyCommand=evil", "no name or address"),
        ("10.0.0.2", "a b; rm", "no name or address"),
        ("cores = 3", 'memory = "lots"', "no size such as 24GiB"),
        ('name = "weekly"', 'name = "weekly"\ntcp_timeout_s = 5', "at least 11"),
        ('role = "both"', 'role = "scheduler"\n[[hosts]]\nname="x"\naddress="y"\nrole="both"',
         "got 2"),
    ],
)  # fmt: skip
def test_a_wrong_inventory_is_refused_with_its_reason(file, old, new, said):
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(UsageError, match=said):
        read_inventory(file)


def test_a_missing_inventory_is_named(tmp_path):
    with pytest.raises(MissingFile, match="nowhere"):
        read_inventory(tmp_path / "nowhere.toml")


def test_settings_suit_native_work(file):
    inventory = read_inventory(file)
    found = services.settings(inventory, inventory.hosts[1])["distributed"]
    assert found["comm"]["require-encryption"] is True
    assert found["scheduler"]["worker-ttl"] == "1800s"
    assert found["scheduler"]["no-workers-timeout"] == "600s"
    assert found["worker"]["memory"]["spill"] is False
    assert "[:3]" in found["nanny"]["preload"][0]


def test_workers_keep_freed_memory_and_the_scheduler_does_not(file):
    inventory = read_inventory(file)
    for service, kept in (("worker", True), ("scheduler", False)):
        script = services.start_script(inventory, inventory.hosts[0], service, 1)
        assert (" MALLOC_TRIM_THRESHOLD_=1073741824 " in script) is kept


def test_memory_of_a_host_is_shared_by_its_workers(file):
    file.write_text(GOOD.replace("cores = 3", 'cores = 3\nmemory = "6GB"'))
    inventory = read_inventory(file)
    script = services.start_script(inventory, inventory.hosts[1], "worker", 3)
    assert "--memory-limit 2000000000" in script
    assert "--nworkers 3 --nthreads 1" in script


def test_without_a_limit_workers_share_the_memory_of_their_host(file):
    # Dask would give each what one of all cores gets, whatever workers there are
    file.write_text(GOOD)
    inventory = read_inventory(file)
    script = services.start_script(inventory, inventory.hosts[1], "worker", 4)
    assert "--memory-limit 0.25 " in script


@pytest.mark.parametrize("named", ["10.0.0.2", "w1.lan"])
def test_workers_are_counted_by_the_names_that_they_were_given(file, monkeypatch, named, tmp_path):
    file.write_text(GOOD.replace("10.0.0.2", named))
    inventory = read_inventory(file)
    answers = {"status": "running 7\n", "watch": '["head", "w1-0", "w1-1", "w1-2"]\n'}

    def run(_self, _host, script, **_words):
        return answers["watch" if "clusters.watch" in script else "status"]

    monkeypatch.setattr(Shell, "run", run)
    state = cluster_state(inventory, tmp_path)
    assert state.problems == ()
    assert [(one.host, one.workers) for one in state.services if one.service == "worker"] == [
        ("head", 1), ("w1", 3),
    ]  # fmt: skip


def test_names_with_spaces_reach_the_shell_whole(file):
    file.write_text(GOOD.replace('name = "weekly"', 'name = "weekly"\nfolder = "my $HOME`x`"', 1))
    inventory = read_inventory(file)
    script = services.act_script(inventory, "worker", "status")
    done = subprocess.run(["sh", "-s"], input=script + 'echo "$folder"\n', text=True,
                          capture_output=True, check=True)  # fmt: skip
    assert done.stdout.splitlines()[-1].endswith("/my $HOME`x`/weekly")


def test_a_folder_with_a_space_is_where_a_service_finds_its_settings(file, tmp_path):
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho "settings: $DASK_CONFIG"\n')
    program.chmod(0o755)
    place = tmp_path / "my services"
    (place / "weekly").mkdir(parents=True)
    named = f'name = "weekly"\nfolder = "{place}"\npython = "{program}"'
    file.write_text(GOOD.replace('name = "weekly"', named, 1))
    inventory = read_inventory(file)
    started = services.start_script(inventory, inventory.hosts[1], "worker", 1)
    for script in (f"{started}wait\n", services.watch_script(inventory, 1, 0)):
        done = subprocess.run(["sh", "-s"], input=script, text=True, check=True,
                              capture_output=True)  # fmt: skip
        said = done.stdout + (place / "weekly" / "worker.log").read_text()
        assert f"settings: {place}/weekly/dask.yaml\n" in said


def test_a_host_tells_its_versions_and_cores(file):
    file.write_text(
        GOOD.replace('name = "weekly"', f'name = "weekly"\npython = "{sys.executable}"', 1)
    )
    script = services.facts_script(read_inventory(file))
    done = subprocess.run(["sh", "-s"], input=script, text=True, capture_output=True, check=True)
    facts = json.loads(done.stdout)
    assert facts["cores"] == len(os.sched_getaffinity(0))
    assert facts["versions"]["dask"] == version("dask")


def test_host_keys_of_the_inventory_count_and_nothing_else(file, tmp_path):
    file.write_text(GOOD.replace("cores = 3", 'cores = 3\nport = 2200\nhost_key = "ssh-ed25519 K"'))
    inventory = read_inventory(file)
    shell = shell_for(inventory, tmp_path / "state")
    assert shell.known_hosts.read_text() == "[10.0.0.2]:2200 ssh-ed25519 K\n"
    options = shell.options(inventory.hosts[1])
    assert "StrictHostKeyChecking=yes" in options
    assert f'UserKnownHostsFile="{tmp_path}/state/known_hosts"' in options


def test_known_hosts_may_lie_in_the_users_home(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "known").write_text("")
    file.write_text(GOOD.replace('name = "weekly"', 'name = "weekly"\nknown_hosts = "~/known"', 1))
    shell = shell_for(read_inventory(file), tmp_path / "state")
    assert shell.known_hosts == tmp_path / "known"


def test_without_keys_the_users_own_known_hosts_count(file, tmp_path):
    shell = shell_for(read_inventory(file), tmp_path / "state")
    assert shell.known_hosts is None
    assert "StrictHostKeyChecking=yes" in shell.options(shell.inventory.hosts[0])
