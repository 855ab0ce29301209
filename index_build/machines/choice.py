"""Machines and money: each type and count with hours, memory, disk, network and cost.

Pure: from a model, a size and a price list to a table, the one to take within a deadline or a
budget, and which assumption matters most.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from index_build.estimate import BASE_BYTES, alone_disk_bytes, shards_disk_bytes
from index_build.machines.model import (
    Cluster,
    Model,
    Models,
    Prediction,
    bytes_moved,
    predicted,
)
from index_build.plan import EXPECTED_COPIES, PART_ROWS, RESERVE, SHARD_BYTES, WHOLE_BYTES
from index_build.whole import MEMORY_SHARE, whole_bytes

COUNTS = (1, 2, 3, 4, 6, 8, 12, 16)
HOUR = 3600
STARTING_S = 300.0
"""A rented machine until it has joined, and until it is gone: assumed, not measured."""
ROW_BYTES = 100
"""Of the driver: ids, groups of equal vectors, per row."""
DATABASE_SHARE = 1.3
DATABASE_ROW_BYTES = 150
"""Of the database against the lists, and per row (docs/results/four-million.md)."""
SPEED_DOUBT = 0.3
LINK_DOUBT = 0.5
SHARE_DOUBT = 0.05


@dataclass(frozen=True)
class MachineType:
    """A type that can be rented; `hourly` for one, in the price list's currency."""

    name: str
    cores: int
    memory_bytes: float
    disk_bytes: float
    hourly: float


@dataclass(frozen=True)
class Needs:
    """What a machine must have: memory per core and beside it (the driver), disk of the folder.

    alone_bytes: memory of the task that joins everything on one machine; alone_disk_bytes: of
    the folder then. line_bytes: what is sent to the machines, and fetched.
    """

    core_bytes: float
    driver_bytes: float
    disk_bytes: float
    alone_bytes: float
    alone_disk_bytes: float
    line_bytes: float

    def alone_on(self, machine: "MachineType", count: int) -> bool:
        """Whether one task joins everything there, as `index_build.whole` decides it."""
        room = min(WHOLE_BYTES, MEMORY_SHARE * machine.memory_bytes)
        return count == 1 and self.alone_bytes <= room


def needs_of(n: int, d: int, k: int) -> Needs:
    """Memory and disk that the self-join of n vectors takes, from how it is cut; in bytes.

    A task holds at most twice a shard (docs/adr/0007-cluster-shards.md), one task per core. The
    folder holds the vectors, and what the build needs or, later, the matrix and the database. The
    driver keeps what lists have beyond k until the matrix is written. Vectors are sent, or sources
    of their size, and come back with the lists.
    """
    vector, lists, joined = 4 * d, 8 * k, k + RESERVE
    shard = min(SHARD_BYTES, n * EXPECTED_COPIES * (vector + 2 * 8 * joined))
    loaded = n * (lists + DATABASE_SHARE * lists + DATABASE_ROW_BYTES)

    def disk(built: float) -> float:
        return n * vector + max(built, loaded)

    return Needs(
        core_bytes=BASE_BYTES + 2 * shard,
        driver_bytes=2 * BASE_BYTES + 2 * PART_ROWS * 8 * joined + n * (ROW_BYTES + 8 * RESERVE),
        disk_bytes=disk(shards_disk_bytes(n, d, joined)),
        alone_bytes=whole_bytes(n, d, joined),
        alone_disk_bytes=disk(alone_disk_bytes(n, joined)),
        line_bytes=n * (2 * vector + 8 * joined + ROW_BYTES),
    )


@dataclass(frozen=True)
class Rented:
    """What rented machines are assumed to be: `speed` of a core against one here, bytes per second
    between them (`link`), and between them and here (`uplink`).
    """

    speed: float = 1.0
    link: float = 125e6
    uplink: float = 12.5e6


@dataclass(frozen=True)
class Option:
    """One row of the plan. `lacks` names what the type has too little of: then it isn't taken.

    hours: until the matrix is published; beside_s of them start and end machines, send and fetch.
    paid_hours: machines exist, which they don't while the database loads.
    """

    machine: MachineType
    count: int
    time: Prediction
    beside_s: float
    hours: float
    paid_hours: float
    memory_bytes: float
    disk_bytes: float
    network_bytes: float
    cost: float
    lacks: str


