"""Vector instructions for the kernels, spelled in LLVM's own portable vectors.

Owns the shape of the tile and the primitives on floats: a register tile of squared distances, the
mask of the values that pass a threshold, and a lock. LLVM turns `<16 x float>` into one AVX-512
register, two AVX or four NEON ones, so the same code is right everywhere; the tile's shape follows
the registers of the processor at hand. Those on whole numbers are in `whole_lanes`. Refuses any
decision about neighbours.
"""

# ruff: noqa: ANN001, ANN201, ANN202, PLR0913  (numba gives these functions their types)

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from index_build.selfjoin.jit import kernel

FLOAT = ir.FloatType()
INT = ir.IntType(64)
INT32 = ir.IntType(32)
DOUBLE = ir.DoubleType()
AT = types.int64
Start = Callable[[Any, Any, Any], Any]
Step = Callable[[Any, Any, Any, Any], Any]
End = Callable[[Any, Any], Any]


def _tile_shape() -> tuple[int, int, int]:
    """(lanes, rows, vectors): rows x vectors accumulators must fit the registers."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16, 8, 2
    return (8, 6, 2) if features.get("avx2") else (4, 4, 2)


LANES, ROWS, VECTORS = _tile_shape()
COLUMNS = LANES * VECTORS
"""A tile is ROWS x COLUMNS distances."""
MASK_LANES = 16
CACHE_LINE = 16
"""Items of 4 bytes."""
NO_LIMITS = np.full(MASK_LANES, -1, np.float32)
"""Limits that no squared distance passes."""


def pointer_to(context: Any, builder: Any, kind: Any, array: Any, index: Any, item: Any) -> Any:
    """Pointer to array[index], an array of `item`."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(builder.bitcast(data, item.as_pointer()), [index])


def load_wide(builder: Any, pointer: Any, vector: Any) -> Any:
    """A vector from anywhere."""
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=4)


