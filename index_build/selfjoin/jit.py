"""The one way in which the self-join compiles: numba, without the interpreter lock, cached on disk.

Kernels run in plain threads (`run_parallel`), never in numba's own pool: that pool may not be
entered by two threads at once, as Dask workers do.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from nearfield.jit import Function, compiled

_REASSOCIATE = {"reassoc", "contract"}
"""Lets the compiler add in lanes; the order is fixed when it compiles, so results repeat."""


def kernel(function: Function) -> Function:
    """Compile `function` on its first call for those types; it runs without the interpreter lock.

    Arithmetic stays as written: kernels decide about order, ties and infinities.
    """
    return compiled(nogil=True, error_model="numpy")(function)


def summing_kernel(function: Function) -> Function:
    """As `kernel`, with sums in lanes."""
    return compiled(nogil=True, error_model="numpy", fastmath=_REASSOCIATE)(function)


def run_parallel(task: Callable[[int], object], items: Iterable[int], threads: int) -> None:
    """Call `task` for each item on `threads` threads; the first error is raised, the rest stop."""
    if threads == 1:
        for item in items:
            task(item)
        return
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(task, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
