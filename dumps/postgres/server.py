"""Where the matrix' database is: a given server, or one embedded in a run's directory.

Owns the embedded server's folder and its start; keeper.py owns its life. The folder:

    data/          the database cluster, owned by the user that runs the server
    server.log     what the server said since its last start
    starting.lock  held while a command joins or starts the server
    running.lock   held by every process of the server, so it is free only when all are gone;
                   its content is the folder of the sockets

Many commands share one server. Refuses to know what the database holds.
"""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dumps.postgres import keeper
from dumps.postgres.binaries import ENVIRONMENT, Account, account_for, find_binaries
from dumps.postgres.cluster import by_descriptor, data_version, make_cluster, opened, start_failure
from nearfield.dsn import masked
from nearfield.errors import DatabaseError, MissingFile, UsageError, disk_errors

START_TIMEOUT_S = 600.0
"""Long, since a server that was killed replays its log first."""
SOCKETS_PREFIX = "nearfield-pg-"
LONGEST_SOCKET_FOLDER = 80
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "20",
    "shared_buffers": "128MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    # nothing is replicated, so a table filled in the transaction that made it needs no log:
    # it is forced to disk at commit instead
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
}


@contextmanager
def database(dsn: str | None, directory: Path | None, *, create: bool = True) -> Iterator[str]:
    """Yield a DSN for the block: `dsn`, or that of an embedded server.

    It keeps its data in `directory` (None: the one below the working directory)
    and is shared by all commands that use it at the same time; the last one to leave stops it.
    `create` False raises `MissingFile` where there is no data yet, for commands that only read.
    Raises `UsageError`, `DatabaseError`, `DiskFull`. Cost: about 1.5 s for new data, else 0.3 s.
    """
    if dsn:
        masked(dsn)
        yield dsn
        return
    with embedded(directory or find_embedded(Path()), create=create) as address:
        yield address


@contextmanager
def embedded(folder: Path, *, create: bool = True) -> Iterator[str]:
    """Yield the DSN of the embedded server with its data in `folder`; see `database`."""
    if not create and not (folder / "data" / "PG_VERSION").exists():
        raise MissingFile(f"expected an embedded database in {folder}; `nearfield load` makes one")
    with _joined(folder) as sockets:
        yield f"host={sockets} port=5432 user=nearfield dbname=postgres"


def find_embedded(start: Path) -> Path:
    """The embedded database in `start` or one folder below it, for commands that name none.

    Raises `MissingFile` when there is none and `UsageError` when there are several.
    """
    candidates = [start / "postgres", *sorted(start.glob("*/postgres"))]
    found = [path for path in candidates if (path / "data" / "PG_VERSION").exists()]
    advice = "Name a run with --run RUN, or a server with --dsn DSN or NEARFIELD_DSN"
    if not found:
        raise MissingFile(
            f"expected a run with a loaded database in {start.resolve()} or one folder below it; "
            f"found none. {advice}"
        )
    if len(found) > 1:
        names = ", ".join(str(path.parent) for path in found)
        raise UsageError(f"several runs here have a database: {names}. {advice}")
    return found[0]


@contextmanager
def _joined(folder: Path) -> Iterator[Path]:
    """Be a user of the folder's server for the block; yields the folder of its sockets."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with disk_errors(folder), _flocked(folder / "starting.lock"):
            user = _join(folder) or _start(folder)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise DatabaseError(
            f"the embedded Postgres can't use {folder}: {error.strerror} ({error.filename}). "
            "Choose a folder that you own, or give a server with --dsn"
        ) from error
    try:
        yield _sockets(folder)
    finally:
        user.leave()


_left_running: list[subprocess.Popen[bytes]] = []
"""Keepers that this process started and that serve others now; held so that they can be reaped."""


@dataclass(frozen=True)
class _User:
    """A connection to a keeper; `started`: the keeper, where it is a child of this process."""

    connection: socket.socket
    started: subprocess.Popen[bytes] | None = None

    def is_welcome(self) -> bool:
        """Wait until the server accepts connections; False if it has ended instead."""
        self.connection.settimeout(START_TIMEOUT_S)
        with suppress(OSError):
            if self.connection.recv(len(keeper.GREETING)):
                return True
        self.connection.close()
        if self.started:
            self.started.wait()
        return False

    def leave(self) -> None:
        """Returns when the server has stopped, or at once if others use it."""
        said = b""
        with closing(self.connection), suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(2 * keeper.STOP_TIMEOUT_S)
            while more := self.connection.recv(64):
                said += more
        if self.started and keeper.STAYS in said:
            _left_running.append(self.started)
        elif self.started:
            self.started.wait()


def _join(folder: Path) -> _User | None:
    """A user of a server that runs already, or None."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(_sockets(folder) / "keeper"))
    except OSError:
        connection.close()
        return None
    user = _User(connection)
    return user if user.is_welcome() else None


def _start(folder: Path) -> _User:
    """Start the folder's server, waiting for an earlier one to be gone; its data made if absent."""
    with _flocked(folder / "running.lock") as lock:
        _left_running[:] = [process for process in _left_running if process.poll() is None]
        _remove_sockets(_sockets(folder))
        account = account_for(folder / "data")
        sockets = _new_sockets(account)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(sockets).encode(), 0)
        try:
            user = _run_server(folder, sockets, account, lock)
        except BaseException:
            shutil.rmtree(sockets, ignore_errors=True)
            raise
        if not user.is_welcome():
            raise start_failure(folder)
        return user


def _run_server(folder: Path, sockets: Path, account: Account, lock: int) -> _User:
    data = folder / "data"
    binaries = find_binaries(account, major=data_version(data), scratch=sockets)
    if not data.exists():
        make_cluster(folder, binaries, account)
    # nobody holds running.lock, so the server that wrote this is gone
    (data / "postmaster.pid").unlink(missing_ok=True)
    settings = {**SETTINGS, "unix_socket_directories": str(sockets)}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    ours, theirs = socket.socketpair()
    with opened(data) as descriptor, closing(theirs):
        plan = {
            "command": [str(binaries / "postgres"), "-D", by_descriptor(descriptor), *options],
            "account": account.options(),
            "environment": ENVIRONMENT,
            "inherited": [descriptor, lock],
            "folder": str(sockets),
            "log": str((folder / "server.log").resolve()),
            "first_user": theirs.fileno(),
        }
        started = subprocess.Popen(
            [sys.executable, "-I", keeper.__file__, json.dumps(plan)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), descriptor, lock],
            start_new_session=True,
            cwd="/",
        )
    return _User(ours, started)


@contextmanager
def _flocked(path: Path) -> Iterator[int]:
    """Hold a lock file for the block, or longer in processes that inherit the descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _sockets(folder: Path) -> Path:
    try:
        return Path((folder / "running.lock").read_text() or "/nonexistent")
    except FileNotFoundError:
        return Path("/nonexistent")


def _new_sockets(account: Account) -> Path:
    """A private folder with a short path: a socket's path is limited to 107 bytes."""
    base = tempfile.gettempdir()
    if len(base) > LONGEST_SOCKET_FOLDER:
        base = "/tmp"  # noqa: S108 (mkdtemp makes a private folder in it)
    sockets = Path(tempfile.mkdtemp(prefix=SOCKETS_PREFIX, dir=base))
    account.own(sockets)
    return sockets


def _remove_sockets(sockets: Path) -> None:
    """Remove what a keeper that was killed left behind."""
    if sockets.name.startswith(SOCKETS_PREFIX):
        shutil.rmtree(sockets, ignore_errors=True)
