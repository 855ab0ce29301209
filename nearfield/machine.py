"""Facts about the machine: processor, cores, memory, disk. For `doctor` and for results files.

Owns reading them, control group limits included: a container sees the host's memory and cores but
may use less. What isn't known on a platform is None or empty; nothing here raises for that.
Refuses any judgement (`nearfield.doctor`).
"""

import functools
import math
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

FEATURES = (
    *("sse4_2", "avx", "fma", "avx2", "avx512f", "avx512_vnni", "avx512_bf16"),
    *("amx_tile", "amx_bf16", "amx_int8", "asimd", "asimddp", "bf16", "sve", "sve2"),
)
"""Processor features that nearest-neighbour libraries dispatch on, as /proc/cpuinfo spells them."""


def available_cores() -> int:
    """Cores that this process may use: those that it is bound to, no more than its group's time."""
    allowed, limit = len(os.sched_getaffinity(0)), _core_limit()
    return allowed if limit is None else min(allowed, max(1, math.floor(limit)))


@functools.cache
def _core_limit() -> float | None:
    return control_group_limits().cores


@dataclass(frozen=True)
class Processor:
    """`architecture` as the kernel names it (x86_64, aarch64); `features` out of `FEATURES`."""

    model: str
    architecture: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    """What the control group allows: cores (may be a fraction) and bytes; None without limit."""

    cores: float | None
    memory_bytes: int | None


@dataclass(frozen=True)
class Machine:
    """One machine as this process sees it. `cores` and the memory figures respect all limits."""

    system: str
    python: str
    processor: Processor
    cores_present: int
    cores: int
    memory_total_bytes: int
    memory_available_bytes: int
    disk_free_bytes: int
    limits: Limits

    def to_json(self) -> dict[str, Any]:
        """All facts as JSON-representable values."""
        return asdict(self)


def machine_facts(directory: Path = Path()) -> Machine:
    """The facts, with the free space of the file system that holds `directory` (or would)."""
    limits = control_group_limits()
    memory = psutil.virtual_memory()
    limit = limits.memory_bytes
    total = memory.total if limit is None else min(limit, memory.total)
    available = memory.available if limit is None else min(limit, memory.available)
    return Machine(
        system=platform.platform(),
        python=platform.python_version(),
        processor=processor_from(_text(Path("/proc/cpuinfo")), platform.machine()),
        cores_present=os.cpu_count() or available_cores(),
        cores=available_cores(),
        memory_total_bytes=total,
        memory_available_bytes=available,
        disk_free_bytes=psutil.disk_usage(str(existing_folder(directory))).free,
        limits=limits,
    )


def processor_from(cpuinfo: str, architecture: str) -> Processor:
    """The first processor described in the text of /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    return Processor(
        model=fields.get("model name") or platform.processor() or "unknown",
        architecture=architecture,
        features=tuple(feature for feature in FEATURES if feature in flags),
    )


def control_group_limits(root: Path = Path("/")) -> Limits:
    """Limits of this process' control groups (v1 and v2), the tightest of all levels."""
    cores: list[float] = []
    memory: list[int] = []
    for folder in _control_groups(root):
        quota, period = _quota(folder)
        if quota > 0 and period > 0:
            cores.append(quota / period)
        for name in ("memory.max", "memory.limit_in_bytes"):
            value = _number(_text(folder / name))
            if 0 < value < 1 << 60:  # v1 says "no limit" with a number near 2^63
                memory.append(value)
    return Limits(min(cores, default=None), min(memory, default=None))


def existing_folder(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    resolved = path.resolve()
    return next(folder for folder in (resolved, *resolved.parents) if folder.is_dir())


def _control_groups(root: Path) -> Iterator[Path]:
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, inside = line.split(":", 2)
        base = mount / controllers
        folder = base / inside.lstrip("/")
        # a container may see its own group as the root of the mount, whatever the path says
        yield from (level for level in (folder, *folder.parents) if level.is_relative_to(base))


def _quota(folder: Path) -> tuple[int, int]:
    """CPU time per period, in microseconds; 0 without limit."""
    if text := _text(folder / "cpu.max"):
        quota, period = text.split()
        return _number(quota), _number(period)
    return (
        _number(_text(folder / "cpu.cfs_quota_us")),
        _number(_text(folder / "cpu.cfs_period_us")),
    )


def _number(text: str) -> int:
    """An integer, or 0 for anything else ("max", "-1", nothing)."""
    stripped = text.strip()
    return int(stripped) if stripped.isdigit() else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
