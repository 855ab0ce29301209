"""Vector instructions on whole numbers, and one distance in float64; see `lanes`.

Owns the register tile of squared distances in int32, its mask of what passes, and the sum of
squared differences that settles what passed. Refuses any decision about neighbours.
"""

# ruff: noqa: ANN001, ANN201  (numba gives these functions their types)

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from index_build.selfjoin.lanes import (
    AT,
    DOUBLE,
    FLOAT,
    INT,
    INT32,
    LANES,
    MASK_LANES,
    ROWS,
    VECTORS,
    TileShape,
    load_wide,
    multiply_add,
    pointer_to,
    splat,
    tile_frame,
)

SUM_LANES = 16
PAIRS_PER_STEP = 2
NOWHERE = np.full(MASK_LANES, -1, np.int32)
"""Bounds that no squared distance passes."""


def whole_tile_primitive(lanes: int, rows: int, vectors: int) -> Any:
    """The tile in whole numbers for a register shape; `tile_whole` uses this machine's."""
    return tile_frame(
        TileShape(lanes, rows, vectors, INT32, PAIRS_PER_STEP),
        lambda builder, norm, column: builder.add(norm, column),
        lambda builder, query, candidate, total: builder.add(
            total, _pair_products(builder, query, candidate)
        ),
        lambda _, total: total,
    )


def _pair_products(builder: Any, left: Any, right: Any) -> Any:
    """In each lane of 32 bits, a pair of int16 times a pair of int16, added up."""
    lanes = left.type.count
    halves = ir.VectorType(ir.IntType(16), 2 * lanes)
    wide = ir.VectorType(INT32, 2 * lanes)
    # LLVM knows this pattern: one instruction where the processor has one, two on any x86
    factors = [builder.sext(builder.bitcast(side, halves), wide) for side in (left, right)]
    products, nothing = builder.mul(*factors, flags=["nsw"]), ir.Constant(wide, ir.Undefined)
    picked = [ir.VectorType(INT32, lanes)([INT32(2 * i + odd) for i in range(lanes)])
              for odd in (0, 1)]  # fmt: skip
    low, high = (builder.shuffle_vector(products, nothing, pick) for pick in picked)
    return builder.add(low, high)


tile_whole = whole_tile_primitive(LANES, ROWS, VECTORS)
"""As `tile_products` in int32, from pairs of int16: exact, as long as each result fits.

a: rows, each `pairs` int32 long, from a_at, scaled by -2. b: panel [pairs, COLUMNS] from b_at.
`pairs` is a multiple of PAIRS_PER_STEP.
"""


@intrinsic
def apart_squared(_typing, a, a_at, b, b_at, d):  # type: ignore[no-untyped-def]
    """Sum of squared differences of d numbers from a[a_at] and from b[b_at], in float64.

    b float32; a float32 or, converted once for many calls, float64. In 16 lanes, added in a fixed
    order: the same bits wherever it is compiled.
    """
    signature = types.float64(a, AT, b, AT, AT)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        kinds = signature.args
        item = DOUBLE if kinds[0].dtype == types.float64 else FLOAT
        left = pointer_to(context, builder, kinds[0], given[0], given[1], item)
        right = pointer_to(context, builder, kinds[2], given[2], given[3], FLOAT)
        d, wide = given[4], ir.VectorType(DOUBLE, SUM_LANES)
        whole = builder.and_(d, INT(-SUM_LANES))
        zero = ir.Constant(wide, [0.0] * SUM_LANES)
        fused = multiply_add(builder.module, wide)

        def added(at: Any, total: Any, mask: Any) -> Any:
            one, other = (
                _masked_load(builder, builder.gep(side, [at]), kind, mask)
                for side, kind in ((left, item), (right, FLOAT))
            )
            if item != DOUBLE:
                one = builder.fpext(one, wide)
            difference = builder.fsub(one, builder.fpext(other, wide))
            return builder.call(fused, [difference, difference, total])

        before = builder.block
        loop, after = (builder.append_basic_block(name) for name in ("apart", "apart_done"))
        builder.cbranch(builder.icmp_signed(">", whole, INT(0)), loop, after)
        builder.position_at_end(loop)
        t, total = builder.phi(INT), builder.phi(wide)
        following, advanced = added(t, total, None), builder.add(t, INT(SUM_LANES))
        for phi, first, value in ((t, INT(0), advanced), (total, zero, following)):
            phi.add_incoming(first, before)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", advanced, whole), loop, after)
        builder.position_at_end(after)
        result = builder.phi(wide)
        result.add_incoming(zero, before)
        result.add_incoming(following, loop)
        rest = builder.trunc(builder.sub(d, whole), INT32)
        lanes = ir.VectorType(INT32, SUM_LANES)([INT32(i) for i in range(SUM_LANES)])
        mask = builder.icmp_signed("<", lanes, splat(builder, rest, lanes.type))
        with builder.if_then(builder.icmp_signed(">", rest, INT32(0))):
            last, ended = added(whole, result, mask), builder.block
        every = builder.phi(wide)
        every.add_incoming(result, after)
        every.add_incoming(last, ended)
        return _sum_of_lanes(builder, every)

    return signature, generate


def _masked_load(builder: Any, pointer: Any, item: Any, mask: Any) -> Any:
    vector = ir.VectorType(item, SUM_LANES)
    if mask is None:
        return load_wide(builder, pointer, vector)
    wide = builder.bitcast(pointer, vector.as_pointer())
    kind = ir.FunctionType(vector, [wide.type, INT32, mask.type, vector])
    name = f"llvm.masked.load.v{SUM_LANES}f{64 if item == DOUBLE else 32}.p0"
    load = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(load, [wide, INT32(4), mask, ir.Constant(vector, [0.0] * SUM_LANES)])


def _sum_of_lanes(builder: Any, vector: Any) -> Any:
    while vector.type.count > 1:
        half = vector.type.count // 2
        sides = [
            builder.shuffle_vector(
                vector, ir.Constant(vector.type, ir.Undefined),
                ir.VectorType(INT32, half)([INT32(first + i) for i in range(half)]),
            )
            for first in (0, half)
        ]  # fmt: skip
        vector = builder.fadd(*sides)
    return builder.extract_element(vector, INT32(0))


@intrinsic
def passing_whole(_typing, values, values_at, limits, limits_at, limit):  # type: ignore[no-untyped-def]
    """Bits of the 16 int32 from values_at that are <= limit or <= limits[limits_at + i]."""
    signature = types.int64(values, AT, limits, AT, types.int32)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        wide = ir.VectorType(INT32, MASK_LANES)
        value, own = (
            load_wide(
                builder,
                pointer_to(context, builder, signature.args[i], given[i], given[i + 1], INT32),
                wide,
            )
            for i in (0, 2)
        )
        common = splat(builder, given[4], wide)
        bits = builder.or_(
            builder.icmp_signed("<=", value, own), builder.icmp_signed("<=", value, common)
        )
        return builder.zext(builder.bitcast(bits, ir.IntType(MASK_LANES)), INT)

    return signature, generate
