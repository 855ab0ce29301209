"""The native libraries: which are there, how each was built, how many threads each sees.

Owns one child process per library: a binary made for another processor dies there, not here, and
what a library prints while it is imported stays there too. Missing and broken libraries are facts,
not errors. Refuses any judgement (`nearfield.doctor`).
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from typing import Any, Literal

LIBRARIES = (
    *("numpy", "faiss", "nmslib", "annoy", "hnswlib", "numba", "h5py", "pyarrow"),
    *("dask", "distributed", "psycopg2"),
)
TIMEOUT_S = 60


@dataclass(frozen=True)
class Library:
    """One importable module. `state`: `ok`, `not installed` or `broken` (`error` says why).

    distribution: the package that provides it. package: as published wheel, or built here from
    source, with the platform tag. built: what its binary was compiled for or dispatches to.
    threads: what it would use in a process with this environment; None where it has no such idea.
    """

    name: str
    state: Literal["ok", "not installed", "broken"]
    version: str | None = None
    distribution: str | None = None
    package: str | None = None
    built: str | None = None
    threads: int | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """All facts as JSON-representable values."""
        return asdict(self)


def library_facts(names: Sequence[str] = LIBRARIES) -> tuple[Library, ...]:
    """Import each library in a child process and ask it. Cost: about a second altogether."""
    installed = metadata.packages_distributions()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return tuple(pool.map(lambda name: _asked(name, _provider(installed.get(name))), names))


def loaded_threads() -> dict[str, int]:
    """Threads of the libraries that this process has imported already, as they are set now."""
    return {
        name: threads()
        for name, (_, threads) in _QUESTIONS.items()
        if name in sys.modules and threads is not None
    }


def _asked(name: str, provider: Mapping[str, Any]) -> Library:
    command = [sys.executable, "-P", "-c", f"import nearfield.libraries as it; it.answer({name!r})"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        child = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return Library(name, "broken", error=f"no answer within {TIMEOUT_S} s", **provider)
    lines = child.stdout.splitlines()
    if child.returncode:
        return Library(name, "broken", error=_death(child.returncode, child.stderr), **provider)
    answer = json.loads(lines[-1])
    if answer["state"] == "not installed" and provider:
        answer |= {"state": "broken"}
    notice = _notice(lines[:-1] + child.stderr.splitlines())
    return Library(name, **(answer | dict(provider) | notice))


def answer(name: str) -> None:
    """In the child: import the library and print what it says about itself as one line of JSON."""
    facts: dict[str, Any] = {"state": "ok"}
    try:
        module = import_module(name)
        describe, threads = _QUESTIONS.get(name, (None, None))
        facts["version"] = getattr(module, "__version__", None)
        facts["built"] = describe() if describe else None
        facts["threads"] = threads() if threads else None
    except ModuleNotFoundError as error:
        facts = {"state": "not installed" if error.name == name else "broken", "error": str(error)}
    except Exception as error:  # whatever a foreign library raises is the fact asked for
        facts = {"state": "broken", "error": f"{type(error).__name__}: {error}"}
    print(f"\n{json.dumps(facts)}", flush=True)


def _provider(distributions: Sequence[str] | None) -> dict[str, Any]:
    """Distribution, version and kind of package that provides a module, if one is installed."""
    if not distributions:
        return {}
    found = metadata.distribution(distributions[0])
    tags = [
        line.rpartition("-")[2]
        for line in (found.read_text("WHEEL") or "").splitlines()
        if line.startswith("Tag:")
    ]
    return {
        "distribution": distributions[0],
        "version": found.version,
        "package": _package(tags[-1] if tags else ""),
    }


def _package(tag: str) -> str:
    if tag == "any":
        return "pure Python"
    # installers tag what they compile themselves with the bare platform
    return f"built here ({tag})" if tag.startswith("linux_") or not tag else f"wheel ({tag})"


def _notice(lines: Sequence[str]) -> dict[str, str]:
    """What nmslib prints about the instructions that its binary doesn't use."""
    said = [line.partition("not compiled to use:") for line in lines]
    missing = next((rest.strip() for _, found, rest in said if found), None)
    return {"built": f"without {missing}"} if missing else {}


def _death(code: int, stderr: str) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        hint = ": built for another processor?" if name == "SIGILL" else ""
        return f"killed by {name} when imported{hint}"
    return (stderr.strip().splitlines() or [f"exit code {code}"])[-1]


def _pools(user_api: str) -> list[dict[str, Any]]:
    from threadpoolctl import threadpool_info

    return [pool for pool in threadpool_info() if pool["user_api"] == user_api]


def _blas() -> str:
    pools = [
        f"{pool['internal_api']} {pool['version']} ({pool.get('architecture', '?')})"
        for pool in _pools("blas")
    ]
    return ", ".join(dict.fromkeys(pools)) or "BLAS unknown"


def _blas_threads() -> int:
    return max((pool["num_threads"] for pool in _pools("blas")), default=1)


def _faiss_built() -> str:
    import faiss

    return f"{faiss.get_compile_options().strip()}; uses {faiss.SIMDConfig.get_level_name()}"


def _faiss_threads() -> int:
    import faiss

    return int(faiss.omp_get_max_threads())


def _numba_threads() -> int:
    import numba

    return int(numba.get_num_threads())


def _numba_built() -> str:
    import llvmlite.binding as llvm

    return f"LLVM {'.'.join(map(str, llvm.llvm_version_info))} for {llvm.get_host_cpu_name()}"


def _arrow_built() -> str:
    import pyarrow as pa

    info = pa.runtime_info()
    return f"SIMD {info.simd_level} of {info.detected_simd_level}"


def _arrow_threads() -> int:
    import pyarrow as pa

    return int(pa.cpu_count())


def _h5py_built() -> str:
    import h5py

    return f"HDF5 {h5py.version.hdf5_version}"


def _psycopg2_built() -> str:
    import psycopg2

    version: int = psycopg2.__libpq_version__
    return f"libpq {version // 10_000}.{version % 10_000}"


_Describe = Callable[[], str] | None
_Threads = Callable[[], int] | None
_QUESTIONS: Mapping[str, tuple[_Describe, _Threads]] = {
    "numpy": (_blas, _blas_threads),
    "faiss": (_faiss_built, _faiss_threads),
    "numba": (_numba_built, _numba_threads),
    "pyarrow": (_arrow_built, _arrow_threads),
    "h5py": (_h5py_built, None),
    "psycopg2": (_psycopg2_built, None),
}
