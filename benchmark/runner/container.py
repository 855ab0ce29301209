"""The measured process in a container with a memory limit, through the docker client.

Owns the container's life: started with our files in place, watched, stopped in time, removed
whatever happens. The image must have nearfield installed, of this version. Refuses to build images.
"""

import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.results.outcome import Status
from benchmark.runner.parents import COMPILED
from benchmark.runner.process import CHILD, THREAD_VARIABLES, Ended, Limits, read_end
from benchmark.runner.stopping import check
from nearfield.errors import Infrastructure, UsageError
from nearfield.manifest import library_versions

POLL_S = 0.1
LABEL = "nearfield.bench"
"""On each container: the directory of the benchmark that it measures for."""
DEFAULT_HOST = "unix:///var/run/docker.sock"
ASKED = """\
import json, sys
from nearfield.libraries import library_facts
from nearfield.manifest import library_versions
libraries = [one.to_json() for one in library_facts(tuple(sys.argv[1:]))]
print(json.dumps({"libraries": libraries, "versions": library_versions()}))
"""
KILLED_BY_SIGNAL = 128
"""An exit code above this is 128 + the signal's number."""


def engine() -> Any:
    """The docker client of the engine at hand. Raises `Infrastructure` where there is none."""
    import docker
    from docker.errors import DockerException

    client = None
    try:
        _knock(os.environ.get("DOCKER_HOST") or DEFAULT_HOST)
        client = docker.from_env()
        client.ping()
    except (DockerException, OSError) as error:
        if client is not None:
            client.close()
        raise Infrastructure(
            f"expected a container engine for --container, none answers ({error}). Start one, set "
            "DOCKER_HOST, or leave --container away: processes are then capped by this machine"
        ) from error
    return client


def _knock(host: str) -> None:
    """Raise `OSError` where nobody listens at a local socket: the docker client would leave its
    own end of it open.
    """
    scheme, _, path = host.partition("://")
    if scheme == "unix":
        with socket.socket(socket.AF_UNIX) as ours:
            ours.connect(path)


@dataclass(frozen=True)
class Image:
    """An image that can be measured in: its id, and what its libraries are."""

    id: str
    libraries: tuple[dict[str, Any], ...]
    versions: dict[str, str]

    @property
    def lacking(self) -> tuple[str, ...]:
        """Of the modules that it was asked for, those that aren't installed in it."""
        return tuple(one["name"] for one in self.libraries if one["state"] == "not installed")


def asked_image(image: str, libraries: Sequence[str]) -> Image:
    """What the engine's image of that name is, asked in a container without network.

    Raises `UsageError` where there is none, or it holds another version of nearfield than this one,
    `Infrastructure` without an engine.
    """
    from docker.errors import APIError, ContainerError, ImageNotFound

    client = engine()
    try:
        found = client.images.get(image)
        said = client.containers.run(
            found.id,
            ["-c", ASKED, *libraries],
            entrypoint=["python"],
            network_disabled=True,
            remove=True,
            stderr=False,
        )
        answer = json.loads(said.decode().splitlines()[-1])
    except ImageNotFound as error:
        raise UsageError(
            f"expected an image {image!r} with nearfield installed; the engine has none of that "
            "name. Build or pull it first"
        ) from error
    except (APIError, ContainerError, ValueError, IndexError) as error:
        raise UsageError(
            f"expected nearfield in the image {image!r}; asked, it said: {error}"
        ) from (error)
    finally:
        client.close()
    inside, here = answer["versions"]["nearfield"], library_versions()["nearfield"]
    if inside != here:
        raise UsageError(
            f"expected an image with nearfield {here}, as this is; {image!r} has {inside}. "
            "Build it again"
        )
    return Image(found.id, tuple(answer["libraries"]), answer["versions"])


def run_in_container(image: str, directory: Path, request: Path, limits: Limits) -> Ended:
    """Run the child on `request` in a container of `image`; `directory` keeps its path inside.

    The memory limit is the kernel's and counts cached pages of files, too.
    """
    from docker.errors import APIError

    client, log = engine(), request.parent / "log"
    place = str(directory.resolve())
    try:
        # a worker that was killed leaves its container at work: one measures here at a time
        for left in client.containers.list(all=True, filters={"label": f"{LABEL}={place}"}):
            left.remove(force=True)
        started = time.monotonic()
        container = client.containers.run(
            image,
            [str(request.resolve())],
            # the image's own would start nearfield, as a user who can't write to the directory
            entrypoint=["python", "-m", CHILD],
            user=f"{os.getuid()}:{os.getgid()}",
            detach=True,
            labels={LABEL: place},
            environment=_environment(directory, limits.threads),
            volumes={place: {"bind": place, "mode": "rw"}},
            mem_limit=limits.memory_bytes,
            memswap_limit=limits.memory_bytes,
            nano_cpus=limits.threads * 10**9,
            network_disabled=True,
        )
    except APIError as error:
        client.close()
        raise Infrastructure(f"the container of {image} didn't start: {error}") from error
    try:
        stopped = _watched(container, limits, started)
        log.write_bytes(container.logs())
        state = client.api.inspect_container(container.id)["State"]
    finally:
        container.remove(force=True)
        client.close()
    seconds = time.monotonic() - started
    if stopped is not None:
        return Ended(*stopped, seconds)
    if state.get("OOMKilled"):
        gigabytes = limits.memory_bytes / 2**30
        return Ended(Status.OUT_OF_MEMORY, f"beyond the container's {gigabytes:.2f} GiB", seconds)
    code = int(state["ExitCode"])
    if code > KILLED_BY_SIGNAL:
        code = KILLED_BY_SIGNAL - code
    return Ended(*read_end(code, log), seconds)


def _environment(directory: Path, threads: int) -> dict[str, str]:
    """Threads, and where compiled functions are kept from one container to the next."""
    cache = directory.resolve() / COMPILED
    cache.mkdir(exist_ok=True)
    return dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"NUMBA_CACHE_DIR": str(cache)}


def _watched(container: Any, limits: Limits, started: float) -> tuple[Status, str] | None:
    while True:
        check()
        container.reload()
        if container.status in {"exited", "dead"}:
            return None
        if time.monotonic() - started > limits.timeout_s:
            container.kill()
            return Status.TIMEOUT, f"stopped after {limits.timeout_s:.0f} s"
        time.sleep(POLL_S)
