"""The stages as Python functions: what the command line calls, and what a program would import.

The composition root: the only place, with `nearfield.cli`, that knows all rooms. It joins them
through the files in the run directory and holds no logic of any stage. A file per kind of thing
that is made; all of it is imported from here.
"""

from dumps.postgres.load import LoadReport
from dumps.postgres.query import Neighbour
from dumps.verify import Verification
from nearfield.api.databases import LoadPlan, doctor, embedded, load, place_of, plan_load, query
from nearfield.api.machines import cluster_down, cluster_status, cluster_up
from nearfield.api.matrix import BuildReport, RunStatus, build, estimate, status, verify
from nearfield.api.vectors import ingest
from nearfield.ingest import IngestReport

__all__ = [
    "BuildReport",
    "IngestReport",
    "LoadPlan",
    "LoadReport",
    "Neighbour",
    "RunStatus",
    "Verification",
    "build",
    "cluster_down",
    "cluster_status",
    "cluster_up",
    "doctor",
    "embedded",
    "estimate",
    "ingest",
    "load",
    "place_of",
    "plan_load",
    "query",
    "status",
    "verify",
]
