"""machines.toml and the price file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nearfield.clusters.prices import PRICE_FILE, read_prices
from nearfield.errors import MissingFile, UsageError
from vm_scripts import fleet
from vm_scripts.jobs import inputs_of, read_job
from vm_scripts.rebuild import load_here
from vm_scripts.settings import read_settings

ROOT = Path(__file__).parents[2]


def written(tmp_path, text):
    path = tmp_path / "machines.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('run = "a b"\nprovider = "hetzner"', "lower-case"),
        ('run = "a"\nprovider = "aws"', "aws"),
        ('run = "a"\nprovider = "qemu"', r"\[qemu\]"),
        ('run = "a"\nprovider = "hetzner"\ntoken = "x"', "token"),
        ('run = "a"\nprovider = "hetzner"\nidle_minutes = 1', "idle_minutes"),
        ('run = "a"\nprovider = "hetzner"\nfolder = "/a b"', "plain absolute path"),
    ],
)
def test_wrong_settings_are_refused_with_their_reason(tmp_path, text, said):
    with pytest.raises(UsageError, match=said):
        read_settings(written(tmp_path, text))


def test_what_a_run_keeps_lies_beside_the_settings_or_where_they_say(tmp_path):
    text = 'run = "a"\nprovider = "hetzner"\n'
    assert read_settings(written(tmp_path, text)).state == tmp_path / "a.machines"
    elsewhere = tmp_path / "elsewhere"
    text += f'state_folder = "{elsewhere}"\n'
    assert read_settings(written(tmp_path, text)).state == elsewhere / "a.machines"


def test_missing_settings_are_named(tmp_path):
    with pytest.raises(MissingFile, match=r"machines\.toml"):
        read_settings(tmp_path / "machines.toml")


def test_the_price_file_that_ships_is_read_and_says_its_sources():
    prices = read_prices(PRICE_FILE)
    assert all(one.source and one.as_of for one in prices.machines if one.hourly)
    assert prices.of("qemu", "whatever").hourly == 0
    with pytest.raises(UsageError, match="cx99 of hetzner"):
        prices.of("hetzner", "cx99")


def test_a_wrong_price_file_is_refused(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text(
        'currency = "EUR"\n[[machines]]\nprovider = "x"\ntype = "y"\nhourly = "cheap"\n'
    )
    with pytest.raises(UsageError, match="hourly"):
        read_prices(path)


def script(name, *words, folder):
    return subprocess.run(
        [ROOT / "vm_scripts" / name, *words], cwd=folder, text=True, capture_output=True,
        check=False, env=os.environ | {"NEARFIELD_PYTHON": sys.executable},
    )  # fmt: skip


def test_scripts_run_the_command_of_their_name(tmp_path):
    (tmp_path / "typer.py").write_text("raise SystemExit('not what is installed')")
    inventory = 'name = "lab"\n[[hosts]]\nname = "a"\naddress = "127.0.0.1"\nrole = "both"\n'
    (tmp_path / "hosts.toml").write_text(inventory)
    written(tmp_path, 'run = "lab"\nprovider = "hosts"\n[hosts]\ninventory = "hosts.toml"\n')
    done = script("status", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["machines"][0]["machine"] == "a"
    done = script("up", "--dry-run", folder=tmp_path)
    assert done.stdout == "machine a  exists True  hourly 0.0\n"
    assert script("cost", folder=tmp_path).stderr.startswith("0.000 EUR so far")


def test_a_place_that_cant_be_written_to_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file, where a folder is needed")
    inventory = 'name = "lab"\n[[hosts]]\nname = "a"\naddress = "127.0.0.1"\nrole = "both"\n'
    (tmp_path / "hosts.toml").write_text(inventory)
    written(tmp_path, 'run = "lab"\nprovider = "hosts"\nstate_folder = "taken"\n'
                      '[hosts]\ninventory = "hosts.toml"\n')  # fmt: skip
    done = script("up", folder=tmp_path)
    assert done.returncode == 2
    assert "Check the path and its rights" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_script_explains_itself(tmp_path):
    for name in ("up", "status", "run", "fetch", "down", "cost", "rebuild"):
        assert os.access(ROOT / "vm_scripts" / name, os.X_OK)
    done = script("rebuild", "--help", folder=tmp_path)
    assert done.returncode == 0
    assert "no machine stays" in " ".join(done.stdout.split())


def test_a_job_with_its_runs_elsewhere_isnt_for_rented_machines(tmp_path):
    (tmp_path / "job.toml").write_text(
        '[ingest]\nsources = ["v.npy"]\n[build]\nruns = "s3://bucket/runs"\n'
    )
    with pytest.raises(UsageError, match="leave `runs` out"):
        read_job(tmp_path / "job.toml")


def test_sources_of_one_name_from_several_folders_have_places_of_their_own(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "vectors.npy").touch()
    (tmp_path / "job.toml").write_text('[ingest]\nsources = ["*/vectors.npy", "a"]\n')
    inputs = inputs_of(read_job(tmp_path / "job.toml"))
    assert len(set(inputs.values())) == len(inputs) == 3
    assert all(there.endswith(local.name) for local, there in inputs.items())


def job_with(tmp_path, dsn):
    (tmp_path / "job.toml").write_text(f'[ingest]\nsources = ["v.npy"]\n[load]\ndsn = "{dsn}"\n')
    return tmp_path / "job.toml"


@pytest.mark.parametrize("dsn", ["host=h password=hunter2", "postgresql://me:hunter2@h/music"])
def test_a_password_in_a_job_is_refused_and_not_repeated(tmp_path, dsn):
    with pytest.raises(UsageError, match="NEARFIELD_DSN") as refused:
        read_job(job_with(tmp_path, dsn))
    assert "hunter2" not in str(refused.value)


def test_the_load_gets_the_database_where_others_dont_see_it(tmp_path, monkeypatch):
    started = []

    def run(command, **options):
        started.append((command, options["env"]))
        return subprocess.CompletedProcess(command, 0, "{}")

    monkeypatch.setattr(subprocess, "run", run)
    load_here(read_job(job_with(tmp_path, "host=h dbname=music")), tmp_path / "run")
    ((command, environment),) = started
    assert not [word for word in command if "music" in word]
    assert environment["NEARFIELD_DSN"] == "host=h dbname=music"
    assert "-P" in command


def test_hosts_that_have_a_price_cost_it_from_up_to_down(tmp_path, monkeypatch):
    written(
        tmp_path,
        'run = "lab"\nprovider = "hosts"\nprices = "prices.toml"\n'
        '[hosts]\ninventory = "hosts.toml"\n',
    )
    (tmp_path / "prices.toml").write_text(
        'currency = "EUR"\n[[machines]]\nprovider = "hosts"\ntype = "any"\nhourly = 0.5\n'
        'cores = 2\nmemory_gb = 4\ndisk_gb = 9\nas_of = "2026-12-01"\nsource = "ours"\n'
    )
    (tmp_path / "hosts.toml").write_text(
        'name = "lab"\n[[hosts]]\nname = "a"\naddress = "127.0.0.1"\nrole = "both"\n'
    )
    settings = read_settings(tmp_path / "machines.toml")
    assert [one["hourly"] for one in fleet.plan(settings)] == [0.5]
    monkeypatch.setattr("vm_scripts.remote.share_folder", lambda *_words, **_more: None)
    fleet.up(settings)
    assert (fleet.status(settings).cost.so_far, fleet.status(settings).cost.per_hour) == (0.5, 0.5)
    fleet.down(settings)
    assert (fleet.status(settings).cost.so_far, fleet.status(settings).cost.per_hour) == (0.5, 0)
