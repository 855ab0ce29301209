"""Vector instructions for the kernels, spelled in LLVM's own portable vectors.

Owns the primitives: register tiles of squared distances, in floats and in whole numbers, one
squared distance in float64, the mask of the values that pass a threshold, and a lock. LLVM turns
`<16 x float>` into one AVX-512 register, two AVX or four NEON ones, so the same code is right
everywhere; the tile's shape follows the registers of the processor at hand. Refuses any decision
about neighbours.
"""

# ruff: noqa: ANN001, ANN201, ANN202, PLR0913  (numba gives these functions their types)

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_FLOAT = ir.FloatType()
_INT = ir.IntType(64)
_INT32 = ir.IntType(32)
_DOUBLE = ir.DoubleType()
_AT = types.int64


def _tile_shape() -> tuple[int, int, int]:
    """(lanes, rows, vectors): rows x vectors accumulators must fit the registers."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16, 8, 2
    return (8, 6, 2) if features.get("avx2") else (4, 4, 2)


LANES, ROWS, _VECTORS = _tile_shape()
COLUMNS = LANES * _VECTORS
"""A tile is ROWS x COLUMNS distances."""
MASK_LANES = 16
SUM_LANES = 16
CACHE_LINE = 16
"""Items of 4 bytes."""
PAIRS_PER_STEP = 2
NO_LIMITS = np.full(MASK_LANES, -1, np.float32)
"""Limits that no squared distance passes."""
NOWHERE = np.full(MASK_LANES, -1, np.int32)
"""The same in whole numbers."""


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any, item: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(builder.bitcast(data, item.as_pointer()), [index])


def _load(builder: Any, pointer: Any, vector: Any) -> Any:
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=4)


def _splat(builder: Any, scalar: Any, vector: Any) -> Any:
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


def _fused(module: Any, wide: Any) -> Any:
    # fused where the processor can, multiply and add elsewhere
    name = f"llvm.fmuladd.v{wide.count}f{64 if wide.element == _DOUBLE else 32}"
    return module.globals.get(name) or ir.Function(
        module, ir.FunctionType(wide, [wide, wide, wide]), name
    )


def tile_primitive(lanes: int, rows: int, vectors: int, *, differences: bool = False) -> Any:
    """The tile for a register shape; `tile_products` and `tile_differences` use this machine's."""

    @intrinsic
    def tile(  # type: ignore[no-untyped-def]  # noqa: PLR0917
        _typing, a, a_at, d, b, b_at, row_norms, row_at, column_norms, column_at,
        out, out_at, stride,
    ):  # fmt: skip
        signature = types.void(
            a, _AT, _AT, b, _AT, row_norms, _AT, column_norms, _AT, out, _AT, _AT
        )  # fmt: skip

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            kinds = signature.args
            wide = ir.VectorType(_FLOAT, lanes)
            place = [
                _pointer(context, builder, kinds[i], values[i], values[i + 1], _FLOAT)
                for i in (5, 7, 9)
            ]
            left = _pointer(context, builder, kinds[0], values[0], values[1], _FLOAT)
            right = _pointer(context, builder, kinds[3], values[3], values[4], _FLOAT)
            d, stride = values[2], values[11]
            fused = _fused(builder.module, wide)
            columns = [
                _load(builder, builder.gep(place[1], [_INT(v * lanes)]), wide)
                for v in range(vectors)
            ]
            zero, half = (ir.Constant(wide, [value] * lanes) for value in (0.0, 0.5))
            # times zero: NaN of the padding stays
            start = [builder.fmul(column, zero) for column in columns] * rows if differences else []
            for r in range(0 if differences else rows):
                norm = _splat(builder, builder.load(builder.gep(place[0], [_INT(r)])), wide)
                start += [builder.fadd(norm, column) for column in columns]
            before = builder.block
            loop = builder.append_basic_block("tile")
            after = builder.append_basic_block("tile_done")
            builder.branch(loop)
            builder.position_at_end(loop)
            t = builder.phi(_INT)
            t.add_incoming(_INT(0), before)
            sums = [builder.phi(wide) for _ in start]
            for phi, value in zip(sums, start, strict=True):
                phi.add_incoming(value, before)
            at = builder.mul(t, _INT(lanes * vectors))
            candidates = [
                _load(builder, builder.gep(right, [builder.add(at, _INT(v * lanes))]), wide)
                for v in range(vectors)
            ]
            following = []
            for r in range(rows):
                index = builder.add(builder.mul(d, _INT(r)), t)
                query = _splat(builder, builder.load(builder.gep(left, [index])), wide)
                for v in range(vectors):
                    left_factor, right_factor = query, candidates[v]
                    if differences:
                        # rows carry the factor -2
                        apart = builder.call(fused, [query, half, candidates[v]])
                        left_factor = right_factor = apart
                    following.append(
                        builder.call(fused, [left_factor, right_factor, sums[r * vectors + v]])
                    )
            advanced = builder.add(t, _INT(1))
            t.add_incoming(advanced, loop)
            for phi, value in zip(sums, following, strict=True):
                phi.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", advanced, d), loop, after)
            builder.position_at_end(after)
            for r in range(rows):
                for v in range(vectors):
                    value = following[r * vectors + v]
                    value = builder.select(builder.fcmp_ordered("<", value, zero), zero, value)
                    index = builder.add(builder.mul(stride, _INT(r)), _INT(v * lanes))
                    pointer = builder.gep(place[2], [index])
                    builder.store(value, builder.bitcast(pointer, wide.as_pointer()), align=4)
            return context.get_dummy_value()

        return signature, generate

    return tile


