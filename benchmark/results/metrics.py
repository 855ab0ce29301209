"""What is computed from lists and times: recall, distance ratio, percentiles. Pure.

Recall is tie-aware: a found neighbour counts when its distance is at most the k-th true distance
(1 + 1e-6 relative). An empty place (infinity) counts as not found.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, Int32s

TIE = 1e-6
Z_95 = 1.96


@dataclass(frozen=True)
class Recall:
    """Mean over the checked rows and its 95% interval, cut to 0..1."""

    mean: float
    low: float
    high: float


def recall_of(found: Float32s, truth: Float32s, *, of: int) -> Recall:
    """Recall of found distances [m, k] against true ones [m, >= k], both ascending; m >= 1, k >= 1.

    `of`: rows that the m were drawn from; with all of them the interval has no width.
    """
    k = found.shape[1]
    kth = truth[:, k - 1 : k].astype(np.float64)
    shares = (found <= kth + TIE * np.abs(kth)).mean(axis=1)
    mean, m = float(shares.mean()), len(shares)
    unseen = max(0.0, 1 - m / of)
    error = Z_95 * float(shares.std(ddof=1)) * np.sqrt(unseen / m) if m > 1 else 0.0
    return Recall(mean, max(0.0, mean - error), min(1.0, mean + error))


def distance_ratio(found: Float32s, truth: Float32s) -> float | None:
    """Sum of found over sum of true distances, over the places that were filled; 1 is exact.

    None where it says nothing: nothing found, distances of 0 only, or negative ones (`ip`).
    """
    filled = np.isfinite(found)
    true = truth[:, : found.shape[1]][filled].astype(np.float64)
    if not len(true) or true.min() < 0 or true.sum() == 0:
        return None
    return float(found[filled].astype(np.float64).sum() / true.sum())


def percentiles_ms(seconds: NDArray[np.float64]) -> tuple[float, float, float]:
    """p50, p95 and p99 of call times, in milliseconds."""
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99)) * 1000
    return float(p50), float(p95), float(p99)


def median_repetition(seconds: Sequence[float]) -> int:
    """Number of the repetition with the median time; of two in the middle the faster."""
    order = np.argsort(np.asarray(seconds), kind="stable")
    return int(order[(len(order) - 1) // 2])


def clean_lists(found: Int32s, n: int) -> Int32s:
    """The lists with repeats emptied: each neighbour counts once. Raises `ValueError` for rows
    that aren't in -1..n-1: the library is broken.
    """
    if found.size and (found.min() < EMPTY or found.max() >= n):
        wrong = found[(found < EMPTY) | (found >= n)][0]
        raise ValueError(f"returned the row {wrong} where 0..{n - 1} were expected")
    order = np.argsort(found, axis=1, kind="stable")
    sorted_lists = np.take_along_axis(found, order, 1)
    repeated = np.zeros(found.shape, bool)
    repeated[:, 1:] = sorted_lists[:, 1:] == sorted_lists[:, :-1]
    cleaned = found.copy()
    np.put_along_axis(cleaned, order, np.where(repeated, EMPTY, sorted_lists), 1)
    return cleaned
