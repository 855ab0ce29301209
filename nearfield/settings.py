"""The job file: one TOML file with everything that `nearfield run` needs, as one frozen value.

Owns names, defaults and types of the settings; unknown names are errors. Relative paths count from
the file's folder. Secrets don't belong here: a database address with a password comes from the
environment variable NEARFIELD_DSN, and one in the file is refused.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from nearfield.dsn import has_password
from nearfield.errors import MissingFile, UsageError


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class IngestSettings(_Section, frozen=True):
    """[ingest]: see `nearfield ingest --help` for the meaning of each."""

    sources: list[str]
    space: str | None = None
    ids: str | None = None
    labels_from: str | None = None
    zero: Literal["drop", "keep"] | None = None
    submissions: Literal["lowest", "median"] | None = None
    first_cepstral: Literal[0, 1] = 0
    max_rejected: float = 0.05
    workers: int | None = None
    id_column: str | None = None
    columns: list[str] = []
    categorical: list[str] = []
    labels: list[str] = []
    scale: Literal["standard", "robust", "none"] | None = None
    pca: int | None = None
    delimiter: str | None = None
    header_rows: int | None = None


class BuildSettings(_Section, frozen=True):
    """[build]: see `nearfield build --help`.

    runs: where the runs lie, a folder counted from the job's, or the URL of an object store.
    """

    k: Annotated[int, Meta(ge=1)] = 100
    recall: Annotated[float, Meta(gt=0, le=1)] = 0.95
    method: str = "auto"
    workers: int | None = None
    scheduler: str | None = None
    runs: str = "runs"


class VerifySettings(_Section, frozen=True):
    """[verify]: rows whose exact neighbours are compared."""

    sample: Annotated[int, Meta(ge=1)] = 1000


class LoadSettings(_Section, frozen=True):
    """[load]: `dsn` of a server (without password), or the folder of an embedded database.

    Neither: the server that NEARFIELD_DSN names, else the embedded database in `postgres`.
    """

    dsn: str | None = None
    database: str | None = None


class Settings(_Section, frozen=True):
    """A whole job. `folder` holds the vector set, the runs and the embedded database.

    keep_runs: run directories that stay after a publication, the newest ones.
    """

    ingest: IngestSettings
    folder: str = "."
    keep_runs: int = 2
    build: BuildSettings = BuildSettings()
    verify: VerifySettings = VerifySettings()
    load: LoadSettings = LoadSettings()


def read_settings(path: Path) -> Settings:
    """Read a job file. Raises `MissingFile`, or `UsageError` naming the wrong setting."""
    try:
        settings = msgspec.toml.decode(path.read_bytes(), type=Settings)
    except FileNotFoundError as error:
        raise MissingFile(f"expected a job file at {path}, found none") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the job file {path} can't be used: {error}") from error
    if settings.load.dsn and has_password(settings.load.dsn):
        raise UsageError(
            f"the job file {path} holds the database's password in [load] dsn, where others may "
            "read it: put the whole address into NEARFIELD_DSN, or the password alone into "
            "~/.pgpass (chmod 600)"
        )
    return settings


def matching(pattern: str, base: Path) -> list[Path]:
    """The files and folders that a job file names so, in order; `UsageError` for none."""
    # joined to a folder, an absolute path stays what it is
    whole = base / pattern
    below = Path(whole.anchor)
    found = [whole] if whole.exists() else sorted(below.glob(str(whole.relative_to(below))))
    if not found:
        raise UsageError(f"the job's source {pattern} matches nothing in {base}")
    return found