tile_products = tile_primitive(LANES, ROWS, _VECTORS)
"""Squared distances of ROWS rows to COLUMNS columns into out[out_at + r * stride + c].

a: rows, each d long, from a_at, scaled by -2. b: panel [d, COLUMNS] from b_at. The norms are the
squared lengths: |x|^2 + |y|^2 - 2xy. Rounding below zero is cut to zero; NaN in a column's norm
makes the column NaN. The sum runs in the order of d.
"""

tile_differences = tile_primitive(LANES, ROWS, _VECTORS, differences=True)
"""As `tile_products`, summing squared differences: half as fast, without cancellation."""


def whole_tile_primitive(lanes: int, rows: int, vectors: int) -> Any:
    """The tile in whole numbers for a register shape; `tile_whole` uses this machine's."""

    @intrinsic
    def tile(  # type: ignore[no-untyped-def]  # noqa: PLR0917
        _typing, a, a_at, pairs, b, b_at, row_norms, row_at, column_norms, column_at,
        out, out_at, stride,
    ):  # fmt: skip
        signature = types.void(
            a, _AT, _AT, b, _AT, row_norms, _AT, column_norms, _AT, out, _AT, _AT
        )  # fmt: skip

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            kinds = signature.args
            wide = ir.VectorType(_INT32, lanes)
            place = [
                _pointer(context, builder, kinds[i], values[i], values[i + 1], _INT32)
                for i in (0, 3, 5, 7, 9)
            ]
            left, right, row_norm, column_norm, target = place
            pairs, stride = values[2], values[11]
            columns = [
                _load(builder, builder.gep(column_norm, [_INT(v * lanes)]), wide)
                for v in range(vectors)
            ]
            start = []
            for r in range(rows):
                norm = _splat(builder, builder.load(builder.gep(row_norm, [_INT(r)])), wide)
                start += [builder.add(norm, column) for column in columns]
            before = builder.block
            loop = builder.append_basic_block("tile")
            after = builder.append_basic_block("tile_done")
            builder.branch(loop)
            builder.position_at_end(loop)
            t = builder.phi(_INT)
            t.add_incoming(_INT(0), before)
            sums = [builder.phi(wide) for _ in start]
            following = list(sums)
            for step in range(PAIRS_PER_STEP):
                at = builder.add(t, _INT(step))
                column_at = builder.mul(at, _INT(lanes * vectors))
                candidates = [
                    _load(
                        builder, builder.gep(right, [builder.add(column_at, _INT(v * lanes))]), wide
                    )
                    for v in range(vectors)
                ]
                for r in range(rows):
                    index = builder.add(builder.mul(pairs, _INT(r)), at)
                    query = _splat(builder, builder.load(builder.gep(left, [index])), wide)
                    for v in range(vectors):
                        own = r * vectors + v
                        product = _pair_products(builder, query, candidates[v])
                        following[own] = builder.add(following[own], product)
            advanced = builder.add(t, _INT(PAIRS_PER_STEP))
            t.add_incoming(advanced, loop)
            for phi, first, value in zip(sums, start, following, strict=True):
                phi.add_incoming(first, before)
                phi.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", advanced, pairs), loop, after)
            builder.position_at_end(after)
            for r in range(rows):
                for v in range(vectors):
                    index = builder.add(builder.mul(stride, _INT(r)), _INT(v * lanes))
                    pointer = builder.bitcast(builder.gep(target, [index]), wide.as_pointer())
                    builder.store(following[r * vectors + v], pointer, align=4)
            return context.get_dummy_value()

        return signature, generate

    return tile


