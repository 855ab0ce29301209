"""How to reach a running scheduler: an address, or a connection file with address and certificates.

Owns the connection file that `nearfield cluster up` writes and the variables NEARFIELD_TLS_CA,
NEARFIELD_TLS_CERT and NEARFIELD_TLS_KEY (paths, never keys). Without any of them Dask's own
configuration counts.
"""

import os
from pathlib import Path

import msgspec
from distributed.security import Security

from nearfield.errors import MissingFile, UsageError

VARIABLES = {
    "tls_ca": "NEARFIELD_TLS_CA",
    "tls_cert": "NEARFIELD_TLS_CERT",
    "tls_key": "NEARFIELD_TLS_KEY",
}


class Connection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scheduler's address and the files that show who we are; relative paths count from the
    connection file.
    """

    scheduler: str
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None


def connection(named: str) -> tuple[str, Security | None]:
    """The address and the credentials for `named`: tcp://..., tls://..., or a connection file.

    Raises `MissingFile` and `UsageError`; the keys themselves are read by Dask.
    """
    if "://" in named:
        found, base = Connection(named), Path()
    else:
        path = Path(named).expanduser()
        found, base = _read(path), path.resolve().parent
    files = {
        field: base / value if (value := getattr(found, field)) else os.environ.get(variable)
        for field, variable in VARIABLES.items()
    }
    if not found.scheduler.startswith("tls://"):
        return found.scheduler, None
    given = {field: Path(value) for field, value in files.items() if value}
    if not given:
        return found.scheduler, None
    if len(given) < len(VARIABLES):
        lacking = ", ".join(VARIABLES[field] for field in VARIABLES if field not in given)
        raise UsageError(
            "a tls:// scheduler needs an authority, a certificate and a key; missing is "
            f"{lacking} or the same in a connection file"
        )
    for path in given.values():
        if not path.is_file():
            raise MissingFile(f"expected a certificate or key at {path}, found none")
    return found.scheduler, Security(
        require_encryption=True,
        tls_ca_file=str(given["tls_ca"]),
        tls_client_cert=str(given["tls_cert"]),
        tls_client_key=str(given["tls_key"]),
    )


def _read(path: Path) -> Connection:
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Connection)
    except FileNotFoundError as error:
        raise MissingFile(
            f"expected a scheduler's address (tls://HOST:PORT) or a connection file, and {path} "
            "is neither. `nearfield cluster up` writes one"
        ) from error
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the connection file {path} can't be used: {error}") from error
