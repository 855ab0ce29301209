"""A small benchmark without a cluster: data, truths and a place to run groups in."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmark.grids import Configuration
from benchmark.methods import method_class, method_named
from benchmark.runner.data import prepare_data
from benchmark.runner.plan import Group, Settings, ks_for
from benchmark.runner.store import Place
from benchmark.runner.truth import truth_task

BROKEN = "tests.benchmark.broken_methods"
SETTINGS = Settings(
    (3,), ("all", "queries"), threads=1, timeout_s=60.0, memory_bytes=2**31, repeat=2
)


def surface(n, d=6, seed=0):
    """float32 [n, d] on a curved surface of 3 dimensions."""
    rng = np.random.default_rng(seed)
    return np.tanh(rng.standard_normal((n, 3)) @ rng.standard_normal((3, d))).astype(np.float32)


def place_in(folder: Path, vectors, *, n=None, **settings) -> Place:
    """Data split and truths computed in `folder`, for the size n (default: all base rows)."""
    source = folder / "songs.npy"
    np.save(source, vectors)
    data = prepare_data(source, (folder / "bench" / "data").resolve(), space=None, seed=0)
    place = Place(data.path.parent, data, replace(SETTINGS, **settings))
    for name in ("results", "truth", "indexes"):
        (place.directory / name).mkdir(exist_ok=True)
    find_truths(place, n or data.base)
    return place


def find_truths(place: Place, n: int) -> None:
    for workload in place.settings.workloads:
        k = max(ks_for(n, place.settings.ks))
        task = truth_task(place.directory, place.data, workload, n, k)
        if task is not None:
            task.function(*task.arguments, threads=1)


def group_of(place: Place, address: str, *, n=None, efforts=(), **parameters) -> Group:
    """A group of a method; one without a dot or colon is one of ours, `:Name` a broken one."""
    full = f"{BROKEN}{address}" if address.startswith(":") else address
    every = tuple(method_named(full, parameters).parameters.items())
    return Group(
        n or place.data.base, Configuration(full, every, efforts, method_class(full).spaces)
    )
