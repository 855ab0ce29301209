"""Keeping the k smallest: by bisection on the bits of non-negative floats, ties by row number.

The bits of non-negative floats order like integers, so the k-th smallest is found by counting,
which compiles to a few vector instructions per pass; nothing is sorted and nothing is moved.
"""

import numpy as np

from index_build.selfjoin.jit import kernel
from index_build.selfjoin.lanes import MASK_LANES, float_of, how_many_up_to, lowest_bit
from index_build.selfjoin.whole_lanes import NOWHERE, passing_whole
from nearfield.space import Float32s, Int32s

PADDING = 0x7FFFFFFF
"""Bits that no float and no row number has; they come after all others."""
EVERY_LANE = (1 << MASK_LANES) - 1


@kernel
def in_order(bits: np.int32) -> np.int32:
    """A float's bits as a number that orders like it, and back: those of negative floats run
    backwards.
    """
    return bits if bits >= 0 else np.int32(bits ^ PADDING)


@kernel
def count_up_to(bits: Int32s, count: int, limit: int) -> int:
    """How many of bits[:count] are <= limit; count is a multiple of 16."""
    bound = np.int32(limit)
    found = 0
    for i in range(0, count, MASK_LANES):
        found += how_many_up_to(bits, i, bound)
    return found


@kernel
def kth_bits(bits: Int32s, count: int, k: int) -> int:
    """A limit with k of bits[:count] <= it, or, where ties forbid that, the k-th smallest.

    count is a multiple of 16; more than k values are at most the largest float, 1 <= k. Halves
    the range, or better: guesses by how the counts at its ends divide it, every other time.
    """
    least, most = np.int32(PADDING), np.int32(0)
    for i in range(count):
        least = min(least, bits[i])
        most = max(most, bits[i] if bits[i] < np.int32(PADDING) else np.int32(0))
    low, high = int(least) - 1, int(most)
    below, above, guess = 0, count, True
    while high - low > 1:
        middle = (low + high) >> 1
        if guess:
            share = (k - below) / (above - below)
            middle = min(max(low + int((high - low) * share), low + 1), high - 1)
        guess = not guess
        found = count_up_to(bits, count, middle)
        if found == k:
            return middle
        if found < k:
            low, below = middle, found
        else:
            high, above = middle, found
    return high


@kernel
def keep_smallest(values: Float32s, ids: Int32s, count: int, k: int) -> np.float32:
    """Move the k smallest (value, id) of the first `count` to the front, in their order.

    values >= 0, with 15 spare places behind them. 1 <= k <= count. Returns the largest kept.
    """
    bits = values.view(np.int32)
    groups = -(-count // MASK_LANES) * MASK_LANES
    for i in range(count, groups):
        bits[i] = PADDING
    if count > k:
        limit = kth_bits(bits, groups, k)
        surplus = count_up_to(bits, groups, limit) - k
        if surplus == 0:
            keep_up_to(bits, ids, count, limit)
        else:
            drop_ties(bits, ids, count, limit, surplus)
    largest = np.int32(0)
    for i in range(k):
        largest = max(largest, bits[i])
    return float_of(np.int32(largest))


@kernel
def replace_largest(
    values: Float32s, ids: Int32s, k: int, new_values: Float32s, new_ids: Int32s, count: int
) -> np.float32:
    """As `keep_smallest` of k pairs and `count` new ones, for few: each takes the place of the
    largest, if it is smaller. values and ids have room for a multiple of 16. Returns the largest.
    """
    bits, fresh = values.view(np.int32), new_values.view(np.int32)
    for i in range(k, -(-k // MASK_LANES) * MASK_LANES):
        bits[i] = 0
    at = place_of_largest(bits, ids, k)
    for i in range(count):
        if fresh[i] < bits[at] or (fresh[i] == bits[at] and new_ids[i] < ids[at]):
            bits[at], ids[at] = fresh[i], new_ids[i]
            at = place_of_largest(bits, ids, k)
    return values[at]


@kernel
def place_of_largest(bits: Int32s, ids: Int32s, k: int) -> int:
    """Where the largest (value, id) of k stands; zeros follow up to a multiple of 16."""
    largest, place = np.int32(0), -1
    for i in range(k):
        largest = max(largest, bits[i])
    for i in range(0, k, MASK_LANES):
        hits = EVERY_LANE ^ passing_whole(bits, i, NOWHERE, 0, np.int32(largest - np.int32(1)))
        while hits:
            j = i + lowest_bit(hits)
            hits &= hits - 1
            if j < k and (place < 0 or ids[j] > ids[place]):
                place = j
    return place


@kernel
def keep_up_to(bits: Int32s, ids: Int32s, count: int, limit: int) -> None:
    """Move what is <= limit to the front. Without a branch: what stays can't be predicted."""
    bound = np.int32(limit)
    kept = 0
    for i in range(count):
        value = bits[i]
        bits[kept], ids[kept] = value, ids[i]
        kept += value <= bound


@kernel
def drop_ties(bits: Int32s, ids: Int32s, count: int, limit: int, surplus: int) -> None:
    """Keep what is <= limit but for the `surplus` highest ids at the limit itself."""
    ties = np.full(count + MASK_LANES, PADDING, np.int32)
    found = 0
    for i in range(count):
        if bits[i] == limit:
            ties[found] = ids[i]
            found += 1
    ties_left = found - surplus
    last_id = kth_bits(ties, -(-found // MASK_LANES) * MASK_LANES, ties_left)
    kept = 0
    for i in range(count):
        if bits[i] > limit:
            continue
        if bits[i] == limit:
            # empty places share one id, so the id alone doesn't bound them
            if ids[i] > last_id or ties_left == 0:
                continue
            ties_left -= 1
        bits[kept], ids[kept] = bits[i], ids[i]
        kept += 1
