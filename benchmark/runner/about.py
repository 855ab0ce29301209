"""What stands beside the figures: `bench.json`, and what earlier runs left that it is about, too.

Owns that file, the settings that follow from the machines that measure, and which of the results
that lie there count: those of the same circumstances. Refuses to measure.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from distributed import Client

from benchmark.grids import Configuration, load_grid
from benchmark.methods import METHODS
from benchmark.runner.container import Image
from benchmark.runner.holding import holding, readable
from benchmark.runner.schedule import one_worker_per_host
from benchmark.runner.store import Place
from nearfield.cluster import on_workers
from nearfield.errors import Infrastructure
from nearfield.files import write_bytes
from nearfield.libraries import library_facts
from nearfield.machine import available_cores, machine_facts
from nearfield.manifest import library_versions

BENCH = "bench.json"
CLASSES = "classes"
"""In it: import paths of the methods that aren't ours, by name, of all runs."""


@dataclass(frozen=True)
class Earlier:
    """Results of earlier runs: the libraries of those that hold, the names of those that don't."""

    libraries: frozenset[str] = frozenset()
    aside: frozenset[str] = frozenset()

    @property
    def notes(self) -> list[str]:
        """What a reader must know of them."""
        if not self.aside:
            return []
        results = "1 result" if len(self.aside) == 1 else f"{len(self.aside):,} results"
        return [
            f"{results} of earlier runs left aside: of other threads, machines, versions or "
            "containers, or of a method that isn't known here. They stay in results/"
        ]


@dataclass(frozen=True)
class About:
    """What a run is about: sizes, configurations, notes, the image that is measured in."""

    sizes: Sequence[int]
    configurations: Sequence[Configuration]
    notes: Sequence[str]
    image: Image | None
    earlier: Earlier = field(default_factory=Earlier)


def offered(client: Client) -> tuple[int, int]:
    """Cores and bytes of memory that every machine of the cluster has."""
    hosts = one_worker_per_host(client)
    cores = on_workers(client, available_cores, workers=hosts)
    machines = on_workers(client, machine_facts, workers=hosts)
    if not cores or not machines:
        raise Infrastructure("no worker of the cluster answers: see their logs, start them again")
    return min(cores.values()), min(one.memory_total_bytes for one in machines.values())


def earlier_results(
    client: Client, place: Place, configurations: Sequence[Configuration]
) -> Earlier:
    """Which of the results that lie there hold on any machine of the cluster."""
    there = readable(place.directory)
    if not there:
        return Earlier()
    addresses = {name: name for name in METHODS} | _classes(place.directory, configurations)
    holds: dict[str, str] = {}
    for host in one_worker_per_host(client):
        asked = client.submit(holding, place, addresses, workers=[host], pure=False)
        holds |= asked.result()
    return Earlier(frozenset(holds.values()), frozenset(there - holds.keys()))


def write_about(place: Place, client: Client, about: About) -> None:
    """Write what is measured where, with what: for the report, and for who reads the figures."""
    hosts = one_worker_per_host(client)
    machines = client.run(machine_facts, workers=hosts)
    names = sorted({*libraries_of(about.configurations), *about.earlier.libraries})
    if about.image is None:
        asked = client.submit(library_facts, tuple(names), workers=hosts[:1])
        libraries = [library.to_json() for library in asked.result()]
        versions = library_versions()
    else:
        libraries = [one for one in about.image.libraries if one["name"] in names]
        versions = about.image.versions
    data = {name: value for name, value in asdict(place.data).items() if name != "path"}
    content = {
        "data": data,
        "sizes": list(about.sizes),
        "settings": asdict(place.settings),
        "configurations": [str(configuration) for configuration in about.configurations],
        CLASSES: _classes(place.directory, about.configurations),
        "machines": [machine.to_json() for machine in machines.values()],
        "libraries": libraries,
        "versions": dict(versions),
        "notes": list(about.notes),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_bytes(place.directory / BENCH, (json.dumps(content, indent=2) + "\n").encode())


def libraries_of(configurations: Sequence[Configuration]) -> tuple[str, ...]:
    """The modules whose versions stand beside the figures."""
    return tuple(sorted({"numpy", "numba", *(one.method.library for one in configurations)}))


def _classes(directory: Path, configurations: Sequence[Configuration]) -> dict[str, str]:
    """Import paths of methods that aren't ours, by name: of earlier runs, the default grid, now."""
    try:
        earlier: dict[str, Any] = json.loads((directory / BENCH).read_bytes()).get(CLASSES, {})
    except (OSError, ValueError, AttributeError):
        earlier = {}
    now = {one.name: one.address for one in (*load_grid(), *configurations) if ":" in one.address}
    return {**earlier, **now}
