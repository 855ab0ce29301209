"""Neighbours on a circle or a line: exact, by sorting, in O(n log n + n k).

A space that is one circular block (bpm, onset rate, key) or one number puts the nearest of a point
next to it in sorted order. Owns when that applies and the exact answer, which is that of
`nearfield.exact.exact_search`. Refuses everything else.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_build.duplicates import Collapsed, collapse, expand_into
from index_build.selfjoin.jit import kernel, run_parallel, summing_kernel
from nearfield.space import Float32s, Int32s, SpaceName
from nearfield.vectorset import row_blocks

Float64s = NDArray[np.float64]

ROUND = 1e-6
"""Lengths on one circle differ by no more than float32 rounds coordinates, generously."""
LIST_ROUNDING = 1 + 2e-7
"""A distance larger by this factor stays larger when rounded to float32."""
ANGLE_ROUNDING = 1e-14
"""Angles of float64 coordinates and their differences are off by less."""
CHUNK = 8_192
EXPAND_PLACES = 1 << 20
BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class Track:
    """Points in the order in which they lie: `places` float64 [u], ascending, of rows int32 [u].

    turn: angle after which places begin anew, infinity on a line. radius: no point is nearer to
    the circle's middle (0 on a line).
    """

    rows: Int32s
    places: Float64s
    turn: float
    radius: float


@dataclass(frozen=True)
class Sorted:
    """A track with its coordinates float64 [u, d], which point lies where, int32 [u], and the
    `places`, `turn` and `radius` of `Track`.
    """

    coordinates: Float64s
    points: Int32s
    places: Float64s
    turn: float
    radius: float


def track_of(vectors: Float32s, rows: Int32s, space: SpaceName) -> Track | None:
    """The circle or line on which the given rows of prepared vectors [n, d] lie; None for others.

    A circle has d = 2 and its middle at 0. Cost O(u log u). Never for inner products.
    """
    d = vectors.shape[1]
    if space == "ip" or d > 2:
        return None
    wide = vectors[rows].astype(np.float64)
    if d == 1:
        order = np.argsort(wide[:, 0], kind="stable")
        return Track(rows[order], wide[order, 0], np.inf, 0.0)
    lengths = np.hypot(wide[:, 0], wide[:, 1])
    if not _one_length(lengths.min(), lengths.max()):
        return None
    angles = np.arctan2(wide[:, 1], wide[:, 0])
    order = np.argsort(angles, kind="stable")
    return Track(rows[order], angles[order], 2 * np.pi, float(lengths.min()))


def on_track(vectors: Float32s, space: SpaceName) -> bool:
    """Whether prepared vectors [n, d] lie on a circle or line. Cost O(n); memory: one block."""
    n, d = vectors.shape
    if space == "ip" or d > 2 or n < 2:
        return False
    if d == 1:
        return True
    least, most = np.inf, 0.0
    for block in row_blocks(vectors, BLOCK_BYTES):
        wide = block.astype(np.float64)
        lengths = np.hypot(wide[:, 0], wide[:, 1])
        least, most = min(least, lengths.min()), max(most, lengths.max())
        if not _one_length(least, most):
            return False
    return True


def _one_length(least: float, most: float) -> bool:
    return bool(least >= most * (1 - ROUND))


def circular_neighbours(
    vectors: Float32s, k: int, *, space: SpaceName = "l2", threads: int = 1
) -> tuple[Int32s, Float32s] | None:
    """All rows' k nearest, exact; None where the vectors lie on no circle or line.

    vectors: prepared float32 [n, d]. Returns neighbours int32 and distances float32
    [n, min(k, n - 1)], sorted by (distance, row). Cost O(n log n + n k).
    Memory beyond the output: about 100 n bytes.
    """
    if not on_track(vectors, space):
        return None
    n = len(vectors)
    groups = collapse(vectors)
    u = len(groups.representatives)
    track = track_of(vectors, groups.representatives, space)
    if track is None:
        return None
    neighbours = np.empty((n, min(k, n - 1)), np.int32)
    distances = np.empty(neighbours.shape, np.float32)
    width = min(k, u - 1)
    neighbours[:u, width:], distances[:u, width:] = -1, np.inf
    _walk_all(vectors, track, groups.group_of, (neighbours, distances), space, threads)
    if groups.any_equal:
        expand_in_place(groups, neighbours, distances, max(64, EXPAND_PLACES // k))
    return neighbours, distances


def expand_in_place(
    groups: Collapsed, neighbours: Int32s, distances: Float32s, block: int,
    *, own_first: bool = True,
) -> None:  # fmt: skip
    """Turn the groups' lists in the first rows of both arrays [n, k] into lists of all rows.

    own_first: see `expand`.
    """
    # a group's number is at most any of its rows, so going down nothing is overwritten unread
    for stop in range(len(neighbours), 0, -block):
        part = slice(max(0, stop - block), stop)
        rows = np.arange(part.start, stop, dtype=np.int32)
        own = groups.group_of[rows]
        lists = neighbours[own], distances[own]
        out = neighbours[part], distances[part]
        expand_into(groups, rows, lists, out, own_first=own_first)


def _walk_all(
    vectors: Float32s, track: Track, group_of: Int32s, out: tuple[Int32s, Float32s],
    space: SpaceName, threads: int,
) -> None:  # fmt: skip
    line = Sorted(
        vectors[track.rows].astype(np.float64), group_of[track.rows], track.places, track.turn,
        track.radius,
    )  # fmt: skip
    every = np.arange(len(line.points), dtype=np.int32)
    width = min(out[0].shape[1], len(every) - 1)
    walk(line, every, line.points, (out[0], out[1], width), half=space == "cosine", threads=threads)


def walk(
    line: Sorted, chosen: Int32s, into: Int32s, out: tuple[Int32s, Float32s, int],
    *, half: bool, threads: int,
) -> None:  # fmt: skip
    """The nearest of the points at places `chosen` of the line, into rows `into` of both arrays.

    out: neighbours and distances [m, k], and how many columns to fill, fewer than points.
    half: distances are halved squares, as of unit vectors.
    """
    neighbours, distances, width = out

    def one(first: int) -> None:
        part = slice(first, first + CHUNK)
        _walk(
            line.coordinates, line.points, line.places, line.turn, line.radius, width,
            chosen[part], into[part], half, neighbours, distances,
        )  # fmt: skip

    run_parallel(one, range(0, len(chosen), CHUNK), threads)


@summing_kernel
def _squared(coordinates: Float64s, left: int, right: int) -> float:
    total = 0.0
    for t in range(coordinates.shape[1]):
        difference = coordinates[left, t] - coordinates[right, t]
        total += difference * difference
    return total


@kernel
def _least(gap: float, turn: float, radius: float, half: bool) -> float:
    """No two points so far apart along the track are nearer than this."""
    if radius > 0:
        gap = 2 * radius * np.sin(max(0.0, min(gap, turn / 2) - ANGLE_ROUNDING) / 2)
    gap *= 1 - ANGLE_ROUNDING
    return gap * gap / 2 if half else gap


@kernel
def _walk(  # noqa: PLR0913, PLR0917
    coordinates: Float64s, groups: Int32s, places: Float64s, turn: float, radius: float, k: int,
    chosen: Int32s, into: Int32s, half: bool, neighbours: Int32s, distances: Float32s,
) -> None:  # fmt: skip
    """From each point to both sides, the nearer side first, until no nearer one can follow."""
    u = len(groups)
    keys = np.empty(k, np.int64)
    exact = np.empty(1, np.float32)
    bits = exact.view(np.int32)
    for i in range(len(chosen)):
        point, own = chosen[i], into[i]
        count, left, right = 0, 1, 1
        while left + right < u + 1:
            before, after = point - left, point + right
            down = places[point] - (places[before] if before >= 0 else places[before + u] - turn)
            up = (places[after] if after < u else places[after - u] + turn) - places[point]
            gap = min(down, up)
            if count >= k:
                bits[0] = keys[k - 1] >> 32
                if _least(gap, turn, radius, half) > exact[0] * LIST_ROUNDING:
                    break
            if down <= up:
                other, left = before % u, left + 1
            else:
                other, right = after % u, right + 1
            squared = _squared(coordinates, point, other)
            exact[0] = squared / 2 if half else np.sqrt(squared)
            # distances are not negative, so their bits order like numbers
            key = (np.int64(bits[0]) << 32) | np.int64(groups[other])
            if count < k:
                at, count = count, count + 1
            elif key < keys[k - 1]:
                at = k - 1
            else:
                continue
            while at > 0 and keys[at - 1] > key:
                keys[at] = keys[at - 1]
                at -= 1
            keys[at] = key
        for j in range(k):
            bits[0] = keys[j] >> 32
            distances[own, j] = exact[0]
            neighbours[own, j] = keys[j] & 0x7FFFFFFF
