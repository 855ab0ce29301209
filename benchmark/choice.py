"""The choice: what a benchmark recommends for the matrix, as a small file that a build follows.

    choice.toml    the measured ways to make all neighbours that no other beats, per k

Owns that file and how one is chosen within limits of recall, memory and time. What gets into it
is decided in `benchmark.candidates`. Refuses to build.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmark.candidates import Candidate, buildable, candidates_of
from benchmark.results.outcome import Outcome
from nearfield.errors import MissingFile, QualityGate, UsageError
from nearfield.files import write_bytes
from nearfield.space import SpaceName

CHOICE = "choice.toml"
FORMAT_VERSION = 1
LISTED = "candidates"
HEADER = """\
# Ways to make the matrix that no other measured way beats; written by `nearfield bench`.
# `nearfield build VECTORS --out RUN --choice THIS --recall R --memory M --time T` takes the fastest
# within the limits. time_s and memory_bytes are for all n rows.
"""


@dataclass(frozen=True)
class Searched:
    """The vectors that a benchmark was about; `n`: all rows of the set."""

    dataset: str
    vectors_fingerprint: str
    space: SpaceName
    n: int
    d: int
    threads: int


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A choice file: candidates for the vector set of that fingerprint, n rows of which count."""

    format: int
    dataset: str
    vectors_fingerprint: str
    space: SpaceName
    n: int
    d: int
    threads: int
    candidates: list[Candidate] = []

    @property
    def able(self) -> list[Candidate]:
        """Those that a build can follow."""
        return [one for one in self.candidates if buildable(one.method, self.space)]


@dataclass(frozen=True)
class Wanted:
    """What a build asks for. None: no limit."""

    k: int
    recall: float
    memory_bytes: int | None = None
    time_s: float | None = None

    @property
    def limited(self) -> bool:
        """Whether memory or time has a limit: only what was measured can keep it."""
        return self.memory_bytes is not None or self.time_s is not None


def grown(choice: Choice, n: int) -> Choice:
    """The choice for a vector set that has n rows by now: time and memory foretold for those."""
    share = n / choice.n
    candidates = [
        msgspec.structs.replace(
            candidate,
            time_s=candidate.time_s * share**candidate.exponent,
            memory_bytes=int(candidate.memory_bytes * max(1.0, share)),
        )
        for candidate in choice.candidates
    ]
    return msgspec.structs.replace(choice, n=n, candidates=candidates)


def choose(choice: Choice, wanted: Wanted) -> Candidate:
    """The fastest candidate within the limits, of those that a build can do.

    k: the measured one that is nearest from above, else the largest; that one says nothing about
    time and memory, so with a limit of those a larger k than all measured is refused. Raises
    `QualityGate` then, and naming what comes nearest when nothing fits.
    """
    ks = sorted({candidate.k for candidate in choice.able})
    if not ks:
        raise QualityGate(
            f"the benchmark of {choice.dataset} measured no way to make all neighbours that a "
            f"build has in space {choice.space}: run it with the workload `all`"
        )
    asked = min(wanted.k, choice.n - 1)
    if wanted.limited and asked > ks[-1]:
        raise QualityGate(
            f"the benchmark of {choice.dataset} measured k up to {ks[-1]:,}: what k = {asked:,} "
            f"takes isn't known. Measure it (nearfield bench VECTORS --out DIR -k {asked}), or "
            "build without --memory and --time"
        )
    k = next((k for k in ks if k >= asked), ks[-1])
    rivals = [candidate for candidate in choice.able if candidate.k == k]
    fitting = [candidate for candidate in rivals if _excess(candidate, wanted) == 0]
    if fitting:
        return min(fitting, key=lambda candidate: candidate.time_s)
    nearest = min(rivals, key=lambda candidate: _excess(candidate, wanted))
    raise QualityGate(
        f"nothing measured reaches {_limits(wanted)} for k = {k}. Nearest comes {said(nearest)}. "
        "Relax a limit, or measure other parameters (nearfield bench --grid)"
    )


def said(candidate: Candidate) -> str:
    """A candidate in a sentence's part."""
    return (
        f"{candidate.way} with recall {candidate.recall:.3f} on {candidate.measured_n:,} rows, "
        f"{candidate.time_s:,.1f} s and {candidate.memory_bytes / 2**30:.2f} GiB"
    )


def _excess(candidate: Candidate, wanted: Wanted) -> float:
    """By how much a candidate misses the limits, each as a share; 0 within all of them."""
    missed = max(0.0, wanted.recall - candidate.recall) / max(1e-9, 1 - wanted.recall + 1e-3)
    for limit, value in (
        (wanted.memory_bytes, candidate.memory_bytes),
        (wanted.time_s, candidate.time_s),
    ):
        if limit is not None:
            missed += max(0.0, value / limit - 1)
    return missed


def _limits(wanted: Wanted) -> str:
    parts = [f"recall {wanted.recall}"]
    if wanted.memory_bytes is not None:
        parts.append(f"{wanted.memory_bytes / 2**30:.2f} GiB")
    if wanted.time_s is not None:
        parts.append(f"{wanted.time_s:,.0f} s")
    return " within ".join((parts[0], " and ".join(parts[1:]))) if parts[1:] else parts[0]


def write_choice(path: Path, about: Searched, outcomes: Iterable[Outcome]) -> Choice:
    """Write the choice file `path` from a benchmark's outcomes, atomically."""
    choice = Choice(FORMAT_VERSION, **asdict(about), candidates=candidates_of(outcomes, about.n))
    head = {name: value for name, value in msgspec.to_builtins(choice).items() if name != LISTED}
    lines = [HEADER, *_settings(head)]
    for candidate in choice.candidates:
        lines += ["", f"[[{LISTED}]]", *_settings(msgspec.to_builtins(candidate))]
    write_bytes(path, ("\n".join(lines) + "\n").encode())
    return choice


def read_choice(path: Path) -> Choice:
    """Read a choice file. Raises `MissingFile`, or `UsageError` naming what is wrong in it."""
    try:
        choice = msgspec.toml.decode(path.read_bytes(), type=Choice)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MissingFile(
            f"expected a choice file at {path}, found none. "
            "Make one with: nearfield bench VECTORS --out DIR"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the choice file {path} can't be used: {error}") from error
    if choice.format != FORMAT_VERSION:
        raise UsageError(
            f"expected a choice file of format {FORMAT_VERSION}, {path} has {choice.format}: "
            "run the benchmark again"
        )
    return choice


def _settings(values: Mapping[str, Any]) -> list[str]:
    """TOML lines; a JSON string or number is a TOML one, too."""
    return [f"{name} = {json.dumps(value)}" for name, value in values.items() if value is not None]
