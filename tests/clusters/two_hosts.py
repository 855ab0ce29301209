"""Two hosts with a link between them, against one, alone and beside a busy one: seconds, and bytes.

    python -m tests.clusters.two_hosts --rows 1000000 --dims 128 --out DIR     # as root, with sshfs

Two network namespaces with one core each. `here` has the driver, the scheduler, a worker and the
folder; `there` has a worker, and sees the folder by SFTP (FUSE, not encrypted) over a link of
`--mbit` and `--delay-ms` (tests/clusters/slow_link.py): all that its tasks read and write crosses
it, and so does Dask, with TLS. The SSH that starts the services takes another way. The cases:

    2        both build one matrix
    1        `here` alone builds it, with the folder as a local one; the other core idles
    beside   `here` and `there` each build one, of the same vectors, in a folder and with a cluster
             of their own; the seconds are of whichever ends first, as its neighbour was busy
             until then

Cores of one machine share what cores of two wouldn't: memory, caches, or, as threads of one core,
all. `1` has both shares for itself, which no host of a pair has that shares a core; `beside` has
one, as each host of `2` has, but only a share of the disk, too. Prints a JSON line per case and
appends it to DIR/hosts.jsonl, and at the end how many times as fast `2` is; the digest tells
whether all cases gave the same lists.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py

from benchmark.selfjoin_ladder import machine
from benchmark.selfjoin_workers import digest, prepared_vectors
from nearfield import api
from tests.clusters.lab import Lab
from tests.clusters.slow_link import DEVICE, End, link
from tests.clusters.slow_link import measured as measured_link

HERE, THERE = "10.87.0.1", "10.87.0.2"
ADDRESSES = {"here": HERE, "there": THERE}
CASES = ALONE, TWO, BESIDE = "1", "2", "beside"
WARM_ROWS = 50_000
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
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
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
    prepared(folder / "warm", min(asked.rows, WARM_ROWS), asked.dims)
    shutil.rmtree(asked.out / "lab", ignore_errors=True)
    seconds = {}
    with Lab(
        asked.out.resolve() / "lab",
        ("client", "here", "there"),
        dict(zip(("here", "there"), asked.cores, strict=True)),
    ) as lab:
        for case in asked.cases:
            found = measured(lab, folder, asked, case)
            seconds[case] = found["seconds"]
            line = json.dumps(found | {"machine": machine()})
            print(line, flush=True)
            with (asked.out / "hosts.jsonl").open("a") as stream:
                stream.write(line + "\n")
    if two := seconds.pop(TWO, None):
        times = {case: round(one / two, 2) for case, one in seconds.items()}
        print(json.dumps({"times as fast as one that two hosts are": times}))


@dataclass(frozen=True)
class Builder:
    """A cluster, and the folder of its vectors and run; driver and scheduler are on `host`."""

    host: str
    folder: Path
    inventory: Path

    @property
    def connection(self):
        return self.inventory.with_suffix(".cluster") / "cluster.toml"


def measured(lab, folder, asked, case):
    """One case: warmed up with few rows, then built once."""
    ends = End(lab.space("here"), HERE), End(lab.space("there"), THERE)
    with ExitStack() as stack:
        stack.enter_context(link(*ends, mbit=asked.mbit, delay_ms=asked.delay_ms))
        speed = []
        if case == TWO:
            speed = [measured_link(*ends), measured_link(*reversed(ends))]
            stack.enter_context(mounted(lab, folder))
        builders = builders_of(lab, folder, asked, case)
        for builder in builders:
            stack.enter_context(running(lab, builder))
        at_once(build, lab, builders, asked, warm=True)
        if case == TWO:
            forget_vectors(lab, folder)
        before, worked = sent(lab), processor_seconds(lab)
        seconds = at_once(build, lab, builders, asked)
        worked = {name: round(value, 1)
                  for name, value in (processor_seconds(lab) - worked).items()}  # fmt: skip
        crossed = [end - start for start, end in zip(before, sent(lab), strict=True)]
    first = min(range(len(builders)), key=lambda it: seconds[it])
    told = {name: getattr(asked, name) for name in ("rows", "dims", "k", "processes")}
    told |= {"case": case, "workers": 2 if case == TWO else 1, "seconds": seconds[first]}
    told |= {"of each": seconds, "link": speed, "processor seconds": worked}
    told |= {"link bytes to there": crossed[0], "link bytes to here": crossed[1]}
    return told | facts_of(builders[first].folder / "run")


def builders_of(lab, folder, asked, case):
    """Who builds in a case."""
    if case == TWO:
        return [Builder("here", folder, inventory_of(lab, ("here", "there"), asked.processes))]
    alone = [Builder("here", folder, inventory_of(lab, ("here",), asked.processes))]
    if case == ALONE:
        return alone
    own = folder.with_name("folder-there")
    shutil.rmtree(own, ignore_errors=True)
    for vectors in (Path("vectors"), Path("warm/vectors")):
        shutil.copytree(folder / vectors, own / vectors)
    return [*alone, Builder("there", own, inventory_of(lab, ("there",), asked.processes))]


@contextmanager
def running(lab, builder):
    """Its cluster, for the block."""
    nearfield(lab, builder.host, "cluster", "up", builder.inventory)
    try:
        yield
    finally:
        nearfield(lab, builder.host, "cluster", "down", builder.inventory)


def at_once(act, lab, builders, asked, **options):
    """What each builder's act gives, all begun at the same time."""
    with ThreadPoolExecutor(len(builders)) as pool:
        return list(pool.map(lambda builder: act(lab, builder, asked, **options), builders))


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


