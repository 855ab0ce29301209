"""The numbers of a table as one vector: scaling, one-hot categories, PCA.

Owns the transform: fitted once by streaming, stored as JSON with the vector set, applied alike to
later recordings. Refuses any I/O and any knowledge of where the rows come from.

    value   -> (value - centre) * factor                one number per column
    category -> CATEGORY_WEIGHT at its place, else 0    one number per known category
    vector  -> (vector - mean) @ components             when PCA is asked for
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from nearfield.errors import InputRejected, UsageError
from nearfield.space import Float32s

Float64s = NDArray[np.float64]
Blocks = Callable[[], Iterable[NDArray[Any]]]
Scale = Literal["standard", "robust", "none"]

# two rows that differ in a category alone are at distance 1: as far as one standard deviation
CATEGORY_WEIGHT = float(np.sqrt(0.5))
# the interquartile range of a normal distribution with deviation 1
NORMAL_IQR = 1.3489795
QUANTILE_BYTES = 256 << 20


@dataclass(frozen=True)
class Projection:
    """PCA: `mean` float64 [d], `components` float64 [d, p], the share of variance they keep."""

    mean: Float64s
    components: Float64s
    explained: float


@dataclass(frozen=True)
class Transform:
    """Raw rows [m, columns + categoricals] to vectors.

    `centre`, `factor`: float64 [columns], None where nothing is scaled; a constant column has
    factor 0. `categories`: per categorical column its values; raw rows hold their positions.
    """

    scale: Scale
    centre: Float64s | None = None
    factor: Float64s | None = None
    categories: tuple[tuple[str, ...], ...] = ()
    projection: Projection | None = None

    def apply(self, raw: NDArray[Any]) -> Float32s:
        """Vectors float32 [m, d] of raw rows. Cost O(m d), O(m d p) with PCA.

        What float32 can't hold becomes infinite; the caller rejects it.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            wide = self.apply_wide(raw)
            if self.projection is not None:
                wide = (wide - self.projection.mean) @ self.projection.components
            return np.ascontiguousarray(wide, dtype=np.float32)

    def apply_wide(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Scaled numbers and one-hot categories [m, d before PCA] of raw rows."""
        columns = raw.shape[1] - len(self.categories)
        numbers = raw[:, :columns]
        if self.centre is not None and self.factor is not None:
            numbers = (numbers - self.centre) * self.factor
        if not self.categories:
            return numbers
        hot = [
            one_hot(raw[:, columns + index], len(values))
            for index, values in enumerate(self.categories)
        ]
        return np.hstack([numbers, *hot])

    def statistics(self) -> dict[str, Any]:
        """The transform as JSON-representable values."""
        projection = self.projection
        return {
            "scale": self.scale,
            "centre": None if self.centre is None else self.centre.tolist(),
            "factor": None if self.factor is None else self.factor.tolist(),
            "categories": [list(values) for values in self.categories],
            "category_weight": CATEGORY_WEIGHT,
            "pca": projection
            and {
                "mean": projection.mean.tolist(),
                "components": projection.components.tolist(),
                "explained": projection.explained,
            },
        }

    @classmethod
    def from_statistics(cls, stored: Mapping[str, Any]) -> Self:
        """The transform that `statistics` described."""
        pca = stored["pca"]
        return cls(
            scale=stored["scale"],
            centre=None if stored["centre"] is None else np.array(stored["centre"]),
            factor=None if stored["factor"] is None else np.array(stored["factor"]),
            categories=tuple(tuple(values) for values in stored["categories"]),
            projection=pca
            and Projection(np.array(pca["mean"]), np.array(pca["components"]), pca["explained"]),
        )


def one_hot(codes: NDArray[Any], size: int) -> Float64s:
    """Rows [m, size] with `CATEGORY_WEIGHT` at the place that each code names."""
    rows = np.zeros((len(codes), size))
    rows[np.arange(len(codes)), codes.astype(np.int64)] = CATEGORY_WEIGHT
    return rows


def fitted_scale(blocks: Blocks, scale: Scale, names: Sequence[str]) -> tuple[Float64s, Float64s]:
    """Centre and factor, float64 [d] each, of the rows that `blocks` streams: [m, >= d].

    standard: mean and population standard deviation. robust: median and interquartile range
    (divided by 1.349, so that it equals the deviation of normal data); a column whose quartiles
    coincide takes its standard deviation instead. A constant column gets factor 0. Raises
    `InputRejected` for a column that float64 can't scale. Cost: three passes, robust reads further.
    """
    low, high, mean = _range_and_mean(blocks, len(names))
    deviation = _deviation(blocks, mean)
    centre, spread = mean, deviation
    if scale == "robust":
        centre, quartiles = _median_and_iqr(blocks, len(names))
        spread = np.where(quartiles > 0, quartiles / NORMAL_IQR, deviation)
    bad = np.flatnonzero(~np.isfinite(centre) | ~np.isfinite(spread))
    if len(bad):
        raise InputRejected(
            f"column {names[bad[0]]!r} ranges from {low[bad[0]]:g} to {high[bad[0]]:g}: too wide"
            " to be scaled. Leave it out with --columns, or use --scale none"
        )
    varies = (low < high) & (spread > 0)
    return centre, np.where(varies, 1 / np.where(varies, spread, 1.0), 0.0)


def fitted_projection(blocks: Blocks, p: int, *, centred: bool) -> Projection:
    """The p directions of most variance of the vectors that `blocks` streams, widest first.

    Eigenvectors of the covariance, or of the second moments when not `centred` (cosine and ip:
    moving the origin would change every angle). Each direction's sign makes its largest entry
    positive. Raises `UsageError` when p > d. Cost O(n d^2 + d^3), memory O(d^2).
    """
    d = next(iter(blocks())).shape[1]
    if not 1 <= p <= d:
        raise UsageError(f"expected --pca from 1 to {d}, the numbers per row; got {p}")
    mean = _range_and_mean(blocks, d)[2] if centred else np.zeros(d)
    products, n = np.zeros((d, d)), 0
    for block in blocks():
        wide = block.astype(np.float64) - mean
        products += wide.T @ wide
        n += len(wide)
    variances, directions = np.linalg.eigh(products / n)
    order = np.argsort(-variances, kind="stable")[:p]
    components = directions[:, order]
    largest = components[np.abs(components).argmax(axis=0), np.arange(p)]
    whole = variances.sum()
    return Projection(
        mean=mean,
        components=components * np.where(largest < 0, -1.0, 1.0),
        explained=float(variances[order].sum() / whole) if whole > 0 else 1.0,
    )


def _range_and_mean(blocks: Blocks, d: int) -> tuple[Float64s, Float64s, Float64s]:
    low, high, total, n = np.full(d, np.inf), np.full(d, -np.inf), np.zeros(d), 0
    with np.errstate(over="ignore", invalid="ignore"):
        for block in blocks():
            numbers = block[:, :d]
            low = np.minimum(low, numbers.min(axis=0))
            high = np.maximum(high, numbers.max(axis=0))
            total += numbers.sum(axis=0, dtype=np.float64)
            n += len(block)
        return low, high, total / n


def _deviation(blocks: Blocks, mean: Float64s) -> Float64s:
    squares, n = np.zeros(len(mean)), 0
    with np.errstate(over="ignore", invalid="ignore"):
        for block in blocks():
            squares += np.square(block[:, : len(mean)] - mean).sum(axis=0)
            n += len(block)
        return np.sqrt(squares / n)


def _median_and_iqr(blocks: Blocks, d: int) -> tuple[Float64s, Float64s]:
    n = sum(len(block) for block in blocks())
    together = max(1, QUANTILE_BYTES // (8 * n))
    quartiles = np.hstack(
        [_quartiles(blocks, start, min(start + together, d)) for start in range(0, d, together)]
    )
    return quartiles[1], quartiles[2] - quartiles[0]


def _quartiles(blocks: Blocks, start: int, stop: int) -> Float64s:
    columns = np.concatenate([block[:, start:stop].astype(np.float64) for block in blocks()])
    return np.quantile(columns, (0.25, 0.5, 0.75), axis=0, overwrite_input=True)
