"""A cluster on hosts over SSH: up, down, status.

Owns the order (check, scheduler, workers, wait) and that a start that fails leaves nothing behind.
Services are detached and log to files: nothing reads a worker's output through SSH, so nothing can
block it (distributed issue 9033).
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tomli_w

from nearfield.clusters import services
from nearfield.clusters.certificates import authority, write_secret
from nearfield.clusters.inventory import Host, Inventory
from nearfield.clusters.services import VERSIONS, Service
from nearfield.clusters.ssh import Shell, shell_for
from nearfield.errors import Infrastructure
from nearfield.files import write_bytes
from nearfield.lock import locked

LOOK_EVERY_S = 10
CONNECTION = "cluster.toml"
RUNNING = ("started", "running")
Thing = TypeVar("Thing")
Result = TypeVar("Result")


@dataclass(frozen=True)
class HostState:
    """One service on one host: `started`, `running`, `absent`, `stopped`, or `unreachable`."""

    host: str
    service: Service
    state: str
    workers: int | None = None


@dataclass(frozen=True)
class ClusterState:
    """A cluster. `connection` is the file to give to --scheduler; `tunnel` shows the dashboard."""

    name: str
    scheduler: str
    connection: Path
    tunnel: str
    services: tuple[HostState, ...]
    problems: tuple[str, ...] = ()


def start_cluster(inventory: Inventory, state: Path) -> ClusterState:
    """Start what doesn't run yet on the hosts; write credentials and a connection file to `state`.

    Raises `Infrastructure` when a host can't take part; what this call started is stopped then.
    """
    with locked(state):
        shell = shell_for(inventory, state)
        cores = _checked_hosts(shell)
        _place_credentials(shell, state)
        begun: list[tuple[Host, Service]] = []
        try:
            head = _started(shell, begun, inventory.scheduler, "scheduler", 0)
            found = _everywhere(
                inventory.workers,
                lambda host: _started(shell, begun, host, "worker", cores[host.name]),
            )
            _wait_until_joined(shell, cores)
        except BaseException:
            for host, service in reversed(begun):
                _stopped(shell, host, service)
            raise
        workers = tuple(
            HostState(one.host, one.service, one.state, cores[one.host]) for one in found
        )
        _write_connection(inventory, state)
    return _state(inventory, state, (head, *workers))


def stop_cluster(inventory: Inventory, state: Path) -> ClusterState:
    """Stop workers and scheduler, remove credentials there and here; unreachable hosts are named.

    Their credentials die with the authority: it is removed here, so nobody is let in by it again.
    """
    with locked(state):
        shell = shell_for(inventory, state)
        found = [
            *_everywhere(inventory.workers, lambda host: _stopped(shell, host, "worker")),
            _stopped(shell, inventory.scheduler, "scheduler"),
        ]
        reached = {one.host for one in found if one.state != "unreachable"}
        _everywhere(
            [host for host in inventory.hosts if host.name in reached],
            lambda host: shell.run(host, services.forget_script(inventory)),
        )
        for name in (CONNECTION, "ca.pem", "ca.key", "client.pem", "client.key"):
            (state / name).unlink(missing_ok=True)
    problems = tuple(f"{one.host} can't be reached or stopped: its {one.service} may still run"
                     for one in found if one.state == "unreachable")  # fmt: skip
    return _state(inventory, state, tuple(found), problems)


def cluster_state(inventory: Inventory, state: Path) -> ClusterState:
    """Which services run, and how many workers of each host the scheduler sees."""
    shell = shell_for(inventory, state)

    def asked(pair: tuple[Host, Service]) -> HostState:
        host, service = pair
        try:
            answer = shell.run(host, services.act_script(inventory, service, "status"))
        except Infrastructure:
            return HostState(host.name, service, "unreachable")
        return HostState(host.name, service, answer.split()[0])

    pairs: list[tuple[Host, Service]] = [(inventory.scheduler, "scheduler")]
    pairs += [(host, "worker") for host in inventory.workers]
    found = _everywhere(pairs, asked)
    problems = [f"{one.service} on {one.host}: {one.state}"
                for one in found if one.state not in RUNNING]  # fmt: skip
    if found[0].state == "running":
        seen = _seen(shell, 0)
        found = [
            one
            if one.service == "scheduler"
            else HostState(one.host, one.service, one.state, seen[one.host])
            for one in found
        ]
        problems += [f"the scheduler sees no worker of {one.host}"
                     for one in found if one.workers == 0 and one.state == "running"]  # fmt: skip
    return _state(inventory, state, tuple(found), tuple(problems))


def _checked_hosts(shell: Shell) -> dict[str, int]:
    """Worker processes per host; raises `Infrastructure` when its software differs from ours."""
    ours = _own_versions()

    def check(host: Host) -> int:
        facts = json.loads(shell.run(host, services.facts_script(shell.inventory)))
        theirs = facts["versions"]
        differing = [f"{name} {theirs.get(name)} instead of {version}"
                     for name, version in ours.items() if theirs.get(name) != version]  # fmt: skip
        if differing:
            raise Infrastructure(
                f"{host.name} has {', '.join(differing)}: tasks are sent as code, so all hosts "
                "need the same versions; install with constraints.txt"
            )
        return host.workers or min(host.cores or facts["cores"], facts["cores"])

    hosts = shell.inventory.hosts
    return dict(zip((host.name for host in hosts), _everywhere(hosts, check), strict=True))


def _own_versions() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    found = {name: version(name) for name in VERSIONS}
    return found | {"python": ".".join(platform.python_version_tuple()[:2])}


def _place_credentials(shell: Shell, state: Path) -> None:
    inventory = shell.inventory
    made = authority(state, inventory.name) if inventory.tls else None

    def place(host: Host) -> None:
        identity = made.issue(f"{inventory.name} {host.name}", host.address) if made else None
        pem = made.pem if made else ""
        shell.run(host, services.files_script(inventory, host, pem, identity))

    _everywhere(inventory.hosts, place)
    if made:
        # anew each time, as the hosts' are: it ends with them
        client = made.issue(f"{inventory.name} client")
        write_secret(state / "client.pem", client.certificate)
        write_secret(state / "client.key", client.key)


def _started(
    shell: Shell, begun: list[tuple[Host, Service]], host: Host, service: Service, workers: int
) -> HostState:
    # noted before: a start that fails halfway may have left a process
    inventory = shell.inventory
    before = shell.run(host, services.act_script(inventory, service, "status")).split()[0]
    if before != "running":
        begun.append((host, service))
    script = services.start_script(inventory, host, service, workers)
    answer = shell.run(host, script, timeout_s=inventory.start_timeout_s + 60)
    return HostState(host.name, service, answer.split()[0])


def _stopped(shell: Shell, host: Host, service: Service) -> HostState:
    try:
        answer = shell.run(host, services.act_script(shell.inventory, service, "stop"))
    except Infrastructure:
        return HostState(host.name, service, "unreachable")
    return HostState(host.name, service, answer.split()[0])


def _seen(shell: Shell, workers: int, timeout_s: float = 0) -> Counter[str]:
    """Workers per host as the scheduler sees them, once there are so many; their addresses may be
    others than the inventory's, their names are of our giving.
    """
    script = services.watch_script(shell.inventory, workers, timeout_s)
    # a slow host takes as long to start this program as to start its services
    patience = timeout_s + shell.inventory.start_timeout_s
    answer = shell.run(shell.inventory.scheduler, script, timeout_s=patience)
    hosts = {host.name for host in shell.inventory.hosts}
    names: list[str] = json.loads(answer.splitlines()[-1])
    # of several on one host each has a number after it
    return Counter(name if name in hosts else name.rpartition("-")[0] for name in names)


def _wait_until_joined(shell: Shell, cores: dict[str, int]) -> None:
    """Until the scheduler sees all workers; a host whose workers ended is named at once."""
    inventory = shell.inventory
    wanted = sum(cores[host.name] for host in inventory.workers)
    deadline = time.monotonic() + inventory.start_timeout_s
    while True:
        seen = _seen(shell, wanted, LOOK_EVERY_S)
        if all(seen[host.name] >= cores[host.name] for host in inventory.workers):
            return
        late = time.monotonic() > deadline
        for host in inventory.workers:
            script = services.act_script(inventory, "worker", "status")
            ended = not shell.run(host, script).startswith("running")
            if ended or (late and seen[host.name] < cores[host.name]):
                log = shell.run(host, services.complaints_script(inventory, "worker")).strip()
                raise Infrastructure(
                    f"{host.name}: its workers {'ended' if ended else 'did not join'} "
                    f"({inventory.address}). Its worker.log says: {log}"
                )


def _write_connection(inventory: Inventory, state: Path) -> None:
    content = {"scheduler": inventory.address}
    if inventory.tls:
        content |= {"tls_ca": "ca.pem", "tls_cert": "client.pem", "tls_key": "client.key"}
    write_bytes(state / CONNECTION, tomli_w.dumps(content).encode())


def _state(
    inventory: Inventory,
    state: Path,
    found: tuple[HostState, ...],
    problems: tuple[str, ...] = (),
) -> ClusterState:
    port, head = inventory.dashboard_port, inventory.scheduler
    user = f"{head.user}@" if head.user else ""
    other = f" -p {head.port}" if head.port != 22 else ""
    return ClusterState(
        name=inventory.name,
        scheduler=inventory.address,
        connection=state / CONNECTION,
        tunnel=f"ssh -N -L {port}:127.0.0.1:{port}{other} {user}{head.ssh_address}"
        f"   # then http://127.0.0.1:{port}",
        services=found,
        problems=problems,
    )


def _everywhere(things: Sequence[Thing], function: Callable[[Thing], Result]) -> list[Result]:
    """The function's results for all, at the same time; raises the first error after all ended."""
    with ThreadPoolExecutor(max_workers=max(1, len(things))) as pool:
        return [future.result() for future in [pool.submit(function, one) for one in things]]
