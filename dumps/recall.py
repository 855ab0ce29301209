"""The verifier's own exact search, its own distances, and the recall that follows from them.

Owns a second, plain answer to "who is nearest?", in float64 throughout. Shares no code with the
builder on purpose: a mistake in one must not hide in the other.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearfield.errors import InputRejected
from nearfield.progress import progress

Float64s = NDArray[np.float64]
Vectors = NDArray[np.float32]
Rows = NDArray[np.integer]

QUERIES = 1000
"""Queries that are searched at once."""
BLOCK = 16_384
"""Vectors that they are compared with at once: 128 MiB of distances."""
RELATIVE = 1e-6
UNIT_ROUNDING = 2.0**-22
"""What rounding two unit vectors to float32 can do to their chord, with room to spare."""
PRODUCT_ROUNDING = 2.0**-44
"""What summing in another order can do to an inner product, relative to both lengths."""
TINY = float(np.finfo(np.float32).tiny)
Z_95 = 1.96


@dataclass(frozen=True)
class Recall:
    """Mean recall over the sampled rows and its 95% confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """Distances float64 [m, k], and how far each may be off through rounding alone.

    A stored distance within `slack` of the true one is right; a neighbour whose distance less its
    slack doesn't exceed the k-th true one is tied with it. slack: 1e-6 of the distance; under
    cosine also 2^-22 of chord length, under ip 2^-44 of both lengths.
    """

    distances: Float64s
    slack: Float64s


def true_kth(
    rows: Rows, vectors: Vectors, k: int, space: str, removed: NDArray[np.bool_] | None = None
) -> Float64s:
    """Distance float64 [m] from each of `rows` [m] to its k-th nearest other row of `vectors`.

    removed: bool [n], rows that don't count as anybody's neighbours.

    Products propose k candidates per row, differences measure them. A product's rounding may
    prefer a candidate that is farther by some 1e-15 of the squared lengths (under l2 counted from
    the middle of the queries), so the result is never too small, and too large by no more.
    Cost O(m n d); memory O(m k) and blocks.
    """
    kth = np.empty(len(rows))
    with progress("exact search", -(-len(rows) // QUERIES) * len(vectors), "rows") as advance:
        for first in range(0, len(rows), QUERIES):
            chosen = rows[first : first + QUERIES]
            candidates = _Candidates(vectors, chosen, k, space, removed)
            for start in range(0, len(vectors), BLOCK):
                advance(candidates.consider(start))
            nearest = measured(chosen, candidates.rows, vectors, space)
            kth[first : first + QUERIES] = nearest.distances.max(axis=1)
    return kth


def measured(rows: Rows, lists: Rows, vectors: Vectors, space: str) -> Measured:
    """Distances from `rows` [m] to their `lists` [m, k], by the definition, in float64.

    l2: Euclidean. cosine: 1 - cos, as half the squared chord, which has no cancellation.
    ip: the negative inner product. Equal vectors have distance exactly 0 (l2, cosine).
    """
    distances, slack = np.empty(lists.shape), np.empty(lists.shape)
    measure = _product if space == "ip" else _chord if space == "cosine" else _euclidean
    for place, (row, listed) in enumerate(zip(rows, lists, strict=True)):
        x, ys = _wide(vectors[row], space), _wide(vectors[listed], space)
        distances[place], slack[place] = measure(x, ys)
    return Measured(distances, slack)


def recall_of(found: NDArray[np.bool_], n: int) -> Recall:
    """Recall from found [m, k], one flag per place, of m rows sampled without repeats out of n.

    The interval is mean +- 1.96 s / sqrt(m) over rows, with the finite population correction (a
    point when all rows were sampled), cut to 0..1.
    """
    shares = found.mean(axis=1)
    m, mean = len(shares), float(shares.mean())
    spread = float(shares.std(ddof=1)) if m > 1 else 0.0
    correction = (n - m) / (n - 1)
    half = Z_95 * spread * math.sqrt(correction / m)
    return Recall(mean, max(0.0, mean - half), min(1.0, mean + half))


class _Candidates:
    """The k rows that look nearest so far, per query; the query's own row is never among them."""

    def __init__(
        self,
        vectors: Vectors,
        queries: Rows,
        k: int,
        space: str,
        removed: NDArray[np.bool_] | None,
    ) -> None:
        self.vectors, self.k, self.space, self.removed = vectors, k, space, removed
        self.own = queries
        # l2 doesn't change when the origin moves into the data, and products round less there
        self.origin = _wide(vectors[queries], space).mean(axis=0) if space == "l2" else 0.0
        self.queries = _wide(vectors[queries], space) - self.origin
        self.rows = np.empty((len(queries), 0), np.int64)
        self.scores = np.empty((len(queries), 0))

    def consider(self, start: int) -> int:
        """Take the block of vectors from row `start` into account; returns its number of rows."""
        block = _wide(self.vectors[start : start + BLOCK], self.space) - self.origin
        scores = self.queries @ block.T
        if self.space == "ip":
            np.negative(scores, out=scores)
        else:
            # |x - y|^2 without the |x|^2 that is the same for a query's whole line
            scores *= -2
            scores += (block * block).sum(axis=1)
        inside = np.flatnonzero((self.own >= start) & (self.own < start + len(block)))
        scores[inside, self.own[inside] - start] = np.inf
        if self.removed is not None:
            scores[:, self.removed[start : start + len(block)]] = np.inf
        near = _smallest(scores, self.k)
        self.scores = np.hstack([self.scores, np.take_along_axis(scores, near, axis=1)])
        self.rows = np.hstack([self.rows, near + start])
        best = _smallest(self.scores, self.k)
        self.scores = np.take_along_axis(self.scores, best, axis=1)
        self.rows = np.take_along_axis(self.rows, best, axis=1)
        return len(block)


def _smallest(scores: Float64s, k: int) -> Rows:
    if scores.shape[1] <= k:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(scores, k - 1, axis=1)[:, :k]


def _euclidean(x: Float64s, ys: Float64s) -> tuple[Float64s, Float64s]:
    distances = np.sqrt(((ys - x) ** 2).sum(axis=1))
    return distances, RELATIVE * distances + TINY


def _chord(x: Float64s, ys: Float64s) -> tuple[Float64s, Float64s]:
    squared = ((ys - x) ** 2).sum(axis=1)
    moved = (np.sqrt(squared) + UNIT_ROUNDING) ** 2
    return squared / 2, RELATIVE * squared / 2 + (moved - squared) / 2


def _product(x: Float64s, ys: Float64s) -> tuple[Float64s, Float64s]:
    distances = -(ys * x).sum(axis=1)
    lengths = np.sqrt((x * x).sum() * (ys * ys).sum(axis=1))
    return distances, RELATIVE * np.abs(distances) + PRODUCT_ROUNDING * lengths + TINY


def _wide(vectors: Vectors, space: str) -> Float64s:
    """Float64, and of length 1 under cosine."""
    wide = vectors.astype(np.float64)
    if space == "cosine":
        lengths = np.sqrt((wide * wide).sum(axis=-1, keepdims=True))
        if not lengths.all():
            raise InputRejected(
                "the vector set holds a zero vector, which has no direction under cosine: "
                "ingest again with --zero drop, or build in space l2"
            )
        wide /= lengths
    return wide
