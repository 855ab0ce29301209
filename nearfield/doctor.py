"""What `nearfield doctor` finds: facts about the machine, judged, with advice where one is due.

Owns the thresholds. Refuses to look anything up itself: facts come from `nearfield.machine`,
`nearfield.libraries`, and from the caller for the database.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from nearfield.errors import NearfieldError
from nearfield.libraries import Library, library_facts
from nearfield.machine import Machine, existing_folder, machine_facts

GIB = 1 << 30
MEMORY_BYTES = 2 * GIB
DISK_BYTES = 5 * GIB
PYTHON = (3, 11)
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"),
    "OMP_THREAD_LIMIT",
)
OPTIONAL: Mapping[str, str] = {
    "annoy": "the method annoy is missing: pip install annoy-mm (a wheel), or annoy (needs g++)",
    "nmslib": "the method nmslib-hnsw is missing: pip install nmslib",
    "hnswlib": "",
}
"""Libraries that only a method of the same name needs, and what to do where they lack.
No advice: nearfield doesn't install it by itself, absent is as good as present."""

Level = Literal["ok", "warn", "fail"]


class DatabaseRights(Protocol):
    """What a database says about itself and its user."""

    @property
    def server_version(self) -> str:
        """Version of the server."""

    @property
    def user(self) -> str:
        """The role that is connected."""

    @property
    def database(self) -> str:
        """The database's name."""

    @property
    def may_load(self) -> bool:
        """Whether the role may load and publish a run."""

    @property
    def schema_owner(self) -> str | None:
        """Who owns what was loaded before, if anything was."""

    @property
    def temporary(self) -> bool:
        """Whether the role may make temporary tables, with which updated runs are loaded."""

    @property
    def read_role(self) -> bool:
        """Whether there is a role for readers, or the role may make it."""

    @property
    def sees_readers(self) -> bool:
        """Whether the role sees what others are reading, so that it isn't dropped."""


