"""Two workers on two hosts with a link between them, against one worker: seconds, and bytes moved.

    python -m tests.clusters.two_hosts --rows 1000000 --dims 128 --out DIR     # as root, with sshfs

Two network namespaces with one core each. `here` has the driver, the scheduler, a worker and the
folder; `there` has a worker, and sees the folder by SFTP (FUSE, not encrypted) over a link of
`--mbit` and `--delay-ms` (tests/clusters/slow_link.py): all that its tasks read and write crosses
it, and so does Dask, with TLS. One worker is `here` alone, with the folder as a local one. The SSH
that starts the services takes another way. Prints a JSON line per case and appends it to
DIR/hosts.jsonl; the digest tells whether both cases gave the same lists.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import h5py

from benchmark.selfjoin_ladder import machine
from benchmark.selfjoin_workers import digest, prepared_vectors
from nearfield import api
from tests.clusters.lab import Lab
from tests.clusters.slow_link import DEVICE, End, link
from tests.clusters.slow_link import measured as measured_link

HERE, THERE = "10.87.0.1", "10.87.0.2"
FILES_PORT = 5115
SFTP_SERVER = "/usr/lib/openssh/sftp-server"
READ_AHEAD_KB = 1024
MOUNT_OPTIONS = (
    f"directport={FILES_PORT},cache=yes,kernel_cache,dcache_timeout=1,"
    "dcache_stat_timeout=1,dcache_dir_timeout=1,entry_timeout=0,negative_timeout=0,"
    "max_conns=2,max_read=131072,max_write=131072"
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--mbit", type=float, default=1000)
    parser.add_argument("--delay-ms", type=float, default=1)
    parser.add_argument("--cases", type=int, nargs="+", default=[1, 2], choices=[1, 2])
    parser.add_argument(
        "--processes", type=int, nargs=2, default=[1, 2],
        help="worker processes of each host: over a link one computes while another waits for it",
    )  # fmt: skip
    parser.add_argument("--cores", nargs=2, default=["0", "1"], help="of each host")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    folder = asked.out.resolve() / "folder"
    folder.mkdir(parents=True, exist_ok=True)
    prepared(folder, asked.rows, asked.dims)
    shutil.rmtree(asked.out / "lab", ignore_errors=True)
    with Lab(
        asked.out.resolve() / "lab",
        ("client", "here", "there"),
        dict(zip(("here", "there"), asked.cores, strict=True)),
    ) as lab:
        for case in asked.cases:
            line = json.dumps(measured(lab, folder, asked, case) | {"machine": machine()})
            print(line, flush=True)
            with (asked.out / "hosts.jsonl").open("a") as stream:
                stream.write(line + "\n")


def measured(lab, folder, asked, workers):
    """One case: warmed up with few rows, then built once."""
    ends = End(lab.space("here"), HERE), End(lab.space("there"), THERE)
    with link(*ends, mbit=asked.mbit, delay_ms=asked.delay_ms), served(lab):
        speed = [measured_link(*ends), measured_link(*reversed(ends))]
        inventory = inventory_of(lab, workers, asked.processes)
        if workers == 2:
            mount(lab, folder)
        nearfield(lab, "cluster", "up", inventory)
        try:
            connection = inventory.with_suffix(".cluster") / "cluster.toml"
            prepared(folder / "warm", min(asked.rows, 50_000), asked.dims)
            build(lab, folder / "warm", asked, connection)
            if workers == 2:
                forget_vectors(lab, folder)
            before, worked = sent(lab), processor_seconds(lab)
            seconds = build(lab, folder, asked, connection)
            worked = {name: round(value, 1)
                      for name, value in (processor_seconds(lab) - worked).items()}  # fmt: skip
            crossed = [end - start for start, end in zip(before, sent(lab), strict=True)]
        finally:
            nearfield(lab, "cluster", "down", inventory)
            if workers == 2:
                unmount(lab, folder)
    told = {name: getattr(asked, name) for name in ("rows", "dims", "k", "processes")}
    told |= {"workers": workers, "seconds": seconds, "link": speed, "processor seconds": worked}
    told |= {"link bytes to there": crossed[0], "link bytes to here": crossed[1]}
    return told | facts_of(folder / "run")


def prepared(folder, rows, dims):
    """The vector set in a folder, unless it is there."""
    prepared_vectors(argparse.Namespace(out=folder, rows=rows, dims=dims, space="l2"))


def facts_of(run):
    with h5py.File(run / "matrix.h5") as file:
        mark = digest(file["neighbours"][...], file["distances"][...])
    steps = api.status(run).steps
    return {
        "digest": mark,
        "steps": {step["step"]: step["seconds"] for step in steps},
        "bytes per recording": sum(step.get("bytes_per_recording", 0) for step in steps),
    }


def build(lab, folder, asked, connection):
    """Seconds of a build on the cluster, driven from `here`."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    started = time.monotonic()
    nearfield(lab, "build", folder / "vectors", "--out", folder / "run", "-k", asked.k, "--recall",
              asked.recall, "--method", "selfjoin", "--scheduler", connection)  # fmt: skip
    return round(time.monotonic() - started, 2)


