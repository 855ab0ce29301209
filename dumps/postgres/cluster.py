"""The data directory of an embedded server, and what to say when the server can't use it.

Owns `data/` and `server.log` in the embedded server's folder. Data below a folder that the server's
user can't enter (/root) is reached through an inherited descriptor, /proc/self/fd/N: the kernel
follows it without asking the folders above, so no permission changes.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dumps.postgres.binaries import ENVIRONMENT, Account
from nearfield.errors import DatabaseError, DiskFull
from nearfield.files import fsync_path

NEEDED_BYTES = 64 << 20
"""A new cluster (39 MB, measured with versions 15 and 18) and its first log files."""


def make_cluster(folder: Path, binaries: Path, account: Account) -> None:
    """Make data/ whole or not at all: under another name first, as an earlier try may have died."""
    # initdb doesn't name a full disk reliably: one of its versions aborts instead
    if shutil.disk_usage(folder).free < NEEDED_BYTES:
        raise _no_room(folder)
    partial = folder / "data.partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(mode=0o700)
    account.own(partial)
    with opened(partial) as descriptor:
        done = subprocess.run(
            [
                binaries / "initdb",
                "-D",
                by_descriptor(descriptor),
                "--username=nearfield",
                "--auth=trust",
                "--no-locale",
                "--encoding=UTF8",
                "--data-checksums",
            ],
            pass_fds=[descriptor],
            cwd="/",
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
            **account.options(),
        )
    if done.returncode:
        raise _failure(folder, "initdb", done.stdout + done.stderr)
    partial.replace(folder / "data")
    fsync_path(folder)


def start_failure(folder: Path) -> DatabaseError | DiskFull:
    """The error for a server that ended before it accepted connections."""
    log = folder / "server.log"
    said = log.read_text(errors="replace") if log.exists() else ""
    return _failure(folder, "the server", said)


def _failure(folder: Path, what: str, said: str) -> DatabaseError | DiskFull:
    if "No space left on device" in said:
        return _no_room(folder)
    tail = " / ".join(said.strip().splitlines()[-4:]) or "nothing"
    return DatabaseError(
        f"the embedded Postgres in {folder} didn't start; {what} said: {tail}. The rest stands in "
        "server.log there. Give another server with --dsn, or remove the folder and load again"
    )


def _no_room(folder: Path) -> DiskFull:
    return DiskFull(
        f"no room left for the embedded Postgres in {folder}: free space there (about "
        f"{NEEDED_BYTES >> 20} MB, and for k = 100 about 1 kB per recording), then run the same "
        "command again"
    )


def data_version(data: Path) -> int | None:
    """The major version of Postgres that made the data; None where there is none."""
    try:
        return int((data / "PG_VERSION").read_text())
    except FileNotFoundError:
        return None


def by_descriptor(descriptor: int) -> str:
    """A path to an inherited folder."""
    return f"/proc/self/fd/{descriptor}"


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    """A descriptor of a folder, to be inherited by the server."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
