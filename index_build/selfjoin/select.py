"""Keeping the k smallest: by bisection on the bits of non-negative floats, ties by row number.

The bits of non-negative floats order like integers, so the k-th smallest is found by counting,
which compiles to a few vector instructions per pass; nothing is sorted and nothing is moved.
"""

import numpy as np

from index_build.selfjoin.jit import kernel
from index_build.selfjoin.lanes import MASK_LANES, NO_LIMITS, lowest_bit, passing
from nearfield.space import Float32s, Int32s


@kernel
def count_up_to(bits: Int32s, first: int, stop: int, limit: int) -> int:
    """How many of bits[first:stop] are <= limit."""
    bound = np.int32(limit)
    count = 0
    for i in range(first, stop):
        count += bits[i] <= bound
    return count


@kernel
def kth_bits(bits: Int32s, first: int, stop: int, k: int) -> int:
    """A limit with k of bits[first:stop] <= it, or, where ties forbid that, the k-th smallest."""
    low, high = 0x7FFFFFFF, 0
    for i in range(first, stop):
        low = min(low, bits[i])
        high = max(high, bits[i])
    low -= 1
    while high - low > 1:
        middle = (low + high) >> 1
        count = count_up_to(bits, first, stop, middle)
        if count == k:
            return middle
        if count < k:
            low = middle
        else:
            high = middle
    return high


@kernel
def keep_smallest(
    values: Float32s, ids: Int32s, count: int, k: int, out_values: Float32s, out_ids: Int32s
) -> np.float32:
    """Write the k smallest (value, id) of the first `count` >= k; returns the largest value kept.

    values >= 0; read in groups of 16, so they have 15 spare places. Order is not kept.
    """
    bits = values.view(np.int32)
    limit = kth_bits(bits, 0, count, k)
    surplus = count_up_to(bits, 0, count, limit) - k
    last_id, ties_left = 0x7FFFFFFF, count
    if surplus > 0:
        ties = np.empty(count, np.int32)
        found = 0
        for i in range(count):
            if bits[i] == limit:
                ties[found] = ids[i]
                found += 1
        ties_left = found - surplus
        last_id = kth_bits(ties, 0, found, ties_left)
    largest, kept = np.float32(0), 0
    for i in range(count):
        if bits[i] > limit:
            continue
        if bits[i] == limit:
            # empty places share one id, so the id alone doesn't bound them
            if ids[i] > last_id or ties_left == 0:
                continue
            ties_left -= 1
        out_values[kept] = values[i]
        out_ids[kept] = ids[i]
        largest = max(largest, values[i])
        kept += 1
    return largest


@kernel
def keep_smallest_of_line(  # noqa: PLR0913, PLR0917
    line: Float32s, at: int, count: int, ids: Int32s, k: int,
    out_values: Float32s, out_ids: Int32s,
) -> np.float32:  # fmt: skip
    """As `keep_smallest` for line[at : at + count] with few hits; NaN never counts as a value."""
    bits = line.view(np.int32)
    limit = kth_bits(bits, at, at + count, k)
    if count_up_to(bits, at, at + count, limit) != k:
        return keep_smallest(line[at:], ids, count, k, out_values, out_ids)
    bound = np.array([limit], np.int32).view(np.float32)[0]
    largest, kept = np.float32(0), 0
    for j in range(0, count, MASK_LANES):
        hits = passing(line, at + j, NO_LIMITS, 0, bound)
        while hits:
            i = j + lowest_bit(hits)
            hits &= hits - 1
            out_values[kept] = line[at + i]
            out_ids[kept] = ids[i]
            largest = max(largest, line[at + i])
            kept += 1
    return largest
