"""Equal vectors: collapsed to one before the join, expanded after it.

A graph index degenerates, and a join squares its work, when thousands of points coincide.
Owns the exact rule: an expanded list is what the k smallest (distance, row) of all rows would be,
given that the lists of the distinct vectors are.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from nearfield.jit import compiled
from nearfield.space import Float32s, Int32s
from nearfield.vectorset import row_blocks


@dataclass(frozen=True)
class Collapsed:
    """Groups of equal vectors, numbered in the order of their lowest row.

    representatives: int32 [groups], the lowest row of each group, ascending. group_of: int32 [n].
    members: int32 [n], all rows, group by group, ascending within each; starts: int64 [groups + 1].
    """

    representatives: Int32s
    group_of: Int32s
    members: Int32s
    starts: NDArray[np.int64]

    @property
    def any_equal(self) -> bool:
        """Whether some group has more than one member."""
        return len(self.representatives) < len(self.group_of)

    @property
    def shared(self) -> Int32s:
        """Groups that have more than one member, int32, ascending."""
        return np.flatnonzero(np.diff(self.starts) > 1).astype(np.int32)


def collapse(vectors: Float32s) -> Collapsed:
    """Find equal rows of vectors float32 [n, d] (0.0 equals -0.0).

    Rows are compared by a 64-bit hash and then by value; two different vectors with one hash stay
    apart. Cost O(n d + n log n); memory O(n) and one block.
    """
    hashes = _hashes(vectors)
    ordered = np.sort(hashes)
    if (ordered[1:] != ordered[:-1]).all():
        return apart(len(vectors))
    del ordered
    _, lowest, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    lowest_of = lowest[inverse]
    rows = np.flatnonzero(lowest_of != np.arange(len(vectors)))
    for part in np.array_split(rows, max(1, len(rows) // 65_536)):
        collided = part[(vectors[part] != vectors[lowest_of[part]]).any(axis=1)]
        lowest_of[collided] = collided
    representatives, group_of = np.unique(lowest_of, return_inverse=True)
    members = np.argsort(group_of, kind="stable")
    sizes = np.bincount(group_of, minlength=len(representatives))
    return Collapsed(
        representatives.astype(np.int32),
        group_of.astype(np.int32),
        members.astype(np.int32),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
    )


def apart(n: int) -> Collapsed:
    """Every row a group of its own: for exact search by products, where equals aren't near."""
    rows = np.arange(n, dtype=np.int32)
    return Collapsed(rows, rows, rows, np.arange(n + 1, dtype=np.int64))


def expand(
    collapsed: Collapsed, rows: Int32s, neighbours: Int32s, distances: Float32s, k: int,
    *, own_first: bool = True,
) -> tuple[Int32s, Float32s]:  # fmt: skip
    """Lists of original rows from the lists of their groups.

    rows: int32 [m]. neighbours, distances: [m, c], the list of each row's *group*, in group
    numbers; c >= min(k, groups - 1). Returns int32 and float32 [m, min(k, n - 1)].
    own_first: rows of the same group are at distance 0; otherwise (inner products) a group of
    several rows stands in its own list, and c >= min(k, groups).
    """
    columns = min(k, len(collapsed.group_of) - 1)
    if not collapsed.any_equal:
        return neighbours[:, :columns], distances[:, :columns]
    out_rows = np.empty((len(rows), columns), np.int32)
    out_distances = np.empty((len(rows), columns), np.float32)
    lists, out = (neighbours, distances), (out_rows, out_distances)
    expand_into(collapsed, rows, lists, out, own_first=own_first)
    return out_rows, out_distances


def expand_into(
    collapsed: Collapsed,
    rows: Int32s,
    lists: tuple[Int32s, Float32s],
    out: tuple[Int32s, Float32s],
    *,
    own_first: bool = True,
) -> None:
    """As `expand`, of `lists` into the arrays `out` [m, min(k, n - 1)], which share no memory."""
    groups = collapsed.group_of[rows]
    _expand(rows, groups, *lists, collapsed.members, collapsed.starts, own_first, *out)


def _hashes(vectors: Float32s) -> NDArray[np.uint64]:
    weights = np.random.default_rng(0).integers(1, 2**63, vectors.shape[1:], dtype=np.uint64)
    # adding 0 turns -0.0 into 0.0
    blocks = ((block + np.float32(0)).view(np.uint32) for block in row_blocks(vectors, 8 << 20))
    return np.concatenate([_mixed(block, weights) for block in blocks])


@compiled()
def _mixed(words: NDArray[np.uint32], weights: NDArray[np.uint64]) -> NDArray[np.uint64]:
    hashes, chains = np.empty(len(words), np.uint64), np.empty(4, np.uint64)
    for i in range(len(words)):
        # four chains, so that one multiplication needn't wait for the one before
        chains[:] = 0
        for j in range(len(weights)):
            total = (chains[j & 3] ^ np.uint64(words[i, j])) * (weights[j] | np.uint64(1))
            chains[j & 3] = total ^ (total >> np.uint64(29))
        total = np.uint64(0)
        for chain in range(4):
            total = (total ^ chains[chain]) * (weights[0] | np.uint64(1))
            total ^= total >> np.uint64(29)
        hashes[i] = total
    return hashes


@compiled(parallel=True)
def _expand(  # noqa: PLR0913, PLR0917  (a compiled kernel takes arrays, not objects)
    rows: Int32s,
    groups: Int32s,
    neighbours: Int32s,
    distances: Float32s,
    members: Int32s,
    starts: NDArray[np.int64],
    own_first: bool,
    out_rows: Int32s,
    out_distances: Float32s,
) -> None:
    columns = out_rows.shape[1]
    for i in numba.prange(len(rows)):
        found, near = out_rows[i], out_distances[i]
        count = 0
        for j in range(-1 if own_first else 0, neighbours.shape[1]):
            group = groups[i] if j < 0 else neighbours[i, j]
            distance = np.float32(0) if j < 0 else distances[i, j]
            if group < 0 or (count == columns and distance > near[columns - 1]):
                break
            # at most columns + 1 members of a group can matter: its lowest rows
            for place in range(starts[group], min(starts[group + 1], starts[group] + columns + 1)):
                row = members[place]
                if row == rows[i]:
                    continue
                at = count
                if count == columns:
                    at = columns - 1
                    if distance > near[at] or row > found[at]:
                        break
                else:
                    count += 1
                # groups come by distance, so only equally distant ones can be out of order
                while at > 0 and near[at - 1] == distance and found[at - 1] > row:
                    found[at], near[at] = found[at - 1], near[at - 1]
                    at -= 1
                found[at], near[at] = row, distance
