"""What is done on a machine over SSH: software, shared folder, heartbeat, the job, copies."""

import json
import secrets
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from nearfield.clusters.inventory import Host
from nearfield.clusters.ssh import Shell, Unreachable
from nearfield.errors import Infrastructure, UsageError

ROOT = Path(__file__).parents[1]
HEARTBEAT = "/run/nearfield/heartbeat"
READY_MARK = ".ready"
SHARED_MARK = ".shared"
JOB_MARK = "job.mark"
INSTALL_TIMEOUT_S = 1800
BEAT_S = 60.0
STILL_S = 300
"""A copy in which nothing moves for so long is ended, and tried again."""
CUT_OFF = {10, 12, 30, 35, 255}
"""How rsync ends when the connection does."""
MOUNT_OPTIONS = "rw,hard,noatime,lookupcache=positive,actimeo=1"
"""A part that another host has just written must be seen at once."""


@dataclass(frozen=True)
class JobState:
    """The job on the head. `code` None while it runs; `log` what it wrote since `offset`."""

    running: bool
    code: int | None
    log: str
    offset: int


def install(shell: Shell, host: Host) -> None:
    """Put nearfield into the host's environment, unless this version is there already."""
    python = shell.inventory.python
    ask = "import importlib.metadata as m; print(m.version('nearfield'))"
    there = shell.run(host, f"{shlex.quote(python)} -c {shlex.quote(ask)} 2>/dev/null || true\n")
    if there.strip() == version("nearfield"):
        return
    print(f"installing nearfield on {host.name}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        wheel = _wheel(Path(folder))
        copy_to(shell, host, [str(wheel), str(ROOT / "constraints.txt")], "nearfield-wheel/")
    environment = shlex.quote(str(Path(python).parents[1]))
    shell.run(
        host,
        f"set -e\npython3 -m venv {environment}\n{shlex.quote(python)} -m pip install --quiet "
        f"-c nearfield-wheel/constraints.txt nearfield-wheel/{wheel.name}'[machines]'\n",
        timeout_s=INSTALL_TIMEOUT_S,
    )


def ready_script(folder: str) -> str:
    """Prints `ready` once cloud-init has done its part, and counts as a heartbeat."""
    return (
        f"if [ -w {HEARTBEAT} ]; then touch {HEARTBEAT}; fi\n"
        f"if [ -e {folder}/{READY_MARK} ]; then echo ready\n"
        "elif cloud-init status 2>/dev/null | grep -q '^status: error'; then\n"
        "  echo 'failed: cloud-init'\nelse echo 'waiting for cloud-init'; fi\n"
    )


def share_folder(shell: Shell, folder: str, *, mount: bool) -> None:
    """See that all hosts have the head's folder: where they don't, mount it from the head by NFS.

    The head exports to its workers' private addresses alone. Raises `Infrastructure` when a host
    doesn't see the folder in the end; with `mount` False that is all that is done.
    """
    head = shell.inventory.scheduler
    others = [host for host in shell.inventory.hosts if host is not head]
    if not others:
        return
    token = secrets.token_hex(8)
    shell.run(head, f"mkdir -p {folder}\necho {token} >{folder}/{SHARED_MARK}\n")
    lacking = _without(shell, others, folder, token)
    if lacking and mount:
        clients = " ".join(f"{host.address}(rw,sync,no_subtree_check)" for host in others)
        shell.run(
            head,
            "set -e\nsudo mkdir -p /etc/exports.d\n"
            f"echo '{folder} {clients}' | sudo tee /etc/exports.d/nearfield.exports >/dev/null\n"
            "sudo systemctl start nfs-kernel-server\nsudo exportfs -ra\n",
        )
        for host in lacking:
            source = f"{head.address}:{folder}"
            shell.run(host, f"sudo mount -t nfs4 -o {MOUNT_OPTIONS} {source} {folder}\n")
        lacking = _without(shell, others, folder, token)
    if lacking:
        names = ", ".join(host.name for host in lacking)
        raise Infrastructure(
            f"{names} must see the folder {folder} of {head.name} at the same path: share it, for "
            "example by NFS"
        )


def _without(shell: Shell, hosts: list[Host], folder: str, token: str) -> list[Host]:
    script = f"cat {folder}/{SHARED_MARK} 2>/dev/null || true\n"
    return [host for host in hosts if shell.run(host, script).strip() != token]


def beat(shell: Shell) -> None:
    """Tell every machine that its driver is alive. Hosts that can't be reached are left out."""
    # a machine of ours powers off without: then it must be said that it can't be told
    script = f"if [ -e {HEARTBEAT} ]; then touch {HEARTBEAT}; fi\n"

    def one(host: Host) -> None:
        try:
            shell.run(host, script, timeout_s=30)
        except Infrastructure as error:
            print(f"no heartbeat: {error}", file=sys.stderr)

    with ThreadPoolExecutor(max_workers=len(shell.inventory.hosts)) as pool:
        list(pool.map(one, shell.inventory.hosts))


@contextmanager
def beating(shell: Shell) -> Iterator[None]:
    """Beat at once and for the block, so that no machine counts as forgotten while something takes
    long. By a thread of this process, with which it ends.
    """
    over = threading.Event()

    def beats() -> None:
        while True:
            try:
                beat(shell)
            except Exception as error:
                # whatever it was: without the next beats the machines would power off
                print(f"no heartbeat: {error}", file=sys.stderr)
            if over.wait(BEAT_S):
                return

    thread = threading.Thread(target=beats, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def mark_job(shell: Shell, folder: str, mark: str) -> None:
    """Say what is to be computed in the folder on the head; end a job that computes another."""
    script = (
        f"folder={shlex.quote(folder)}\nrole=job\nmark={shlex.quote(mark)}\n{_functions()}"
        f'if [ "$(cat "$folder/{JOB_MARK}" 2>/dev/null)" != "$mark" ]; then\n'
        f'  stop\n  mkdir -p "$folder"\n  echo "$mark" >"$folder/{JOB_MARK}"\nfi\n'
    )
    shell.run(shell.inventory.scheduler, script)


def start_job(shell: Shell, folder: str) -> None:
    """Start `nearfield run job.toml` in the folder on the head, detached; or find it running."""
    command = f"{shlex.quote(shell.inventory.python)} -m nearfield run job.toml --no-load --json"
    wrapped = f"rm -f job.exit; {command} >job.json; echo $? >.job.exit; mv .job.exit job.exit"
    script = (
        f"folder={shlex.quote(folder)}\nrole=job\n{_functions()}"
        'if ! running_pid >/dev/null; then rm -f "$folder/job.exit" "$folder/job.log"; fi\n'
        f"start sh -c {shlex.quote(wrapped)}\n"
    )
    shell.run(shell.inventory.scheduler, script)


def job_state(shell: Shell, folder: str, offset: int) -> JobState:
    """How the job is, and its log from `offset` on."""
    script = (
        f"folder={shlex.quote(folder)}\nrole=job\n{_functions()}"
        # in this order: a job may end between the two
        'status\ncat "$folder/job.exit" 2>/dev/null || echo none\n'
        f'tail -c +{offset + 1} "$folder/job.log" 2>/dev/null || true\n'
    )
    state, code, log = shell.run(shell.inventory.scheduler, script).split("\n", 2)
    running = state.startswith("running")
    return JobState(
        running=running,
        code=None if running or code == "none" else int(code),
        log=log,
        offset=offset + len(log.encode()),
    )


def stop_job(shell: Shell, folder: str) -> None:
    """End the job on the head, if it runs."""
    script = f"folder={shlex.quote(folder)}\nrole=job\n{_functions()}stop\n"
    shell.run(shell.inventory.scheduler, script)


def report_of(shell: Shell, folder: str) -> dict[str, object]:
    """What the finished job printed."""
    text = shell.run(shell.inventory.scheduler, f"cat {shlex.quote(folder)}/job.json\n")
    return dict(json.loads(text))


def copy_to(shell: Shell, host: Host, sources: list[str], target: str, *words: str) -> None:
    """Copy files to the host; times are kept, what is there already isn't sent again."""
    _rsync(shell, host, [*words, "--", *sources, f"{_place(host)}:{target}"])


def copy_from(
    shell: Shell, host: Host, source: str, target: Path, *words: str, timeout_s: float | None = None
) -> str:
    """Copy a folder's content from the host; what rsync says, if it is asked to say something."""
    words = (*words, "--", f"{_place(host)}:{source}", f"{target}/")
    return _rsync(shell, host, list(words), timeout_s)


def _rsync(shell: Shell, host: Host, words: list[str], timeout_s: float | None = None) -> str:
    ssh = shlex.join(["ssh", *shell.options(host)])
    command = ["rsync", "-a", "--mkpath", "--partial", f"--timeout={STILL_S}", "-e", ssh, *words]
    try:
        # a group of its own: a second Ctrl-C must not end what saves the results after the first
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, process_group=0,
            timeout=timeout_s,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise UsageError("no rsync here: install rsync") from error
    except subprocess.TimeoutExpired as error:
        raise Infrastructure(f"copying from {host.name} took over {timeout_s:.0f} s") from error
    if done.returncode:
        kind = Unreachable if done.returncode in CUT_OFF else Infrastructure
        raise kind(f"copying to or from {host.name} failed: {done.stderr.strip()[-300:]}")
    return done.stdout


def _place(host: Host) -> str:
    return f"[{host.ssh_address}]" if ":" in host.ssh_address else host.ssh_address


def _wheel(folder: Path) -> Path:
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "-w",
        str(folder),
        str(ROOT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Infrastructure(f"no wheel of nearfield could be made: {done.stderr.strip()[-300:]}")
    return next(folder.glob("nearfield-*.whl"))


def _functions() -> str:
    return files("nearfield.clusters").joinpath("host.sh").read_text()