@dataclass(frozen=True)
class Allowed:
    """What the operator allows: seconds, and money."""

    deadline_s: float | None = None
    budget: float | None = None


def options(
    models: Models, n: int, types: Iterable[MachineType], needs: Needs, rented: Rented
) -> list[Option]:
    """Every type in every count, cheapest first, then fastest."""
    found = [_option(models, n, kind, count, needs, rented) for kind in types for count in COUNTS]
    return sorted(found, key=lambda one: (one.cost, one.hours))


def chosen(found: Sequence[Option], allowed: Allowed) -> Option | None:
    """The cheapest option within the limits, or the fastest within a budget; None if none fits.

    With a deadline the pessimistic end of the prediction counts.
    """
    fitting = [
        one
        for one in found
        if not one.lacks
        and (allowed.deadline_s is None or one.time.high + one.beside_s <= allowed.deadline_s)
        and (allowed.budget is None or one.cost <= allowed.budget)
    ]
    if allowed.budget is not None and allowed.deadline_s is None:
        return min(fitting, key=lambda one: (one.hours, one.cost), default=None)
    return min(fitting, key=lambda one: (one.cost, one.hours), default=None)


def sensitivity(model: Model, n: int, cluster: Cluster, uplink_s: float) -> dict[str, float]:
    """How much longer a run gets, as a factor, when one assumption is worse than assumed.

    uplink_s: seconds in which bytes are sent to the machines and fetched.
    """
    base = predicted(model, n, cluster)
    narrow = replace(cluster, link_bytes_s=cluster.link_bytes_s * (1 - LINK_DOUBT))
    shared = {
        name: replace(stage, parallel=max(0.0, stage.parallel - SHARE_DOUBT))
        for name, stage in model.stages.items()
    }
    slower = replace(cluster, speed=cluster.speed * (1 - SPEED_DOUBT))
    whole = base.seconds + uplink_s
    worse = {
        f"a core there is {SPEED_DOUBT:.0%} slower than one here": (
            predicted(model, n, slower).seconds
        ),
        "growth with n is at the end of its interval": base.high,
        f"{SHARE_DOUBT:.0%} less of each stage is split over cores": (
            predicted(replace(model, stages=shared), n, cluster).seconds
        ),
        f"the network has {LINK_DOUBT:.0%} less": predicted(model, n, narrow).seconds,
    }
    factors = {name: (seconds + uplink_s) / whole for name, seconds in worse.items()}
    half = (base.seconds + uplink_s / (1 - LINK_DOUBT)) / whole
    return factors | {f"the uplink has {LINK_DOUBT:.0%} less": half}


def most_important(factors: Mapping[str, float]) -> str:
    """The assumption that costs most when it is wrong."""
    name = max(factors, key=lambda one: factors[one])
    return f"{name}: the run then takes {factors[name]:.2f} times as long"


def _option(
    models: Models, n: int, kind: MachineType, count: int, needs: Needs, rented: Rented
) -> Option:
    alone = needs.alone_on(kind, count)
    model = models.alone if alone else models.shards
    time = predicted(model, n, Cluster(count, kind.cores, rented.speed, rented.link))
    beside_s = STARTING_S + needs.line_bytes / rented.uplink
    paid_hours = (time.seconds - time.stages.get("load", 0.0) + beside_s) / HOUR
    tasks = needs.alone_bytes if alone else needs.core_bytes * kind.cores
    memory = needs.driver_bytes + tasks
    disk = needs.alone_disk_bytes if alone else needs.disk_bytes
    short = [
        f"{what} {have / 2**30:.0f} of {want / 2**30:.0f} GiB"
        for what, have, want in (
            ("memory", kind.memory_bytes, memory),
            ("disk", kind.disk_bytes, disk),
        )
        if have < want
    ]
    return Option(
        machine=kind,
        count=count,
        time=time,
        beside_s=beside_s,
        hours=(time.seconds + beside_s) / HOUR,
        paid_hours=paid_hours,
        memory_bytes=memory,
        disk_bytes=disk,
        network_bytes=bytes_moved(model, n, count),
        cost=kind.hourly * count * math.ceil(paid_hours),
        lacks=", ".join(short),
    )