@dataclass(frozen=True)
class Finding:
    """One fact, judged. `warn`: works, but worse than it could; `fail`: something won't work."""

    name: str
    level: Level
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and the facts that they were drawn from."""

    findings: tuple[Finding, ...]
    machine: Machine
    libraries: tuple[Library, ...]

    @property
    def level(self) -> Level:
        """The worst level of all."""
        levels = {finding.level for finding in self.findings}
        return "fail" if "fail" in levels else "warn" if "warn" in levels else "ok"

    def to_json(self) -> dict[str, Any]:
        """Level, findings and facts as JSON-representable values."""
        return {"level": self.level, **asdict(self)}


def examine(
    *, directory: Path = Path(), database: Callable[[], DatabaseRights] | None = None
) -> Diagnosis:
    """Look at machine and libraries, at the disk that holds `directory`, and at the database.

    `database` asks a server for its rights, or raises a `NearfieldError`; None leaves it out.
    Raises nothing: what can't be found out is a finding. Cost: a second or two.
    """
    machine, libraries = machine_facts(directory), library_facts()
    findings = [
        *judged_machine(machine, directory),
        *(judged_library(library, machine.cores) for library in libraries),
        *_kept_code(libraries),
        *([] if database is None else [judged_database(database)]),
    ]
    return Diagnosis(tuple(findings), machine, libraries)


def judged_machine(machine: Machine, directory: Path) -> Iterator[Finding]:
    """Python, processor, cores, memory and disk."""
    old = sys.version_info < PYTHON
    yield _finding("python", machine.python, fail=old and "nearfield needs Python 3.11 or newer")
    yield _processor(machine)
    yield _cores(machine)
    yield _finding(
        "memory",
        f"{_gib(machine.memory_available_bytes)} free of {_gib(machine.memory_total_bytes)}",
        warn=machine.memory_available_bytes < MEMORY_BYTES
        and "under 2 GiB free: use --workers 1, or a machine with more memory",
    )
    folder = existing_folder(directory)
    writable = os.access(folder, os.W_OK | os.X_OK)
    yield _finding(
        "disk",
        f"{_gib(machine.disk_free_bytes)} free in {folder}",
        warn=machine.disk_free_bytes < DISK_BYTES
        and "under 5 GiB free: `nearfield build --dry-run` says what a run needs",
        fail=not writable and f"{folder} can't be written to: choose another folder",
    )


def judged_code(folder: str | None) -> Finding:
    """Whether compiled code is kept: else every process compiles, for up to a minute."""
    return _finding(
        "compiled code",
        "kept nowhere" if folder is None else f"kept in {folder}",
        warn=folder is None
        and "every process compiles anew: set NUMBA_CACHE_DIR to a folder that you own",
    )


def judged_library(library: Library, cores: int) -> Finding:
    """Whether a library is there, loads, and uses the cores."""
    optional = library.name in OPTIONAL
    advice = OPTIONAL.get(library.name, f"nearfield needs {library.name}: install nearfield again")
    if library.state == "not installed":
        level: Level = "fail" if not optional else "warn" if advice else "ok"
        return Finding(library.name, level, "not installed", advice)
    if library.state == "broken":
        again = f"install {library.distribution or library.name} again for this machine"
        return Finding(library.name, "warn" if optional else "fail", str(library.error), again)
    return _finding(
        library.name,
        _described(library),
        warn=library.threads == 1 and cores > 1 and _thread_advice(cores),
    )


def judged_database(database: Callable[[], DatabaseRights]) -> Finding:
    """Whether the database answers, lets its user load, and its readers read."""
    try:
        rights = database()
    except NearfieldError as error:
        return Finding("database", "fail", "no answer", str(error))
    found = f"Postgres {rights.server_version}, {rights.database} as {rights.user}"
    if not rights.may_load:
        return Finding("database", "fail", found, f"may read but not load: {_to_load(rights)}")
    if not rights.temporary:
        advice = (
            "may not make the temporary tables with which updated runs are loaded: "
            f"GRANT TEMPORARY ON DATABASE {rights.database} TO {rights.user}"
        )
        return Finding("database", "fail", found, advice)
    return _finding("database", found, warn="; ".join(_lacking(rights)) or False)


def _to_load(rights: DatabaseRights) -> str:
    if rights.schema_owner:
        return f"connect as {rights.schema_owner}, who owns the schema nearfield"
    return f"GRANT CREATE, TEMPORARY ON DATABASE {rights.database} TO {rights.user}"


def _lacking(rights: DatabaseRights) -> Iterator[str]:
    """What a load goes without, to the harm of readers."""
    if not rights.read_role:
        yield (
            "nobody else can be let in to read: an administrator's CREATE ROLE nearfield_read, then"
            " load again"
        )
    if not rights.sees_readers:
        yield (
            "a run that somebody reads may be dropped, since that isn't seen: "
            f"GRANT pg_read_all_stats TO {rights.user}"
        )


def _kept_code(libraries: Sequence[Library]) -> Iterator[Finding]:
    if any(library.name == "numba" and library.error is None for library in libraries):
        from nearfield.jit import code_folder

        yield judged_code(code_folder())


def _processor(machine: Machine) -> Finding:
    processor = machine.processor
    slow = processor.architecture == "x86_64" and "avx2" not in processor.features
    return _finding(
        "processor",
        f"{processor.model} ({processor.architecture}): {' '.join(processor.features)}",
        warn=slow and "no AVX2: everything works, several times slower",
    )


def _cores(machine: Machine) -> Finding:
    limit = machine.limits.cores
    limited = "" if limit is None else f", control group allows {limit:g}"
    return _finding("cores", f"{machine.cores} usable of {machine.cores_present}{limited}")


def _described(library: Library) -> str:
    facts = (
        f"{library.distribution} {library.version}" if library.distribution else library.version,
        library.package,
        library.built,
        library.threads and f"{library.threads} threads",
    )
    return ", ".join(str(fact) for fact in facts if fact)


def _thread_advice(cores: int) -> str:
    named = [f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if name in os.environ]
    cause = f"because of {' and '.join(named)}: unset it" if named else "check its installation"
    return f"uses 1 thread of {cores} cores; {cause}"


def _finding(
    name: str, found: str, *, warn: str | Literal[False] = False, fail: str | Literal[False] = False
) -> Finding:
    """The finding with the worst advice that is given."""
    if fail:
        return Finding(name, "fail", found, fail)
    if warn:
        return Finding(name, "warn", found, warn)
    return Finding(name, "ok", found)


def _gib(amount: int) -> str:
    return f"{amount / GIB:.1f} GiB"