def build(lab, builder, asked, *, warm=False):
    """Seconds of a build on its cluster."""
    folder = builder.folder / "warm" if warm else builder.folder
    shutil.rmtree(folder / "run", ignore_errors=True)
    started = time.monotonic()
    nearfield(lab, builder.host, "build", folder / "vectors", "--out", folder / "run",
              "-k", asked.k, "--recall", asked.recall, "--method", "selfjoin",
              "--scheduler", builder.connection)  # fmt: skip
    return round(time.monotonic() - started, 2)


def nearfield(lab, host, *words):
    """A command of ours on a host, on its core."""
    done = lab.on(host, "taskset", "-c", lab.cores[host], sys.executable, "-m", "nearfield", *words)
    if done.returncode:
        raise SystemExit(f"nearfield {' '.join(map(str, words))} on {host}: {done.stderr}")
    return done.stdout


def inventory_of(lab, names, processes):
    """A cluster of some hosts, whose first does all. Services talk over the link, SSH goes over
    the bridge.
    """
    lines = ['name = "lab"', f'python = "{sys.executable}"', f'identity = "{lab.key}"',
             f'folder = "{lab.services}"']  # fmt: skip
    for name in names:
        # only over a link there is something to wait for while the other computes
        count = processes[1] if name != names[0] else processes[0]
        lines += ["[[hosts]]", f'name = "{name}"', f'address = "{ADDRESSES[name]}"',
                  f'ssh = "{lab.address(name)}"', f'host_key = "{lab.host_key(name)}"',
                  f'role = "{"both" if name == names[0] else "worker"}"', "cores = 1",
                  f"workers = {count}"]  # fmt: skip
    path = lab.folder / f"{'-'.join(names)}.toml"
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
def mounted(lab, folder):
    """The folder of `here`, on `there`, at the same path, for the block."""
    words = ("taskset", "-c", lab.cores["here"], sys.executable, "-m", __spec__.name, "--serve")
    process = lab.start("here", *words)
    try:
        over_ssh(lab, f"for i in $(seq 50); do sshfs -o {MOUNT_OPTIONS} {HERE}:{folder} {folder} "
                 "&& exit; sleep 0.1; done; exit 1")  # fmt: skip
        over_ssh(lab, f"d=$(stat -c %d {folder}); echo {READ_AHEAD_KB} >/sys/class/bdi/"
                 "$((d / 256)):$((d % 256))/read_ahead_kb")  # fmt: skip
        try:
            yield
        finally:
            over_ssh(lab, f"fusermount3 -u {folder}")
    finally:
        process.kill()
        process.communicate()


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
