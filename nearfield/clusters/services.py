"""What runs on a host: the scripts that start, stop and ask for a scheduler or workers.

Pure: from an inventory to shell text. Owns Dask's settings for native work and where files lie:

    FOLDER/NAME/ca.pem host.pem host.key   credentials, for the owner alone
    FOLDER/NAME/dask.yaml                  settings
    FOLDER/NAME/ROLE.pid ROLE.log          the service: pid and start time, and its output
"""

import json
import shlex
from importlib.resources import files
from typing import Any, Literal

from nearfield.clusters.certificates import Identity
from nearfield.clusters.inventory import Host, Inventory
from nearfield.kept_memory import KEPT

Service = Literal["scheduler", "worker"]
END_OF_FILE = "end-of-file-3f1c"
VERSIONS = ("nearfield", "dask", "distributed", "cloudpickle", "msgpack", "numpy", "numba")
FACTS = f"""
import json, os, platform
from importlib.metadata import version
found = {{name: version(name) for name in {VERSIONS!r}}}
found["python"] = ".".join(platform.python_version_tuple()[:2])
print(json.dumps({{"versions": found, "cores": len(os.sched_getaffinity(0))}}))
"""


def folder_of(inventory: Inventory) -> str:
    """The cluster's folder on every host, quoted for the shell."""
    return shlex.quote(f"{inventory.folder}/{inventory.name}")


def facts_script(inventory: Inventory) -> str:
    """Prints versions and cores of the host as JSON."""
    return f"{shlex.quote(inventory.python)} -c {shlex.quote(FACTS)}\n"


def files_script(
    inventory: Inventory, host: Host, authority: str, identity: Identity | None
) -> str:
    """Puts settings and credentials in place, unless a service runs with others already."""
    parts = [_script(folder_of(inventory), "worker"), 'mkdir -p "$folder"']
    parts.append('cd "$folder"')
    contents = {"dask.yaml": json.dumps(settings(inventory, host), indent=1)}
    if identity is not None:
        contents = {"ca.pem": authority, "host.pem": identity.certificate} | contents
        contents |= {"host.key": identity.key}
    if host is inventory.scheduler:
        contents["cluster.toml"] = own_connection(inventory)
    for name, text in contents.items():
        parts.append(f"cat >.new <<'{END_OF_FILE}'\n{text.rstrip()}\n{END_OF_FILE}")
        parts += ["same_authority .new"] if name == "ca.pem" else []
        parts.append(f"mv .new {name}")
    return "\n".join(parts) + "\n"


def own_connection(inventory: Inventory) -> str:
    """The connection file for programs on the scheduler's host, beside its credentials."""
    lines = [f'scheduler = "{inventory.address}"']
    if inventory.tls:
        lines += ['tls_ca = "ca.pem"', 'tls_cert = "host.pem"', 'tls_key = "host.key"']
    return "\n".join(lines)


def start_script(inventory: Inventory, host: Host, service: Service, workers: int) -> str:
    """Starts the service, or says that it runs; a scheduler is waited for."""
    folder, python = folder_of(inventory), shlex.quote(inventory.python)
    variables = {"PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    variables |= KEPT if service == "worker" else {}
    given = " ".join(f"{name}={value}" for name, value in variables.items())
    environment = f'env DASK_CONFIG="$folder/dask.yaml" {given}'
    command = f"start {environment} {python} -m distributed.cli.dask_{service}"
    text = _script(folder, service)
    if service == "scheduler":
        text += f'running_pid >/dev/null || rm -f "$folder/scheduler.json"\n{command}'
        text += " " + shlex.join(_scheduler_arguments(inventory, host))
        return f'{text}\nwait_for "$folder/scheduler.json" {inventory.start_timeout_s}\n'
    return f"{text}{command} {shlex.join(_worker_arguments(inventory, host, workers))}\n"


def act_script(inventory: Inventory, service: Service, act: Literal["stop", "status"]) -> str:
    """Stops the service, or says whether it runs."""
    return f"{_script(folder_of(inventory), service)}{act}\n"


def forget_script(inventory: Inventory) -> str:
    """Removes credentials and settings; the logs stay."""
    names = "ca.pem host.pem host.key dask.yaml scheduler.json cluster.toml"
    return f"cd {folder_of(inventory)} 2>/dev/null || exit 0\nrm -rf {names} scratch\n"


def complaints_script(inventory: Inventory, service: Service) -> str:
    """Prints the last errors in the service's log, or else its end."""
    return f"{_script(folder_of(inventory), service)}complaints\n"


def watch_script(inventory: Inventory, workers: int, timeout_s: float) -> str:
    """Prints the workers that the scheduler sees, once there are `workers` of them."""
    words = (inventory.python, "-m", "nearfield.clusters.watch")
    arguments = shlex.join([*words, inventory.address, str(workers), str(timeout_s)])
    return f'cd {folder_of(inventory)}\nDASK_CONFIG="$PWD/dask.yaml" {arguments}\n'


def settings(inventory: Inventory, host: Host) -> dict[str, Any]:
    """Dask's settings on a host.

    Results and data lie in files, so workers neither spill nor pause; a call into native code may
    hold the interpreter for long, so silence alone isn't death for `worker_ttl_s`. A lost host is
    noticed by its connection, after `tcp_timeout_s`.
    """
    comm: dict[str, Any] = {
        "timeouts": {"tcp": f"{inventory.tcp_timeout_s}s", "connect": "30s"},
        "require-encryption": inventory.tls,
    }
    if inventory.tls:
        own = {"cert": "host.pem", "key": "host.key"}
        comm["tls"] = {"ca-file": "ca.pem", "scheduler": own, "worker": own, "client": own}
    memory = {"target": False, "spill": False, "pause": False, "terminate": 0.95}
    nanny: dict[str, Any] = {}
    if host.cores is not None:
        few = f"import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{host.cores}])"
        nanny["preload"] = [few]
    return {
        "distributed": {
            "comm": comm,
            "nanny": nanny,
            "scheduler": {
                "worker-ttl": f"{inventory.worker_ttl_s}s",
                "no-workers-timeout": f"{inventory.no_workers_timeout_s}s",
            },
            "worker": {"memory": memory, "profile": {"enabled": False}},
            # as in `nearfield.cluster`: less work for an idle cluster
            "admin": {"tick": {"interval": "500ms"}},
        }
    }


def _scheduler_arguments(inventory: Inventory, host: Host) -> list[str]:
    return [
        *("--protocol", "tls" if inventory.tls else "tcp"),
        *_bound_to(host),
        *("--port", str(inventory.scheduler_port)),
        *("--dashboard-address", f"127.0.0.1:{inventory.dashboard_port}"),
        *("--scheduler-file", "scheduler.json"),
    ]


def _worker_arguments(inventory: Inventory, host: Host, workers: int) -> list[str]:
    return [
        inventory.address,
        *("--protocol", "tls" if inventory.tls else "tcp"),
        *_bound_to(host),
        *("--name", host.name),
        *("--nworkers", str(workers), "--nthreads", "1"),
        # or a share of the host's: left to itself Dask counts all cores, whatever workers there are
        *(
            "--memory-limit",
            str(host.memory_bytes // workers if host.memory else 1 / workers),
        ),
        *("--local-directory", "scratch"),
        "--no-dashboard",
    ]


def _bound_to(host: Host) -> list[str]:
    return ["--interface", host.interface] if host.interface else ["--host", host.address]


def _script(folder: str, service: Service) -> str:
    functions = files("nearfield.clusters").joinpath("host.sh").read_text()
    return f"cd\nfolder=$(realpath -m {folder})\nrole={service}\n{functions}"
