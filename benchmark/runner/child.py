"""The measured process: builds, searches or joins as one request says, and nothing else.

    python -m benchmark.runner.child REQUEST.json      in a container; else see `warm`

Owns the clock. Everything that needs no clock (recall, distances, files) is the parent's, after
this process has ended. Refuses to judge: an error ends it with a message, which is the result.
"""

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmark.methods import method_named
from benchmark.methods.base import Index, Method
from benchmark.runner.request import (
    CHECKED,
    AnyRequest,
    Build,
    FirstUse,
    Graph,
    Search,
    note,
    read_request,
    save_repetition,
)
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s, space_named

PR_SET_PDEATHSIG = 1
"""From Linux' prctl.h."""
ALL = 0
"""Stands for a batch size where every row is asked for."""
ROWS_AT_ONCE = 16_384
REPEAT_WITHIN_S = 1.0
"""Once the repetitions have taken so long together there is none more."""
WARM_UP = 16
EQUAL = 10
"""Of the rows of a warm-up so many equal others: some libraries go another way then."""
STACKS_BYTES = 16 << 20
"""Allowance for threads' stacks under a memory limit."""


def main(request: AnyRequest) -> None:
    """Do what is asked."""
    if request.pinned:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: request.threads])
    match request:
        case Build():
            build(request)
        case FirstUse():
            first_use(request)
        case Search():
            search(request)
        case Graph():
            graph(request)
    note(Path(request.out), peak_bytes=_status("VmHWM"), done=True)


def build(request: Build) -> None:
    """Make and save an index; then, with its peak memory noted, add rows to it."""
    out, method = Path(request.out), _ready(request, request.parameters)
    note(out, build_baseline_bytes=_status("VmRSS"))
    vectors = _rows(request)
    _warm(method, vectors, request)
    started = time.perf_counter()
    index = method.build(
        vectors, space_named(request.space), threads=request.threads, seed=request.seed
    )
    seconds = time.perf_counter() - started
    efforts = {str(k): list(index.efforts(k)) for k in request.ks}
    note(out, build_s=seconds, efforts=efforts)
    folder = Path(request.folder)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    names = index.save(folder)
    note(
        out,
        save_s=time.perf_counter() - started,
        files=list(names),
        index_bytes=sum((folder / name).stat().st_size for name in names),
        build_peak_bytes=_status("VmHWM"),
    )
    if method.adds and request.add_rows:
        more = np.load(request.vectors, mmap_mode="r")[request.n :][: request.add_rows].copy()
        started = time.perf_counter()
        index.add(more)
        note(out, add_s=time.perf_counter() - started, add_rows=len(more))


def first_use(request: FirstUse) -> None:
    """Build, ask and join few rows, so that whatever compiles itself has done so."""
    method, space = _ready(request, request.parameters), space_named(request.space)
    few = _few(method, _rows(request, copy=False))
    if "queries" in method.workloads:
        index = method.build(few, space, threads=request.threads, seed=request.seed)
        for asked in (1, WARM_UP):
            index.search(few[:asked], request.k, index.efforts(request.k)[0])
    if method.graphs:
        method.all_neighbours(few, request.k, space, threads=request.threads, seed=request.seed)


def search(request: Search) -> None:
    """Load an index and ask it, every batch size and repetition in turn."""
    out = Path(request.out)
    method = _ready(request, {})
    if request.limit_bytes is not None:
        _forget_pages(Path(request.folder))
        allowed = _status("VmData") + request.limit_bytes + STACKS_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    mapped = request.limit_bytes is not None and method.maps
    started = time.perf_counter()
    index = type(method).load(Path(request.folder), threads=request.threads, mapped=mapped)
    note(out, load_s=time.perf_counter() - started, mapped=mapped)
    if request.queries is None:
        checked = np.load(out / CHECKED)
        vectors = _rows(request, copy=False)
        index.search(np.ascontiguousarray(vectors[:WARM_UP]), request.k + 1, request.effort)
        for number in repeated(request.repeat):
            save_repetition(out, ALL, number, *_every_row(index, vectors, checked, request))
        return
    queries = np.ascontiguousarray(np.load(request.queries))
    index.search(queries[:WARM_UP], request.k, request.effort)
    for batch in request.batches:
        for number in repeated(request.repeat):
            save_repetition(out, batch, number, *_in_batches(index, queries, batch, request))


