"""One command, over a cloud that is a local API server and a machine that is a real sshd."""

import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import h5py
import numpy as np
import psutil
import psycopg2
import pytest

from nearfield import api
from nearfield.lock import locked
from tests.cli.conftest import clustered
from tests.clusters.lab import SSHD, free_port, until
from tests.vm_scripts.hetzner_server import FakeHetzner

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not (SSHD and shutil.which("ssh") and shutil.which("rsync")),
        reason="needs sshd, ssh and rsync",
    ),
]


@pytest.fixture
def cloud():
    with FakeHetzner(["127.0.0.1"]) as running:
        yield running


@pytest.fixture
def place(tmp_path, cloud):
    """A job of 600 vectors, its machines, and the folder that is the machine's."""
    np.save(tmp_path / "v.npy", clustered(600))
    (tmp_path / "job.toml").write_text(
        '[ingest]\nsources = ["v.npy"]\n[build]\nk = 10\n[verify]\nsample = 50\n'
    )
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / ".ready").touch()
    (tmp_path / "machines.toml").write_text(
        f'run = "weekly"\nprovider = "hetzner"\nfolder = "{tmp_path}/machine"\n'
        f'python = "{sys.executable}"\nuser = "{getpass.getuser()}"\n'
        f'[hetzner]\nendpoint = "{cloud.endpoint}"\nssh_port = {free_port()}\n'
    )
    state = tmp_path / "weekly.machines"
    state.mkdir()
    key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f"]
    subprocess.run([*key, state / "id_ed25519"], check=True)
    subprocess.run([*key, tmp_path / "host"], check=True)
    return tmp_path


@pytest.fixture
def machine(place):
    """The sshd that all servers of the cloud turn out to be."""
    port = (place / "machines.toml").read_text().split("ssh_port = ")[1].strip()
    options = {
        "ListenAddress": "127.0.0.1", "Port": port, "HostKey": place / "host",
        "AuthorizedKeysFile": place / "weekly.machines" / "id_ed25519.pub",
        "PidFile": "none", "StrictModes": "no", "UsePAM": "no",
    }  # fmt: skip
    words = [word for pair in options.items() for word in ("-o", "=".join(map(str, pair)))]
    Path("/run/sshd").mkdir(exist_ok=True)
    with (place / "sshd.log").open("w") as log:
        daemon = subprocess.Popen([SSHD, "-D", "-e", "-f", "/dev/null", *words], stderr=log)
    until(lambda: "listening" in (place / "sshd.log").read_text())
    yield daemon
    daemon.terminate()
    daemon.wait(10)


def environment(more):
    known = {key: value for key, value in os.environ.items() if key != "NEARFIELD_DSN"}
    return known | {"HCLOUD_TOKEN": "right", "NEARFIELD_PYTHON": sys.executable} | more


