"""Which results of earlier runs hold today, on the machine that is asked.

Owns the way back from a result file to the group that it is of: a file has the fingerprint of all
that its figures depend on, so the group of its rows is put together again, under today's settings,
and the fingerprints are compared. Refuses to read figures.
"""

from collections.abc import Mapping
from pathlib import Path

from benchmark.grids import Configuration
from benchmark.methods import method_named
from benchmark.methods.spelled import spelled
from benchmark.results.file import read_outcomes, result_files
from benchmark.results.outcome import Outcome
from benchmark.runner.plan import Group
from benchmark.runner.store import Place, circumstances, holds
from nearfield.errors import NearfieldError


def holding(place: Place, addresses: Mapping[str, str]) -> dict[str, str]:
    """Task: the names of the result files that hold, each with the library of its method.

    `addresses`: names or import paths of the methods that are known, by name. A file of any other
    method can't be judged and isn't among them, nor is one that can't be read. Cost: one read of
    each manifest.
    """
    marks: dict[tuple[str, str, int], tuple[str, str] | None] = {}
    found = {}
    for path in result_files(place.directory):
        read = read_outcomes(path, verify=False)
        if read is None or not read[1]:
            continue
        first = read[1][0]
        key = first.method, first.build, first.n
        if key not in marks:
            marks[key] = _circumstances_of(first, place, addresses)
        known = marks[key]
        if known is None:
            continue
        if holds(read[0], read[1], known[0], place.data.asked):
            found[path.name] = known[1]
    return found


def readable(directory: Path) -> set[str]:
    """Names of the result files whose manifests are whole."""
    files = result_files(directory)
    return {path.name for path in files if read_outcomes(path, verify=False) is not None}


def _circumstances_of(
    outcome: Outcome, place: Place, addresses: Mapping[str, str]
) -> tuple[str, str] | None:
    """Today's mark of the group that an outcome is of, and its library; None if that is unknown."""
    try:
        address = addresses[outcome.method]
        method = method_named(address, spelled(f"{outcome.method}({outcome.build})")[1])
    except (KeyError, NearfieldError):
        return None
    parameters = tuple(method.parameters.items())
    group = Group(outcome.n, Configuration(address, parameters, (), method.spaces))
    return circumstances(place, group), method.library