def _pair_products(builder: Any, left: Any, right: Any) -> Any:
    """In each lane of 32 bits, a pair of int16 times a pair of int16, added up."""
    lanes = left.type.count
    halves = ir.VectorType(ir.IntType(16), 2 * lanes)
    wide = ir.VectorType(_INT32, 2 * lanes)
    # LLVM knows this pattern: one instruction where the processor has one, two on any x86
    factors = [builder.sext(builder.bitcast(side, halves), wide) for side in (left, right)]
    products, nothing = builder.mul(*factors, flags=["nsw"]), ir.Constant(wide, ir.Undefined)
    picked = [ir.VectorType(_INT32, lanes)([_INT32(2 * i + odd) for i in range(lanes)])
              for odd in (0, 1)]  # fmt: skip
    low, high = (builder.shuffle_vector(products, nothing, pick) for pick in picked)
    return builder.add(low, high)


tile_whole = whole_tile_primitive(LANES, ROWS, _VECTORS)
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
    signature = types.float64(a, _AT, b, _AT, _AT)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        kinds = signature.args
        item = _DOUBLE if kinds[0].dtype == types.float64 else _FLOAT
        left = _pointer(context, builder, kinds[0], given[0], given[1], item)
        right = _pointer(context, builder, kinds[2], given[2], given[3], _FLOAT)
        d, wide = given[4], ir.VectorType(_DOUBLE, SUM_LANES)
        whole = builder.and_(d, _INT(-SUM_LANES))
        zero = ir.Constant(wide, [0.0] * SUM_LANES)
        fused = _fused(builder.module, wide)

        def added(at: Any, total: Any, mask: Any) -> Any:
            one, other = (
                _masked_load(builder, builder.gep(side, [at]), kind, mask)
                for side, kind in ((left, item), (right, _FLOAT))
            )
            if item != _DOUBLE:
                one = builder.fpext(one, wide)
            difference = builder.fsub(one, builder.fpext(other, wide))
            return builder.call(fused, [difference, difference, total])

        before = builder.block
        loop, after = (builder.append_basic_block(name) for name in ("apart", "apart_done"))
        builder.cbranch(builder.icmp_signed(">", whole, _INT(0)), loop, after)
        builder.position_at_end(loop)
        t, total = builder.phi(_INT), builder.phi(wide)
        following, advanced = added(t, total, None), builder.add(t, _INT(SUM_LANES))
        for phi, first, value in ((t, _INT(0), advanced), (total, zero, following)):
            phi.add_incoming(first, before)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", advanced, whole), loop, after)
        builder.position_at_end(after)
        result = builder.phi(wide)
        result.add_incoming(zero, before)
        result.add_incoming(following, loop)
        rest = builder.trunc(builder.sub(d, whole), _INT32)
        lanes = ir.VectorType(_INT32, SUM_LANES)([_INT32(i) for i in range(SUM_LANES)])
        mask = builder.icmp_signed("<", lanes, _splat(builder, rest, lanes.type))
        with builder.if_then(builder.icmp_signed(">", rest, _INT32(0))):
            last, ended = added(whole, result, mask), builder.block
        every = builder.phi(wide)
        every.add_incoming(result, after)
        every.add_incoming(last, ended)
        return _sum_of_lanes(builder, every)

    return signature, generate


def _masked_load(builder: Any, pointer: Any, item: Any, mask: Any) -> Any:
    vector = ir.VectorType(item, SUM_LANES)
    if mask is None:
        return _load(builder, pointer, vector)
    wide = builder.bitcast(pointer, vector.as_pointer())
    kind = ir.FunctionType(vector, [wide.type, _INT32, mask.type, vector])
    name = f"llvm.masked.load.v{SUM_LANES}f{64 if item == _DOUBLE else 32}.p0"
    load = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(load, [wide, _INT32(4), mask, ir.Constant(vector, [0.0] * SUM_LANES)])