def nearfield(lab, *words):
    """A command of ours on the host `here`, on its core."""
    done = lab.on(
        "here", "taskset", "-c", lab.cores["here"], sys.executable, "-m", "nearfield", *words
    )
    if done.returncode:
        raise SystemExit(f"nearfield {' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


def inventory_of(lab, workers, processes):
    """One host that does all, or two. Services talk over the link, SSH goes over the bridge."""
    lines = ['name = "lab"', f'python = "{sys.executable}"', f'identity = "{lab.key}"',
             f'folder = "{lab.services}"']  # fmt: skip
    hosts = ("here", HERE, processes[0]), ("there", THERE, processes[1])
    for name, address, count in hosts[:workers]:
        lines += ["[[hosts]]", f'name = "{name}"', f'address = "{address}"',
                  f'ssh = "{lab.address(name)}"', f'host_key = "{lab.host_key(name)}"',
                  f'role = "{"both" if name == "here" else "worker"}"', "cores = 1",
                  f"workers = {count}"]  # fmt: skip
    path = lab.folder / f"{workers}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def sent(lab):
    """What has left each host by the link, in bytes."""
    return [lab.bytes_sent(name, DEVICE) for name in ("here", "there")]


def processor_seconds(lab):
    """What each program that runs on a host has used, and those that it has waited for."""
    used = Counter()
    for host in ("here", "there"):
        for pid in lab.pids(host):
            try:
                name, rest = Path(f"/proc/{pid}/stat").read_text().split("(", 1)[1].rsplit(")", 1)
            except OSError:
                continue
            ticks = sum(map(int, rest.split()[11:15]))
            used[f"{host}: {name}"] += ticks / os.sysconf("SC_CLK_TCK")
    return used


@contextmanager
def served(lab):
    """An SFTP server for the folder on `here`, for the block."""
    words = ("taskset", "-c", lab.cores["here"], sys.executable, "-m", __spec__.name, "--serve")
    process = lab.start("here", *words)
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def mount(lab, folder):
    """The folder of `here`, on `there`, at the same path."""
    over_ssh(lab, f"for i in $(seq 50); do sshfs -o {MOUNT_OPTIONS} {HERE}:{folder} {folder} "
             "&& exit; sleep 0.1; done; exit 1")  # fmt: skip
    over_ssh(lab, f"d=$(stat -c %d {folder}); echo {READ_AHEAD_KB} >/sys/class/bdi/"
             "$((d / 256)):$((d % 256))/read_ahead_kb")  # fmt: skip


def unmount(lab, folder):
    over_ssh(lab, f"fusermount3 -u {folder}")


def forget_vectors(lab, folder):
    """A run that was interrupted may have left a copy of them on `there`."""
    path = str(folder / "vectors" / "vectors.npy")
    script = f"from index_build.vector_file import forget_copy; forget_copy({path!r})"
    over_ssh(lab, shlex.join([sys.executable, "-c", script]))


def over_ssh(lab, script):
    """Run a script on `there`, in its own view of the file system."""
    known = lab.folder / "known"
    known.write_text(f"{lab.address('there')} {lab.host_key('there')}\n")
    words = ("ssh", "-i", lab.key, "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes",
             lab.address("there"), script)  # fmt: skip
    done = lab.on("client", *words)
    if done.returncode:
        raise SystemExit(f"on there: {script}: {done.stderr}")
    return done.stdout


def serve():
    """Give every connection an SFTP server of its own."""
    with socket.create_server((HERE, FILES_PORT)) as listening:
        while True:
            connection, _ = listening.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                subprocess.Popen([SFTP_SERVER], stdin=connection, stdout=connection)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        serve()
    # ended from outside it must leave no host behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
