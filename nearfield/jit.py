"""How nearfield compiles: by numba, and once, where the compiled code can be kept.

numba keeps it in `NUMBA_CACHE_DIR`, beside the source, or in the user's cache folder. Where none
can be written to (a service without a home, an installation by root) it would refuse to compile at
all; here each process then compiles for itself.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[Function], Function]:
    """As `numba.njit(cache=True, **options)`, but compiles without a place to keep code, too."""

    def decorate(function: Function) -> Function:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
        return numba.njit(**options)(function)

    return decorate


def code_folder() -> str | None:
    """Where this process keeps compiled code; None where it can't."""
    function: Any = compiled()(code_folder)
    folder: str | None = function.stats.cache_path
    return folder
