"""How the seconds of a stage grow with n, from a handful of runs; and the interval around that.

Pure. A stage that touches every row costs a fixed part and a part in proportion to n, or, where
even small runs show no fixed part, a power of n of at least 1: a power below 1 is what fixed costs
look like between small sizes, and foretells too little beyond them. Whether the law holds beyond
the sizes that were measured they can't tell, so the interval gets wider there by what it was off.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmark.results.growth import T_975, T_BEYOND, Foretold, growth_of

Floats = NDArray[np.float64]

DRIFT = 0.1
"""By so much may the exponent be another beyond the measured sizes, either way: -0.03 to +0.08 was
seen in eight runs of up to 13 times these (docs/results/plan.md)."""


@dataclass(frozen=True)
class Law:
    """seconds = fixed + factor * n ** exponent.

    spread: residual deviation of ln(seconds), None where no run is left to tell it.
    sizes: of the runs.
    """

    fixed: float
    factor: float
    exponent: float
    spread: float | None
    degrees: int
    sizes: tuple[int, ...]

    def seconds(self, n: float) -> float:
        """What the law says for n rows."""
        return self.fixed + self.factor * n**self.exponent

    def at(self, n: int) -> Foretold:
        """Seconds for n rows with the 95% interval of one more run, wider beyond the sizes of the
        runs by the doubt in their growth. Cost O(runs).
        """
        value = self.seconds(n)
        if self.spread is None:
            return Foretold(n, value, 0.0, math.inf)
        known, asked = self._slopes(np.array(self.sizes)), self._slopes(np.array([n]))[0]
        unsure = float(asked @ np.linalg.pinv(known.T @ known) @ asked)
        t = T_975[self.degrees - 1] if self.degrees <= len(T_975) else T_BEYOND
        beyond = DRIFT * max(0.0, math.log(n / max(self.sizes)))
        # a hopelessly wide interval is large, not an overflow
        widest = math.exp(min(math.hypot(t * self.spread * math.sqrt(1 + unsure), beyond), 500.0))
        return Foretold(n, value, value / widest, value * widest)

    def _slopes(self, sizes: NDArray[np.int64]) -> Floats:
        """How ln(seconds) changes with each of the two fitted numbers, float64 [m, 2]."""
        n = sizes.astype(np.float64)
        if self.fixed:
            grown = self.factor * n
            return np.stack([np.full(len(n), self.fixed), grown], axis=1) / (
                self.fixed + grown
            ).reshape(-1, 1)
        return np.stack([np.ones(len(n)), np.log(n)], axis=1)


def law_of(sizes: Sequence[int], seconds: Sequence[float]) -> Law | None:
    """The law of seconds (> 0) measured at `sizes`; every repetition counts as one.

    Least squares of relative errors. None with fewer than two different sizes.
    """
    power = growth_of(sizes, seconds)
    if power is None:
        return None
    if power.exponent >= 1:
        fixed, factor, exponent = 0.0, power.factor, power.exponent
    else:
        fixed, factor = _line(np.array(sizes, np.float64), np.array(seconds, np.float64))
        exponent = 1.0
    law = Law(fixed, factor, exponent, None, len(sizes) - 2, tuple(sizes))
    if not law.degrees:
        return law
    errors = [math.log(y / law.seconds(n)) for n, y in zip(sizes, seconds, strict=True)]
    spread = math.sqrt(sum(e * e for e in errors) / law.degrees)
    return replace(law, spread=spread)


def _line(n: Floats, seconds: Floats) -> tuple[float, float]:
    """Fixed and proportional part, neither below 0."""
    columns = np.stack([np.ones(len(n)), n], axis=1) / seconds.reshape(-1, 1)
    fixed, factor = (float(x) for x in np.linalg.lstsq(columns, np.ones(len(n)), rcond=None)[0])
    if factor < 0:
        return _share(1 / seconds), 0.0
    if fixed < 0:
        return 0.0, _share(n / seconds)
    return fixed, factor


def _share(column: Floats) -> float:
    """The multiple of one column that is nearest to 1 everywhere."""
    return float(column.sum() / (column @ column))
