"""The geometry of a vector set: the space (`l2`, `cosine`, `ip`) and the blocks of a vector.

Owns what a distance means and how a vector is made ready for a library. Refuses any search.
Distances, for all of nearfield: `l2` is the true Euclidean distance (never squared), `cosine` is
1 - cos (in 0..2), `ip` is the negative inner product; smaller is always nearer.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nearfield.errors import InputRejected, UsageError

SpaceName = Literal["l2", "cosine", "ip"]
SPACES: tuple[SpaceName, ...] = get_args(SpaceName)

Float32s = NDArray[np.float32]
Int32s = NDArray[np.int32]


@dataclass(frozen=True)
class Block:
    """Columns `start`..`stop`-1 of a vector: one metric. `circular`: a point on a circle, d = 2."""

    name: str
    start: int
    stop: int
    weight: float = 1.0
    circular: bool = False


def space_named(name: str) -> SpaceName:
    """The space of that name; raises `UsageError` for any other."""
    for space in SPACES:
        if space == name:
            return space
    raise UsageError(f"expected a space out of {', '.join(SPACES)}; got {name!r}")


def prepared(vectors: Float32s, space: SpaceName) -> Float32s:
    """Vectors [n, d] in the form in which they are compared: unit length under cosine.

    Under `cosine` a row's length is computed in float64; a zero row has no direction and raises
    `InputRejected`. Other spaces return the input unchanged.
    """
    if space != "cosine":
        return vectors
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    if not np.all(lengths > 0):
        rows = np.flatnonzero(lengths == 0)
        raise InputRejected(
            f"{len(rows):,} zero vectors have no direction under cosine (first: row {rows[0]}). "
            "Drop them at ingest (--zero drop) or choose space l2"
        )
    return (vectors / lengths[:, None]).astype(np.float32)


def pair_distances(left: Float32s, right: Float32s, space: SpaceName) -> Float32s:
    """Distances float32 [...] between prepared vectors [..., d], by the definition, in float64.

    Differences are taken before squaring, so equal vectors have distance exactly 0.
    """
    wide_left, wide_right = left.astype(np.float64), right.astype(np.float64)
    if space == "ip":
        return (-np.einsum("...j,...j->...", wide_left, wide_right)).astype(np.float32)
    difference = wide_left - wide_right
    squared = np.einsum("...j,...j->...", difference, difference)
    # for unit vectors |x - y|^2 = 2 - 2 cos, without the cancellation of 1 - cos
    return (squared / 2 if space == "cosine" else np.sqrt(squared)).astype(np.float32)
