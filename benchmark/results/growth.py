"""How a cost grows with n: a power law by least squares on logarithms, and what it foretells.

Pure. cost = factor * n ** exponent; the interval is the usual one of a regression for a further
measurement, so it holds as far as the power law does: beyond the largest n that is a belief.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
"""Student's t at 97.5% for 1 to 20 degrees of freedom; 1.96 to 2.08 beyond, rounded up."""
T_BEYOND = 2.08


@dataclass(frozen=True)
class Foretold:
    """A cost at some n with its 95% interval; (0, infinity) when too few points give one."""

    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Growth:
    """A fitted power law. `spread` is the residual deviation of ln(cost), None if unknown."""

    factor: float
    exponent: float
    spread: float | None
    points: int
    mean_log_n: float
    scatter: float
    largest_n: int

    def at(self, n: int) -> Foretold:
        """The cost at n. Cost O(1)."""
        value = self.factor * n**self.exponent
        if self.spread is None:
            return Foretold(n, value, 0.0, math.inf)
        degrees = self.points - 2
        t = T_975[degrees - 1] if degrees <= len(T_975) else T_BEYOND
        away = math.log(n) - self.mean_log_n
        error = t * self.spread * math.sqrt(1 + 1 / self.points + away * away / self.scatter)
        # a hopelessly wide interval is infinity, not an overflow
        widest = math.exp(min(error, 500.0))
        return Foretold(n, value, value / widest, value * widest if error < 500 else math.inf)


def growth_of(sizes: Sequence[int], costs: Sequence[float]) -> Growth | None:
    """Fit the power law to costs (> 0) measured at `sizes`; every repetition is a point.

    None with fewer than two different sizes; without interval (`spread` None) with two points.
    """
    known = [(n, cost) for n, cost in zip(sizes, costs, strict=True) if n > 0 and cost > 0]
    if len({n for n, _ in known}) < 2:
        return None
    x = np.log([n for n, _ in known])
    y = np.log([cost for _, cost in known])
    mean = float(x.mean())
    scatter = float(((x - mean) ** 2).sum())
    exponent = float(((x - mean) * (y - y.mean())).sum() / scatter)
    intercept = float(y.mean()) - exponent * mean
    residuals = y - intercept - exponent * x
    degrees = len(known) - 2
    spread = math.sqrt(float((residuals**2).sum()) / degrees) if degrees else None
    return Growth(
        factor=math.exp(intercept),
        exponent=exponent,
        spread=spread,
        points=len(known),
        mean_log_n=mean,
        scatter=scatter,
        largest_n=max(n for n, _ in known),
    )
