"""The choice: what a benchmark recommends for the matrix, as a small file that a build follows.

    choice.toml    the measured ways to make all neighbours that no other beats, per k

Owns that file and how one is chosen within limits of recall, memory and time. Times and memory are
for the whole vector set: measured there, or foretold from smaller samples (`benchmark.results.
growth`). Refuses to build.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmark.methods import method_class
from benchmark.results.growth import growth_of
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
LINEAR, QUADRATIC = 1.0, 2.0
"""Exponents of time where only one size was measured; the second for those that compare all."""


@dataclass(frozen=True)
class Searched:
    """The vectors that a benchmark was about; `n`: all rows of the set."""

    dataset: str
    vectors_fingerprint: str
    space: SpaceName
    n: int
    d: int
    threads: int


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to make all neighbours. `address`: its name or import path. Time and memory are for
    all n of the file; `measured_n` says where its recall was measured, `exponent` how time grows.
    `time_low_s` to `time_high_s`: 95% interval; high is absent where nothing is known. Of a single
    one of `measured_sizes` the growth is assumed.
    """

    method: str
    k: int
    recall: float
    time_s: float
    memory_bytes: int
    measured_n: int
    exponent: float
    build: str = ""
    search: str = ""
    time_low_s: float = 0.0
    time_high_s: float | None = None
    measured_sizes: int = 1

    @property
    def way(self) -> str:
        """The method with its build parameters, as `nearfield build --method` takes it.

        A recall that is a parameter isn't one there: a build has its own.
        """
        parts = [part for part in self.build.split(",") if part and not part.startswith("recall=")]
        return f"{self.method}({','.join(parts)})" if parts else self.method


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


@dataclass(frozen=True)
class Wanted:
    """What a build asks for. None: no limit."""

    k: int
    recall: float
    memory_bytes: int | None = None
    time_s: float | None = None


def candidates_of(outcomes: Iterable[Outcome], n: int) -> list[Candidate]:
    """The ways to make all neighbours that no other beats in recall, time and memory, per k.

    Each way counts with its largest measured size; time for n rows by the power law through all
    its repetitions at all sizes, but no slower than n: what small sizes spend on starting isn't
    growth. Where there is one size, time is taken to grow with n, and with its square where every
    pair is compared.
    """
    ways: dict[tuple[str, str, str, int], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.measured and outcome.workload == "all" and not outcome.memory_limit_bytes:
            way = (outcome.method, outcome.build, outcome.search, outcome.k)
            ways.setdefault(way, []).append(outcome)
    found = [_candidate(measured, n) for measured in ways.values()]
    return sorted(_unbeaten(found), key=lambda one: (one.k, one.time_s))


def _candidate(measured: Sequence[Outcome], n: int) -> Candidate:
    largest = max(measured, key=lambda outcome: outcome.n)
    known = largest.total_s or 0.0
    points = [
        (outcome.n, seconds + (outcome.build_s or 0.0))
        for outcome in measured
        for seconds in outcome.repetition_seconds
    ]
    growth = growth_of([size for size, _ in points], [cost for _, cost in points])
    if growth is None:
        exponent, low, high = _assumed(largest.method), 0.0, None
    else:
        exponent, foretold = max(LINEAR, growth.exponent), growth.at(n)
        more = max(1.0, known * (n / largest.n) ** exponent / foretold.value)
        low = more * foretold.low
        high = more * foretold.high if math.isfinite(foretold.high) else None
    if largest.n == n:
        low, high = min(low or known, known), max(high or known, known)
    return Candidate(
        method=largest.method,
        k=largest.k,
        recall=largest.recall or 0.0,
        time_s=known * (n / largest.n) ** exponent,
        memory_bytes=_memory(largest, n),
        measured_n=largest.n,
        exponent=exponent,
        build=largest.build,
        search=largest.search,
        time_low_s=low,
        time_high_s=high,
        measured_sizes=len({size for size, _ in points}),
    )


def _assumed(method: str) -> float:
    try:
        return QUADRATIC if method_class(method).exact else LINEAR
    except UsageError:  # a class of the user that isn't here any more
        return LINEAR


def _memory(outcome: Outcome, n: int) -> int:
    """Peak memory at n rows: what was taken beyond the baseline grows with n."""
    scale = n / outcome.n
    peaks = (
        (outcome.peak_bytes, outcome.baseline_bytes),
        (outcome.build_peak_bytes, outcome.build_baseline_bytes),
    )
    return max(
        (int((base or 0) + (peak - (base or 0)) * scale) for peak, base in peaks if peak), default=0
    )


def _unbeaten(candidates: Sequence[Candidate]) -> list[Candidate]:
    def beaten(one: Candidate) -> bool:
        mine = (-one.recall, one.time_s, one.memory_bytes)
        return any(
            other.k == one.k and other is not one and theirs != mine and _all_at_most(theirs, mine)
            for other in candidates
            for theirs in [(-other.recall, other.time_s, other.memory_bytes)]
        )

    return [one for one in candidates if not beaten(one)]


def _all_at_most(left: Sequence[float], right: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(left, right, strict=True))


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
    """The fastest candidate within the limits.

    k: the measured one that is nearest from above, else the largest. Raises `QualityGate` naming
    what comes nearest when nothing fits.
    """
    ks = sorted({candidate.k for candidate in choice.candidates})
    if not ks:
        raise QualityGate(
            f"the benchmark of {choice.dataset} measured no way to make all neighbours: run it "
            "with the workload `all`"
        )
    k = next((k for k in ks if k >= wanted.k), ks[-1])
    rivals = [candidate for candidate in choice.candidates if candidate.k == k]
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
        f"{candidate.way} with recall {candidate.recall:.3f}, {candidate.time_s:,.1f} s and "
        f"{candidate.memory_bytes / 2**30:.2f} GiB"
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