def splat(builder: Any, scalar: Any, vector: Any) -> Any:
    """A vector of one number."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


def multiply_add(module: Any, wide: Any) -> Any:
    """The function a b + c on vectors: fused where the processor can, in two steps elsewhere."""
    name = f"llvm.fmuladd.v{wide.count}f{64 if wide.element == DOUBLE else 32}"
    return module.globals.get(name) or ir.Function(
        module, ir.FunctionType(wide, [wide, wide, wide]), name
    )


@dataclass(frozen=True)
class TileShape:
    """A tile of rows x (vectors of lanes) sums of `item`, which take `steps` items of a row at a
    time.
    """

    lanes: int
    rows: int
    vectors: int
    item: Any
    steps: int = 1

    @property
    def wide(self) -> Any:
        """A vector register."""
        return ir.VectorType(self.item, self.lanes)


def tile_frame(shape: TileShape, start: Start, step: Step, end: End) -> Any:
    """The loop of a tile: sums begin by `start`, grow by `step` of a row's item and a column's
    vector, and are stored as `end` makes them.
    """
    lanes, vectors, wide = shape.lanes, shape.vectors, shape.wide

    @intrinsic
    def tile(  # type: ignore[no-untyped-def]  # noqa: PLR0917
        _typing, a, a_at, length, b, b_at, row_norms, row_at, column_norms, column_at,
        out, out_at, stride,
    ):  # fmt: skip
        signature = types.void(
            a, AT, AT, b, AT, row_norms, AT, column_norms, AT, out, AT, AT
        )  # fmt: skip

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            kinds, length, stride = signature.args, values[2], values[11]
            left, right, row_norm, column_norm, target = (
                pointer_to(context, builder, kinds[i], values[i], values[i + 1], shape.item)
                for i in (0, 3, 5, 7, 9)
            )

            def columns_at(pointer: Any, first: Any) -> list[Any]:
                places = (builder.add(first, INT(v * lanes)) for v in range(vectors))
                return [load_wide(builder, builder.gep(pointer, [at]), wide) for at in places]

            def one_of(pointer: Any, at: Any) -> Any:
                return splat(builder, builder.load(builder.gep(pointer, [at])), wide)

            columns = columns_at(column_norm, INT(0))
            first = [
                start(builder, one_of(row_norm, INT(r)), column)
                for r in range(shape.rows)
                for column in columns
            ]
            before = builder.block
            loop = builder.append_basic_block("tile")
            after = builder.append_basic_block("tile_done")
            builder.branch(loop)
            builder.position_at_end(loop)
            t = builder.phi(INT)
            t.add_incoming(INT(0), before)
            sums = [builder.phi(wide) for _ in first]
            following: list[Any] = list(sums)
            for number in range(shape.steps):
                at = builder.add(t, INT(number))
                candidates = columns_at(right, builder.mul(at, INT(lanes * vectors)))
                for r in range(shape.rows):
                    query = one_of(left, builder.add(builder.mul(length, INT(r)), at))
                    for v, candidate in enumerate(candidates, r * vectors):
                        following[v] = step(builder, query, candidate, following[v])
            advanced = builder.add(t, INT(shape.steps))
            t.add_incoming(advanced, loop)
            for phi, begun, grown in zip(sums, first, following, strict=True):
                phi.add_incoming(begun, before)
                phi.add_incoming(grown, loop)
            builder.cbranch(builder.icmp_signed("<", advanced, length), loop, after)
            builder.position_at_end(after)
            for r in range(shape.rows):
                for v in range(vectors):
                    index = builder.add(builder.mul(stride, INT(r)), INT(v * lanes))
                    pointer = builder.bitcast(builder.gep(target, [index]), wide.as_pointer())
                    builder.store(end(builder, following[r * vectors + v]), pointer, align=4)
            return context.get_dummy_value()

        return signature, generate

    return tile


def tile_primitive(lanes: int, rows: int, vectors: int, *, differences: bool = False) -> Any:
    """The tile for a register shape; `tile_products` and `tile_differences` use this machine's."""
    shape = TileShape(lanes, rows, vectors, FLOAT)
    zero, half = (ir.Constant(shape.wide, [value] * lanes) for value in (0.0, 0.5))

    def start(builder: Any, norm: Any, column: Any) -> Any:
        # times zero: NaN of the padding stays
        return builder.fmul(column, zero) if differences else builder.fadd(norm, column)

    def step(builder: Any, query: Any, candidate: Any, total: Any) -> Any:
        fused = multiply_add(builder.module, shape.wide)
        if differences:
            # rows carry the factor -2
            query = candidate = builder.call(fused, [query, half, candidate])
        return builder.call(fused, [query, candidate, total])

    def end(builder: Any, total: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", total, zero), zero, total)

    return tile_frame(shape, start, step, end)


tile_products = tile_primitive(LANES, ROWS, VECTORS)
"""Squared distances of ROWS rows to COLUMNS columns into out[out_at + r * stride + c].

a: rows, each d long, from a_at, scaled by -2. b: panel [d, COLUMNS] from b_at. The norms are the
squared lengths: |x|^2 + |y|^2 - 2xy. Rounding below zero is cut to zero; NaN in a column's norm
makes the column NaN. The sum runs in the order of d.
"""

tile_differences = tile_primitive(LANES, ROWS, VECTORS, differences=True)
"""As `tile_products`, summing squared differences: half as fast, without cancellation."""


@intrinsic
def passing(_typing, values, values_at, limits, limits_at, limit):  # type: ignore[no-untyped-def]
    """Bits of the 16 floats from values_at that are <= limit or <= limits[limits_at + i]."""
    signature = types.int64(values, AT, limits, AT, types.float32)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        wide = ir.VectorType(FLOAT, MASK_LANES)
        kinds = signature.args
        value = load_wide(
            builder, pointer_to(context, builder, kinds[0], given[0], given[1], FLOAT), wide
        )
        own = load_wide(
            builder, pointer_to(context, builder, kinds[2], given[2], given[3], FLOAT), wide
        )
        common = splat(builder, given[4], wide)
        bits = builder.or_(
            builder.fcmp_ordered("<=", value, own), builder.fcmp_ordered("<=", value, common)
        )
        return builder.zext(builder.bitcast(bits, ir.IntType(MASK_LANES)), INT)

    return signature, generate


@intrinsic
def how_many_up_to(_typing, bits, at, limit):  # type: ignore[no-untyped-def]
    """How many of the 16 int32 from bits[at] are <= limit."""
    signature = types.int64(bits, AT, types.int32)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        item = ir.IntType(32)
        wide = ir.VectorType(item, MASK_LANES)
        value = load_wide(
            builder, pointer_to(context, builder, signature.args[0], given[0], given[1], item), wide
        )
        passed = builder.icmp_signed("<=", value, splat(builder, given[2], wide))
        mask = builder.bitcast(passed, ir.IntType(MASK_LANES))
        return builder.ctpop(builder.zext(mask, INT))

    return signature, generate


@intrinsic
def float_of(_typing, bits):  # type: ignore[no-untyped-def]
    """The float32 that has these bits."""

    def generate(_context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        return builder.bitcast(given[0], FLOAT)

    return types.float32(types.int32), generate


@intrinsic
def prefetch(_typing, array, at):  # type: ignore[no-untyped-def]
    """Ask for the cache line of array[at], an array of 4-byte items, ahead of its use."""
    signature = types.void(array, AT)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        word = ir.IntType(32)
        pointer = pointer_to(
            context, builder, signature.args[0], given[0], given[1], ir.IntType(32)
        )
        byte = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [byte.type, word, word, word])
        name = "llvm.prefetch.p0"
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        # to be read, into the second cache, data
        builder.call(function, [byte, word(0), word(2), word(1)])
        return context.get_dummy_value()

    return signature, generate


@kernel
def fetch(array: NDArray[Any], first: int, stop: int) -> None:
    """Have array[first:stop], of 4-byte items, on its way while something is computed."""
    for at in range(first, stop, CACHE_LINE):
        prefetch(array, at)


@intrinsic
def lowest_bit(_typing, bits):  # type: ignore[no-untyped-def]
    """Place of the lowest set bit of a non-zero int64."""

    def generate(_context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        return builder.cttz(given[0], ir.IntType(1)(1))

    return types.int64(types.int64), generate


@intrinsic
def exchange(_typing, flags, at, value):  # type: ignore[no-untyped-def]
    """Atomically put `value` into int32 flags[at]; returns what stood there."""
    signature = types.int32(flags, AT, types.int32)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        item = ir.IntType(32)
        pointer = pointer_to(context, builder, signature.args[0], given[0], given[1], item)
        return builder.atomic_rmw("xchg", pointer, given[2], "seq_cst")

    return signature, generate
