"""Numbers alone as vectors of a set: brought to its scale, by their place in a row.

Owns what rows without names must have for that. Refuses to read files, and recordings that have
more than numbers: those are ingested.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearfield.errors import InputRejected, UsageError
from nearfield.ingest.columns import Transform
from nearfield.space import Float32s
from nearfield.vectorset import Geometry

ALREADY = "If they are vectors of the set already, say so with --scaled"


def vectors_of(numbers: NDArray[Any], geometry: Geometry) -> Float32s:
    """Vectors float32 [q, d] of raw rows [q, columns], in the order that the set's sources had.

    A set that wasn't ingested has no scale: its rows are its vectors. What float32 can't hold
    becomes infinite. Raises `InputRejected` for rows of another width, `UsageError` where a row is
    more than numbers: for sets of documents, or with categories.
    """
    statistics = geometry.statistics
    if "input" in statistics:
        raise UsageError(
            "the set was made of documents: numbers alone have no place in its vectors. Give a"
            f" document in place of them. {ALREADY}"
        )
    if "kind" not in statistics:
        return Transform("none").apply(numbers)
    transform = Transform.from_statistics(statistics)
    if transform.categories:
        raise UsageError(
            f"the set has categories ({', '.join(statistics['categorical'])}), which numbers alone"
            f" can't say: give a table with its columns. {ALREADY}"
        )
    columns = _columns(geometry)
    if numbers.ndim != 2 or numbers.shape[1] != columns:
        raise InputRejected(
            f"expected rows of {columns} numbers, as the set's sources have; got an array of shape"
            f" {numbers.shape}. {ALREADY}"
        )
    return transform.apply(np.ascontiguousarray(numbers))


def _columns(geometry: Geometry) -> int:
    statistics = geometry.statistics
    if statistics["kind"] == "array":
        return int(statistics["width"])
    return sum(max(1, int(width)) for _, width in statistics["numbers"])
