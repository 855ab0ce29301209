"""The stages as Python functions: what the command line calls, and what a program would import.

The composition root: the only place, with `nearfield.cli`, that knows all rooms. It joins them
through the files in the run directory and holds no logic of any stage. A file per kind of thing
that is made; all of it is imported from here.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dumps.dump.check import DumpCheck
    from dumps.dump.write import DumpOptions, DumpReport
    from dumps.postgres.gates import Limits
    from dumps.postgres.load import LoadOptions, LoadReport
    from dumps.postgres.publish import PublishedRun
    from dumps.postgres.query import Neighbour
    from dumps.postgres.retention import Pruning
    from dumps.postgres.runs import LoadedRun
    from dumps.redis import RedisReport
    from dumps.verify import Verification
    from nearfield.api.benchmarks import (
        BenchOptions,
        BenchPlan,
        BenchReport,
        ChosenMethod,
        Wanted,
        bench,
        chosen_method,
        plan_of_bench,
    )
    from nearfield.api.changes import compact, compare, run_drift
    from nearfield.api.databases import (
        LoadPlan,
        doctor,
        embedded,
        load,
        place_of,
        plan_load,
        prune,
        publish,
        query,
        rollback,
        runs,
    )
    from nearfield.api.indexes import (
        index,
        matrix_from_index,
        open_index,
        plan_index,
        query_vectors,
    )
    from nearfield.api.machines import (
        cluster_certificates,
        cluster_down,
        cluster_status,
        cluster_up,
    )
    from nearfield.api.matrix import BuildReport, build, estimate, verify
    from nearfield.api.plans import MachinePlan, calibrate, plan
    from nearfield.api.products import (
        DumpPlan,
        check_dump,
        dump,
        load_redis,
        plan_dump,
        plan_load_redis,
    )
    from nearfield.api.run_status import RunStatus, status
    from nearfield.api.updates import UpdateReport, plan_update, update
    from nearfield.api.vectors import ingest
    from nearfield.ingest import IngestReport

__all__ = [
    "BenchOptions",
    "BenchPlan",
    "BenchReport",
    "BuildReport",
    "ChosenMethod",
    "DumpCheck",
    "DumpOptions",
    "DumpPlan",
    "DumpReport",
    "IngestReport",
    "Limits",
    "LoadOptions",
    "LoadPlan",
    "LoadReport",
    "LoadedRun",
    "MachinePlan",
    "Neighbour",
    "Pruning",
    "PublishedRun",
    "RedisReport",
    "RunStatus",
    "UpdateReport",
    "Verification",
    "Wanted",
    "bench",
    "build",
    "calibrate",
    "check_dump",
    "chosen_method",
    "cluster_certificates",
    "cluster_down",
    "cluster_status",
    "cluster_up",
    "compact",
    "compare",
    "doctor",
    "dump",
    "embedded",
    "estimate",
    "index",
    "ingest",
    "load",
    "load_redis",
    "matrix_from_index",
    "open_index",
    "place_of",
    "plan",
    "plan_dump",
    "plan_index",
    "plan_load",
    "plan_load_redis",
    "plan_of_bench",
    "plan_update",
    "prune",
    "publish",
    "query",
    "query_vectors",
    "rollback",
    "run_drift",
    "runs",
    "status",
    "update",
    "verify",
]

_HOMES = {
    name: module
    for module, names in {
        "dumps.dump.check": "DumpCheck",
        "dumps.dump.write": "DumpOptions DumpReport",
        "dumps.postgres.gates": "Limits",
        "dumps.postgres.load": "LoadOptions LoadReport",
        "dumps.postgres.publish": "PublishedRun",
        "dumps.postgres.query": "Neighbour",
        "dumps.postgres.retention": "Pruning",
        "dumps.postgres.runs": "LoadedRun",
        "dumps.redis": "RedisReport",
        "dumps.verify": "Verification",
        "nearfield.api.benchmarks": "BenchOptions BenchPlan BenchReport ChosenMethod Wanted "
        "bench chosen_method plan_of_bench",
        "nearfield.api.changes": "compact compare run_drift",
        "nearfield.api.databases": "LoadPlan doctor embedded load place_of plan_load "
        "prune publish query rollback runs",
        "nearfield.api.indexes": "index matrix_from_index open_index plan_index query_vectors",
        "nearfield.api.machines": "cluster_certificates cluster_down cluster_status cluster_up",
        "nearfield.api.matrix": "BuildReport build estimate verify",
        "nearfield.api.plans": "MachinePlan calibrate plan",
        "nearfield.api.products": "DumpPlan check_dump dump load_redis plan_dump plan_load_redis",
        "nearfield.api.run_status": "RunStatus status",
        "nearfield.api.updates": "UpdateReport plan_update update",
        "nearfield.api.vectors": "ingest",
        "nearfield.ingest": "IngestReport",
    }.items()
    for name in names.split()
}
"""Where each name is defined."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found
