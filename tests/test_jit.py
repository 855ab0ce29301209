"""Kernels compile where compiled code can't be kept, too."""

import numba
import pytest
from numba.core.caching import CacheImpl

from nearfield import jit
from nearfield.doctor import judged_code


def double(value: int) -> int:
    return 2 * value


def test_compiled_code_is_kept_where_there_is_a_place() -> None:
    assert judged_code(jit.code_folder()).level == "ok"


def test_without_a_place_it_compiles_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # what a read-only installation and no home to write to come to
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(double)
    assert jit.compiled(nogil=True)(double)(21) == 42


def test_the_doctor_says_when_code_is_kept_nowhere() -> None:
    finding = judged_code(None)
    assert finding.level == "warn"
    assert "NUMBA_CACHE_DIR" in finding.advice