def _sum_of_lanes(builder: Any, vector: Any) -> Any:
    while vector.type.count > 1:
        half = vector.type.count // 2
        sides = [
            builder.shuffle_vector(
                vector, ir.Constant(vector.type, ir.Undefined),
                ir.VectorType(_INT32, half)([_INT32(first + i) for i in range(half)]),
            )
            for first in (0, half)
        ]  # fmt: skip
        vector = builder.fadd(*sides)
    return builder.extract_element(vector, _INT32(0))


@intrinsic
def passing_whole(_typing, values, values_at, limits, limits_at, limit):  # type: ignore[no-untyped-def]
    """Bits of the 16 int32 from values_at that are <= limit or <= limits[limits_at + i]."""
    signature = types.int64(values, _AT, limits, _AT, types.int32)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        wide = ir.VectorType(_INT32, MASK_LANES)
        value, own = (
            _load(
                builder,
                _pointer(context, builder, signature.args[i], given[i], given[i + 1], _INT32),
                wide,
            )
            for i in (0, 2)
        )
        common = _splat(builder, given[4], wide)
        bits = builder.or_(
            builder.icmp_signed("<=", value, own), builder.icmp_signed("<=", value, common)
        )
        return builder.zext(builder.bitcast(bits, ir.IntType(MASK_LANES)), _INT)

    return signature, generate


@intrinsic
def passing(_typing, values, values_at, limits, limits_at, limit):  # type: ignore[no-untyped-def]
    """Bits of the 16 floats from values_at that are <= limit or <= limits[limits_at + i]."""
    signature = types.int64(values, _AT, limits, _AT, types.float32)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        wide = ir.VectorType(_FLOAT, MASK_LANES)
        kinds = signature.args
        value = _load(
            builder, _pointer(context, builder, kinds[0], given[0], given[1], _FLOAT), wide
        )
        own = _load(builder, _pointer(context, builder, kinds[2], given[2], given[3], _FLOAT), wide)
        common = _splat(builder, given[4], wide)
        bits = builder.or_(
            builder.fcmp_ordered("<=", value, own), builder.fcmp_ordered("<=", value, common)
        )
        return builder.zext(builder.bitcast(bits, ir.IntType(MASK_LANES)), _INT)

    return signature, generate


@intrinsic
def how_many_up_to(_typing, bits, at, limit):  # type: ignore[no-untyped-def]
    """How many of the 16 int32 from bits[at] are <= limit."""
    signature = types.int64(bits, _AT, types.int32)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        item = ir.IntType(32)
        wide = ir.VectorType(item, MASK_LANES)
        value = _load(
            builder, _pointer(context, builder, signature.args[0], given[0], given[1], item), wide
        )
        passed = builder.icmp_signed("<=", value, _splat(builder, given[2], wide))
        mask = builder.bitcast(passed, ir.IntType(MASK_LANES))
        return builder.ctpop(builder.zext(mask, _INT))

    return signature, generate


@intrinsic
def float_of(_typing, bits):  # type: ignore[no-untyped-def]
    """The float32 that has these bits."""

    def generate(_context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        return builder.bitcast(given[0], _FLOAT)

    return types.float32(types.int32), generate


@intrinsic
def prefetch(_typing, array, at):  # type: ignore[no-untyped-def]
    """Ask for the cache line of array[at], an array of 4-byte items, ahead of its use."""
    signature = types.void(array, _AT)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        word = ir.IntType(32)
        pointer = _pointer(context, builder, signature.args[0], given[0], given[1], ir.IntType(32))
        byte = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [byte.type, word, word, word])
        name = "llvm.prefetch.p0"
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        # to be read, into the second cache, data
        builder.call(function, [byte, word(0), word(2), word(1)])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def lowest_bit(_typing, bits):  # type: ignore[no-untyped-def]
    """Place of the lowest set bit of a non-zero int64."""

    def generate(_context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        return builder.cttz(given[0], ir.IntType(1)(1))

    return types.int64(types.int64), generate


@intrinsic
def exchange(_typing, flags, at, value):  # type: ignore[no-untyped-def]
    """Atomically put `value` into int32 flags[at]; returns what stood there."""
    signature = types.int32(flags, _AT, types.int32)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        item = ir.IntType(32)
        pointer = _pointer(context, builder, signature.args[0], given[0], given[1], item)
        return builder.atomic_rmw("xchg", pointer, given[2], "seq_cst")

    return signature, generate