def graph(request: Graph) -> None:
    """Have the method make the lists of all rows."""
    out, method = Path(request.out), _ready(request, request.parameters)
    vectors, checked = _rows(request), np.load(out / CHECKED)
    _warm(method, vectors, request)
    for number in repeated(request.repeat):
        started = time.perf_counter()
        found = method.all_neighbours(
            vectors,
            request.k,
            space_named(request.space),
            threads=request.threads,
            seed=request.seed,
        )
        seconds = time.perf_counter() - started
        save_repetition(out, ALL, number, np.array([seconds]), found[checked])


def _every_row(
    index: Index, vectors: Float32s, checked: Int32s, request: Search
) -> tuple[np.ndarray, Int32s]:
    times, kept = [], []
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        rows = np.ascontiguousarray(vectors[start : start + ROWS_AT_ONCE])
        started = time.perf_counter()
        found = index.search(rows, request.k + 1, request.effort)
        found[found == np.arange(start, start + len(rows))[:, None]] = EMPTY
        times.append(time.perf_counter() - started)
        inside = checked[(checked >= start) & (checked < start + len(rows))]
        kept.append(found[inside - start])
    return np.array(times), np.concatenate(kept)


def _in_batches(
    index: Index, queries: Float32s, batch: int, request: Search
) -> tuple[np.ndarray, Int32s]:
    times, kept = [], []
    for start in range(0, len(queries), batch):
        part = queries[start : start + batch]
        started = time.perf_counter()
        found = index.search(part, request.k, request.effort)
        times.append(time.perf_counter() - started)
        kept.append(found)
    return np.array(times), np.concatenate(kept)


def _ready(request: AnyRequest, parameters: dict[str, object]) -> Method:
    """The method with its library imported; notes what the process takes before any data."""
    method = method_named(request.method, parameters)
    method.require()
    note(Path(request.out), baseline_bytes=_status("VmRSS"))
    return method


def _warm(method: Method, vectors: Float32s, request: Build | Graph) -> None:
    """Let a library that prepares itself at its first use do so before the clock starts."""
    few, space = _few(method, vectors), space_named(request.space)
    if isinstance(request, Build):
        method.build(few, space, threads=request.threads, seed=request.seed)
    else:
        method.all_neighbours(few, request.k, space, threads=request.threads, seed=request.seed)


def _few(method: Method, vectors: Float32s) -> Float32s:
    few = np.array(vectors[: method.warm_rows])
    few[max(0, len(few) - EQUAL) :] = few[:EQUAL]
    return few


def _rows(request: AnyRequest, *, copy: bool = True) -> Float32s:
    vectors = np.load(request.vectors, mmap_mode="r")[: request.n]
    return np.array(vectors) if copy else vectors


def repeated(most: int) -> Iterator[int]:
    """Numbers of up to `most` repetitions, none more once they took a second together."""
    started = time.perf_counter()
    for number in range(most):
        yield number
        if time.perf_counter() - started > REPEAT_WITHIN_S:
            return


def _forget_pages(folder: Path) -> None:
    """Drop the index from the page cache, so that a limited process starts cold."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _status(name: str) -> int:
    return memory_of("self", name)


def memory_of(process: int | str, name: str) -> int:
    """Bytes of a field of a process' /proc/PID/status: VmRSS, VmHWM (its peak), VmData."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return 0


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the one that measures it ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the measuring process has ended")


if __name__ == "__main__":
    main(read_request(Path(sys.argv[1])))