def start(place, *words, **more):
    return subprocess.Popen(
        [ROOT / "vm_scripts" / words[0], *words[1:]],
        cwd=place, env=environment(more),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def rebuild(place, *words, **more):
    process = start(place, "rebuild", "job.toml", *words, **more)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def created(cloud):
    return len(
        [1 for method, path, _ in cloud.requests if (method, path) == ("POST", "/v1/servers")]
    )


def published(place):
    with api.embedded(place / "postgres") as dsn, closing(psycopg2.connect(dsn)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT count(*), (array_agg(neighbour_ids))[1] FROM nearfield.neighbours")
        return cursor.fetchone()


def matrix_of(place):
    (path,) = place.glob("runs/*/matrix.h5")
    with h5py.File(path) as file:
        return file["neighbours"][:]


def test_a_rebuild_publishes_what_this_machine_would_and_leaves_no_machine(cloud, place, machine):
    code, out, err = rebuild(place, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["loaded"]["rows"] == 600
    assert "EUR so far" in report["cost"]
    assert all(not cloud.things[kind] for kind in cloud.things)
    api.ingest([place / "v.npy"], place / "own")
    api.build(place / "own", place / "own-run", k=10)
    with h5py.File(place / "own-run" / "matrix.h5") as own:
        np.testing.assert_array_equal(matrix_of(place), own["neighbours"][:])
    assert published(place)[0] == 600
    assert api.status(report["run"]).stage == "verified"


def test_user_data_and_requests_hold_no_secret(cloud, place, machine):
    assert rebuild(place)[0] == 0
    said = json.dumps(cloud.requests)
    private = (place / "weekly.machines" / "id_ed25519").read_text().splitlines()[1]
    assert "PRIVATE KEY" not in said
    assert private not in said
    assert "ssh-ed25519 " in said


def test_input_that_is_rejected_ends_with_its_code_and_no_machine(cloud, place, machine):
    assert rebuild(place)[0] == 0
    before = published(place)
    np.save(place / "v.npy", np.full((600, 16), np.nan, np.float32))
    code, _out, err = rebuild(place)
    assert code == 3
    assert "NaN" in err or "finite" in err
    assert cloud.names() == []
    assert published(place) == before


def test_a_load_that_fails_costs_no_second_machine(cloud, place, machine):
    wrong = {"NEARFIELD_DSN": f"host=127.0.0.1 port={free_port()} dbname=x user=x"}
    code, _out, err = rebuild(place, **wrong)
    assert code == 5
    assert "No machine is running" in err
    assert cloud.names() == []
    assert created(cloud) == 1
    code, _out, err = rebuild(place)
    assert code == 0, err
    assert created(cloud) == 1
    assert published(place)[0] == 600


def test_again_with_nothing_changed_rents_nothing(cloud, place, machine):
    assert rebuild(place)[0] == 0
    code, out, err = rebuild(place, "--json")
    assert code == 0, err
    assert (json.loads(out)["machines"], created(cloud)) == (False, 1)
    assert published(place)[0] == 600


def test_a_deletion_that_fails_is_tried_again(cloud, place, machine):
    server = cloud.number + 4  # behind network, firewall and key
    cloud.fail = [("DELETE", f"/v1/servers/{server}", 500, "server_error")]
    code, _out, err = rebuild(place)
    assert code == 0, err
    assert (cloud.names(), cloud.fail) == ([], [])


def test_a_deletion_that_is_refused_is_said_and_the_matrix_is_published_all_the_same(
    cloud, place, machine
):
    process = start(place, "rebuild", "job.toml")
    until(lambda: created(cloud), 60)
    cloud.fail = [("GET", "/v1/servers", 401, "unauthorized")]
    _out, err = process.communicate(timeout=300)
    assert process.returncode == 5, err
    assert "may still exist and cost money: weekly-head" in err
    assert cloud.names() == ["weekly-head"]
    assert published(place)[0] == 600
    code, _out, err = rebuild(place)
    assert code == 0, err
    assert (cloud.names(), created(cloud)) == ([], 1)


def test_a_job_that_a_dead_driver_left_behind_gives_way_to_another(cloud, place, machine):
    np.save(place / "v.npy", clustered(30_000))
    process = start(place, "rebuild", "job.toml")
    until(lambda: list(place.glob("machine/job/work/runs/*/parts/*.json")), 120)
    process.kill()
    process.communicate()
    text = (place / "job.toml").read_text()
    (place / "job.toml").write_text(text.replace("k = 10", "k = 7"))
    code, out, err = rebuild(place, "--json")
    assert code == 0, err
    assert api.status(json.loads(out)["run"]).config["k"] == 7
    assert cloud.names() == []


def test_a_rebuild_that_is_stopped_deletes_its_machines_and_resumes(cloud, place, machine):
    np.save(place / "v.npy", clustered(30_000))
    process = start(place, "rebuild", "job.toml")
    until(lambda: list(place.glob("machine/job/work/runs/*/parts/*.json")), 120)
    process.send_signal(signal.SIGTERM)
    _out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert cloud.names() == []
    kept = {path.name for path in place.glob("runs/*/parts/*.json")}
    assert kept
    shutil.rmtree(place / "machine" / "job")  # the next machine is another one
    code, _out, err = rebuild(place)
    assert code == 0, err
    built = json.loads((place / "machine" / "job" / "job.json").read_text())
    assert next(step for step in built["steps"] if step["step"] == "build")["kept"] >= len(kept)
    assert published(place)[0] == 30_000


def test_a_rebuild_that_is_stopped_while_the_matrix_comes_home_brings_it(cloud, place, machine):
    (place / "bin").mkdir()
    slow = place / "bin" / "rsync"
    slow.write_text(
        '#!/bin/sh\ncase "$*" in *:*"/job/work/ "*)\n'
        f"  if mkdir {place}/begun; then sleep 60; fi ;; esac\n"
        f'exec {shutil.which("rsync")} "$@"\n'
    )
    slow.chmod(0o755)
    process = start(place, "rebuild", "job.toml", PATH=f"{slow.parent}:{os.environ['PATH']}")
    until((place / "begun").exists, 120)
    process.send_signal(signal.SIGTERM)
    _out, err = process.communicate(timeout=120)
    assert (process.returncode, cloud.names()) == (130, []), err
    code, _out, err = rebuild(place)
    assert code == 0, err
    assert (created(cloud), published(place)[0]) == (1, 600)


def test_linked_sources_are_sent_under_their_names(cloud, place, machine):
    (place / "v.npy").rename(place / "elsewhere.npy")
    (place / "v.npy").symlink_to(place / "elsewhere.npy")
    code, _out, err = rebuild(place)
    assert code == 0, err
    assert [path.name for path in place.glob("machine/job/inputs/*/*")] == ["v.npy"]


def test_a_second_command_on_the_same_machines_is_refused(cloud, place, machine):
    with locked(place / "weekly.machines" / "rebuild"):
        for words in (("run", "job.toml"), ("rebuild", "job.toml")):
            process = start(place, *words)
            _out, err = process.communicate(timeout=60)
            assert process.returncode == 75, err
    assert created(cloud) == 0


def test_a_service_that_is_stopped_leaves_no_machine_and_no_process(cloud, place, machine):
    np.save(place / "v.npy", clustered(30_000))
    script = [ROOT / "deploy" / "systemd" / "rebuild.sh", place]
    told = {"NEARFIELD_STATE": str(place), "NEARFIELD_REBUILD": str(ROOT / "vm_scripts/rebuild")}
    with (place / "service.log").open("w") as log:
        process = subprocess.Popen(
            script, env=environment(told), stdout=log, stderr=log, start_new_session=True
        )
    until(lambda: list(place.glob("machine/job/work/runs/*/parts/*.json")), 120)
    # the first process alone is told, as by systemd (KillMode=mixed), and again by who is impatient
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)  # two signals at once would be one
    process.send_signal(signal.SIGTERM)
    process.wait(120)
    # what is left then, systemd kills
    left = [it.pid for it in psutil.process_iter() if session_of(it.pid) == process.pid]
    machines = cloud.names()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert (machines, left) == ([], [])
    assert process.returncode == 130, (place / "service.log").read_text()
    assert not (place / "last-success").exists()


def session_of(pid):
    with suppress(ProcessLookupError):
        return os.getsid(pid)


def test_a_dry_run_makes_nothing_and_says_the_price(cloud, place):
    code, out, err = rebuild(place, "--dry-run")
    assert code == 0, err
    assert "0.021" in out
    assert "EUR so far" in err
    assert created(cloud) == 0


def said(place, *words):
    process = start(place, *words)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "EUR so far" in err or "per_hour" in json.loads(out)["cost"]
    return json.loads(out)


def test_the_steps_one_by_one_say_what_they_would_do(cloud, place, machine):
    assert [one["exists"] for one in json.loads(dry(place, "up"))] == [False]
    for _ in range(2):  # a second time finds what is there
        said(place, "up", "--json")
        assert (cloud.names(), created(cloud)) == (["weekly-head"], 1)
    assert [one["machine"] for one in said(place, "status", "--json")["machines"]] == cloud.names()
    (sent,) = said(place, "run", "job.toml", "--dry-run", "--json")
    assert sent == {"file": str(place / "v.npy"), "bytes": (place / "v.npy").stat().st_size}
    report = said(place, "run", "job.toml", "--json")
    would = said(place, "fetch", "job.toml", "--dry-run", "--json")
    matrix = f"runs/{Path(report['run']).name}/matrix.h5"
    assert matrix in {one["file"] for one in would}
    assert not (place / "runs").exists()
    assert said(place, "fetch", "job.toml", "--json") == would
    assert (place / matrix).stat().st_size == next(
        one["bytes"] for one in would if one["file"] == matrix
    )
    assert said(place, "fetch", "job.toml", "--json") == []
    assert len(json.loads(dry(place, "down"))) == 1
    said(place, "down", "--json")
    assert cloud.names() == []
    (paid,) = said(place, "cost", "--json")
    assert paid["deleted"]
    assert paid["cost"] == pytest.approx(0.021, abs=0.002)  # a started hour


def dry(place, command):
    process = start(place, command, "--dry-run", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "EUR so far" in err
    return out
