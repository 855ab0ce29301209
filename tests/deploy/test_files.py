"""What is deployed is checked by its own tools, each where it is installed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nearfield.dsn import masked
from nearfield.errors import UsageError
from vm_scripts.user_data import user_data

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SHELL = sorted(
    [*DEPLOY.glob("**/*.sh"), ROOT / "vm_scripts/command.sh", ROOT / "nearfield/clusters/host.sh"]
)
UNITS = sorted([*DEPLOY.glob("systemd/*.service"), *DEPLOY.glob("systemd/*.timer")])


def run(name, *words, **options):
    """Run a tool of the system or of the environment; skips where it isn't."""
    beside = Path(sys.executable).parent / name
    tool = beside if beside.exists() else shutil.which(name)
    if not tool:
        pytest.skip(f"no {name} here")
    return subprocess.run(
        [tool, *words], capture_output=True, text=True, check=False, timeout=120, **options
    )


def assert_clean(done):
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_shell_scripts_are_clean(path):
    assert_clean(run("shellcheck", path))


def test_the_dockerfile_is_clean():
    assert_clean(run("hadolint", DEPLOY / "docker" / "Dockerfile"))


def test_the_image_gets_what_the_wheel_needs_and_nothing_else():
    packages = re.search(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.M)
    needed = set(re.findall(r'"(\w+)"', packages[1]))
    copied = re.findall(r"^COPY (\w+) (\w+)$", (DEPLOY / "docker/Dockerfile").read_text(), re.M)
    assert {source for source, _target in copied} == needed
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines()
               if line.startswith("!")}  # fmt: skip
    assert allowed == needed | {"pyproject.toml", "README.md", "LICENSE", "constraints.txt"}


def test_compose_follows_its_schema():
    assert_clean(
        run("check-jsonschema", "--builtin-schema", "vendor.compose-spec",
            DEPLOY / "docker/compose.yaml")
    )  # fmt: skip


def test_compose_resolves_and_insists_on_a_password():
    words = ("-f", DEPLOY / "docker/compose.yaml", "config", "-q")
    environment = {key: value for key, value in os.environ.items() if key != "POSTGRES_PASSWORD"}
    assert_clean(run("docker-compose", *words, env=environment | {"POSTGRES_PASSWORD": "x"}))
    assert run("docker-compose", *words, env=environment).returncode != 0


def test_a_password_of_compose_may_hold_any_character():
    words = ("-f", DEPLOY / "docker/compose.yaml", "--profile", "job", "config")
    password = "se/c@r%et"
    done = run("docker-compose", *words, env=os.environ | {"POSTGRES_PASSWORD": password})
    assert_clean(done)
    variables = yaml.safe_load(done.stdout)["services"]["driver"]["environment"]
    assert variables["PGPASSWORD"] == password
    dsn = variables["NEARFIELD_DSN"]
    assert sorted(masked(dsn).split()) == sorted(dsn.split())


MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.name)
def test_kubernetes_accepts_the_manifests(file):
    assert_clean(run("kubernetes-validate", "--strict", file))


def documents():
    return [one for file in MANIFESTS for one in yaml.safe_load_all(file.read_text())]


def pod_of(document):
    spec = document["spec"]
    template = spec.get("template") or spec["jobTemplate"]["spec"]["template"]
    return template["spec"]


def test_every_pod_is_unprivileged_and_limited():
    pods = [pod_of(one) for one in documents() if one["kind"] in ("Deployment", "Job", "CronJob")]
    assert len(pods) == 4
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert set(container["resources"]["limits"]) == {"cpu", "memory"}


def test_the_scheduled_job_is_the_job():
    jobs = {one["kind"]: pod_of(one) for one in documents() if one["kind"] in ("Job", "CronJob")}
    assert jobs["Job"] == jobs["CronJob"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_the_units(unit):
    done = run("systemd-analyze", "verify", unit)
    # where it is checked nothing is installed at the place that the unit names
    problems = [line for line in done.stderr.splitlines() if "is not executable" not in line]
    assert [line for line in problems if unit.name.split("@")[0] in line] == []


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".timer"],
                         ids=lambda unit: unit.name)  # fmt: skip
def test_timers_name_times_that_exist(unit):
    (when,) = re.findall(r"^OnCalendar=(.*)$", unit.read_text(), re.MULTILINE)
    assert_clean(run("systemd-analyze", "calendar", when))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_what_units_start_is_there(unit):
    for path in re.findall(r"^ExecStart=/opt/nearfield/source/(\S+)", unit.read_text(), re.M):
        assert os.access(ROOT / path, os.X_OK), path
    for named in re.findall(r"^OnFailure=(\S+)", unit.read_text(), re.MULTILINE):
        assert (DEPLOY / "systemd" / named.replace("%n", "")).exists()


@pytest.fixture
def filled(tmp_path):
    path = tmp_path / "user-data"
    path.write_text(
        user_data(public_key="ssh-ed25519 AAAA x", idle_minutes=7, folder="/srv/near", user="ops")
    )
    return path


def test_cloud_init_accepts_the_user_data(filled):
    assert_clean(run("cloud-init", "schema", "-c", filled))


def test_user_data_is_filled_in_whole(filled):
    text = filled.read_text()
    assert text.startswith("#cloud-config\n")
    assert not re.findall(r"@[A-Z_]+@", text)
    content = yaml.safe_load(text)
    (user,) = content["users"]
    assert user["name"] == "ops"
    assert content["runcmd"][3] == 'chown "ops:ops" "/srv/near" /opt/nearfield'
    assert user["ssh_authorized_keys"] == ["ssh-ed25519 AAAA x"]
    assert "nearfield-deadman 7 ops\n" in content["write_files"][1]["content"]
    assert "PRIVATE" not in text


@pytest.mark.parametrize("key", ["", "-----BEGIN OPENSSH PRIVATE KEY-----", 'ssh-ed25519 A"\nB'])
def test_what_is_no_public_key_is_refused(key):
    with pytest.raises(UsageError, match="public SSH key"):
        user_data(public_key=key, idle_minutes=7, folder="/srv/near", user="ops")


def test_shell_tests_pass():
    assert_clean(run("bats", ROOT / "tests" / "deploy"))
