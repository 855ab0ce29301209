"""Clusters on hosts as functions: up, down, state. What `nearfield cluster` calls.

Needs the extra `machines`, so that is imported when it is asked for.
"""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from nearfield.clusters.inventory import Inventory, read_inventory

if TYPE_CHECKING:
    from nearfield.clusters.hosts import ClusterState


def cluster_up(inventory: Path | str, *, state: Path | str | None = None) -> "ClusterState":
    """Start scheduler and workers on the hosts of the inventory file; again: what is missing.

    Credentials and the connection file go to `state` (default: beside the inventory, see
    `state_folder`). Raises `UsageError` and `Infrastructure`; a failed start is cleaned up.
    """
    from nearfield.clusters.hosts import start_cluster

    read, folder = _opened(inventory, state)
    return start_cluster(read, folder)


def cluster_down(inventory: Path | str, *, state: Path | str | None = None) -> "ClusterState":
    """Stop all services of the cluster and remove its credentials, on the hosts and here."""
    from nearfield.clusters.hosts import stop_cluster

    read, folder = _opened(inventory, state)
    return stop_cluster(read, folder)


def cluster_status(inventory: Path | str, *, state: Path | str | None = None) -> "ClusterState":
    """Which services run on which host, and which workers the scheduler sees."""
    from nearfield.clusters.hosts import cluster_state

    read, folder = _opened(inventory, state)
    return cluster_state(read, folder)


def cluster_certificates(name: str, out: Path | str) -> datetime:
    """Write `ca.pem`, `tls.pem` and `tls.key` for all services of a cluster; when they end.

    The authority (`ca.pem`, `ca.key`) stays the same while its folder does.
    """
    from nearfield.clusters.certificates import authority, write_secret

    folder = Path(out)
    made = authority(folder, name)
    identity = made.issue(name)
    write_secret(folder / "tls.pem", identity.certificate)
    write_secret(folder / "tls.key", identity.key)
    return identity.ends


def state_folder(inventory: Path) -> Path:
    """hosts.toml keeps its credentials in hosts.cluster."""
    return inventory.with_suffix(".cluster")


def _opened(inventory: Path | str, state: Path | str | None) -> tuple[Inventory, Path]:
    path = Path(inventory)
    return read_inventory(path), state_folder(path) if state is None else Path(state)
