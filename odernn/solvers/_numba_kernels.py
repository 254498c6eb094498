# mypy: disallow-untyped-defs=False
"""CPU kernels: Runge-Kutta steps and affine scans, each with its exact adjoint, compiled by numba.

A *tile* is some rows of the batch of one ensemble member. It runs through all times on one core, its states in small
row-major buffers (rows, width), where width is m rounded up to whole vectors; the weights lie in memory the same way. All
buffers of a tile are parts of one scratch array `s`, named by where they start. Where a loop runs through several, each turn
loads before it stores: buffers often lie a multiple of 4096 bytes apart, and a load right after a store to the same place in
another such page waits for it. An *item* is a share of the tiles of one
member: the unit of parallel work, with sums of weight gradients of its own. Arrays come flat, in C order.

Loops are written in terms of SIMD vectors, not left to the compiler: that is worth a factor of 2 to 3 here.
All kernel code is in this one file because numba's disk cache watches only the file of the function it caches.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic, models, overload, register_model

from ._numba_cache import keep_on_disk

# Register blocking of `_product`: ROWS x 2 accumulators, two vectors and a broadcast fit 32 (AVX-512) or 16 registers.
_WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
VECTOR_BYTES = 64 if _WIDE else 32
ROWS = 8 if _WIDE else 4
# Entries of one tile buffer: a dozen such buffers and W stay in the first two caches.
TILE_ENTRIES = 512
# Rows of a product that sums a weight gradient: shorter sums spend their time on loading and storing the result.
SUM_ROWS = 64
CACHE_LINE = 64
# Entries to allocate beyond those of a buffer that is to start on a cache line.
_MARGIN = CACHE_LINE // 4

# Activations, structures of W, and where the input comes from (`source`), as integers.
LINEAR, HARDTANH, TANH, RELU, SIGMOID = range(5)
DENSE, DIAGONAL, PAIRS = range(3)
SAMPLES, HOLD, JUMPS = range(3)


class Plan(NamedTuple):
    """The sizes of one solve.

    Args:
        items, per_member: shares of work in all, and for each member of the ensemble.
        rows: of a tile, a multiple of ROWS.
        batch, intervals, m, d: as everywhere.
        width: of a tile: m in whole vectors.
        inputs: width of a tile of inputs, a multiple of ROWS: [x, 1] for Runge-Kutta; [x left, x right, 1] for scans.
        columns: of the matrix that leads back to x, in whole vectors; 0 where no gradient of x is wanted.
        x_members: leading axis of x: the members, or 1 for an x that all share.
        weights: entries of W per member, and per interval where it changes with these.
        of_W: entries of the gradient of W per item, and per interval likewise; 0 where it is not wanted.
        structure, source, activation: the integers above.
        stages, substeps: of Runge-Kutta: evaluations in a step, steps in an interval.
        changes: whether the matrices of a scan change from interval to interval (0 or 1).
    """

    items: int
    per_member: int
    rows: int
    batch: int
    intervals: int
    m: int
    d: int
    width: int
    inputs: int
    columns: int
    x_members: int
    weights: int
    of_W: int
    structure: int
    source: int
    activation: int
    stages: int
    substeps: int
    changes: int


class Tableau(NamedTuple):
    """Butcher tableau of an explicit method of at most four stages, padded with zeros: A (8, 4), b (4,), c (4,). (The adjoint
    looks for what comes after a stage, past the last one too.)"""

    A: np.ndarray
    b: np.ndarray
    c: np.ndarray


# --- vectors ----------------------------------------------------------------------------------------------------------

# Only contraction to fused multiply-adds: nnan and ninf would let a diverged state come out as a plausible number.
_FLAGS = ("contract", "nsz")
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": set(_FLAGS), "error_model": "numpy"}
# prange counts in unsigned integers, which make floats of signed ones: items are converted first.
_inner = njit(**_OPTIONS)
# What works on single vectors: without it a call costs more than the work.
_INLINE_OPTIONS: Any = {**_OPTIONS, "forceinline": True}
_inline = njit(**_INLINE_OPTIONS)


class Kernel(NamedTuple):
    """One compiled function in two forms. On one thread the parallel form still opens a parallel region, and when that and
    PyTorch's differ in their number of threads OpenMP builds its threads again at every change, which takes longer than small
    solves."""

    parallel: Callable[..., None]
    serial: Callable[..., None]


def _kernel(function: Any) -> Kernel:
    serial = FunctionType(function.__code__, function.__globals__, function.__name__)
    serial.__qualname__ = f"{function.__qualname__}_serial"  # the disk cache goes by this name
    return Kernel(keep_on_disk(njit(**_OPTIONS, parallel=True)(function)), keep_on_disk(njit(**_OPTIONS)(serial)))


class _Vector(types.Type):
    """VECTOR_BYTES of numbers in one register."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.lanes = VECTOR_BYTES // (dtype.bitwidth // 8)
        super().__init__(f"vector({dtype})")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: _Vector) -> None:
        element = manager.lookup(vector.dtype).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


def _as_vector(context, builder, vector, kind, value):
    """The value itself, or a vector full of it."""
    if kind == vector:
        return value
    model = context.get_value_type(vector)
    undefined = ir.Constant(model, ir.Undefined)
    first = builder.insert_element(undefined, context.cast(builder, value, kind, vector.dtype), ir.IntType(32)(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), model.count), [0] * model.count))


def _define_operator(symbol, instruction):
    @intrinsic
    def apply(typingctx, a, b):
        vector = a if isinstance(a, _Vector) else b

        def generate(context, builder, signature, args):
            x, y = (_as_vector(context, builder, vector, kind, value) for kind, value in zip(signature.args, args))
            return getattr(builder, instruction)(x, y, flags=_FLAGS)

        return vector(a, b), generate

    @overload(symbol, jit_options=_INLINE_OPTIONS)
    def choose(a, b):
        if isinstance(a, _Vector) or isinstance(b, _Vector):
            return lambda a, b: apply(a, b)
        return None


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define_operator(_symbol, _instruction)


@intrinsic
def _where_less(typingctx, a, b, yes, no):
    """yes where a < b, else no (where either is NaN, too)."""
    vector = next(kind for kind in (a, b, yes, no) if isinstance(kind, _Vector))

    def generate(context, builder, signature, args):
        a, b, yes, no = (_as_vector(context, builder, vector, kind, value) for kind, value in zip(signature.args, args))
        return builder.select(builder.fcmp_ordered("<", a, b), yes, no)

    return vector(a, b, yes, no), generate


@intrinsic
def _pointer(typingctx, array):
    """Where the entries of an array start. Pointers, not arrays, go through the code below: numba counts references to arrays
    at every call, inside the innermost loops. Nothing but the caller keeps the array alive."""

    def generate(context, builder, signature, args):
        return context.make_array(signature.args[0])(context, builder, value=args[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def _aligned_pointer(typingctx, array):
    """The first cache line that starts in an array, so that no vector straddles two."""

    def generate(context, builder, signature, args):
        i64 = ir.IntType(64)
        start = context.make_array(signature.args[0])(context, builder, value=args[0]).data
        address = builder.add(builder.ptrtoint(start, i64), i64(CACHE_LINE - 1))
        return builder.inttoptr(builder.and_(address, i64(-CACHE_LINE)), start.type)

    return types.CPointer(array.dtype)(array), generate


def _lanes(pointer: Any) -> int:
    """Numbers in a vector of what a pointer points to."""
    raise NotImplementedError("for compiled code only")


@overload(_lanes, inline="always")
def _overload_lanes(pointer):
    count = _Vector(pointer.dtype).lanes
    return lambda pointer: count


def _address(context, builder, pointer, offset, vector):
    return builder.bitcast(builder.gep(pointer, [offset]), context.get_value_type(vector).as_pointer())


@intrinsic
def _load(typingctx, pointer, start):
    """The vector pointer[start : start + lanes]."""
    vector = _Vector(pointer.dtype)

    def generate(context, builder, signature, args):
        return builder.load(_address(context, builder, args[0], args[1], vector), align=vector.dtype.bitwidth // 8)

    return vector(pointer, types.int64), generate


@intrinsic
def _store(typingctx, pointer, start, value):
    """pointer[start : start + lanes] = value."""
    vector = _Vector(pointer.dtype)

    def generate(context, builder, signature, args):
        filled = _as_vector(context, builder, vector, signature.args[2], args[2])
        builder.store(filled, _address(context, builder, args[0], args[1], vector), align=vector.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, value), generate


def _define_bit_trick(vector, bits, compute):
    """A function of a vector that works on the bits of its numbers as integers."""

    @intrinsic
    def trick(typingctx, x):
        if x != vector:
            return None

        def generate(context, builder, signature, args):
            model = context.get_value_type(vector)
            integers = ir.VectorType(ir.IntType(bits), model.count)

            def constant(value):
                return ir.Constant(integers, [value] * model.count)

            return builder.bitcast(compute(builder, builder.bitcast(args[0], integers), constant), model)

        return vector(vector), generate

    return trick


_SINGLE, _DOUBLE = _Vector(types.float32), _Vector(types.float64)
# 1 / x for positive x to 5 %: negates the exponent and, roughly, inverts the mantissa.
_RECIPROCAL_BITS = 0x7EF311C3
_rough_reciprocal = _define_bit_trick(_SINGLE, 32, lambda builder, x, constant: builder.sub(constant(_RECIPROCAL_BITS), x))
# 2^n from _ROUNDER + n, whose last bits are those of n.
_EXPONENT_BIAS, _EXPONENT_SHIFT = 1023, 52
_power_of_two = _define_bit_trick(
    _DOUBLE, 64, lambda builder, x, constant: builder.shl(builder.add(x, constant(_EXPONENT_BIAS)), constant(_EXPONENT_SHIFT))
)


# --- activations ------------------------------------------------------------------------------------------------------

# float32: x P(x^2) / Q(x^2) on [-_FAR, _FAR], beyond which tanh rounds to 1. The rational function of these degrees with the
# smallest relative error there, 2.2e-8, and slope 1 at 0 (by Lawson's iteration); rounding adds up to 4 units in the last place.
_FAR = 9.01
_P1, _P2, _P3, _P4 = 1.3383331583821567e-1, 3.4982242192173716e-3, 2.0648496013732013e-5, 1.3401985742771164e-8
_Q1, _Q2, _Q3, _Q4 = 4.671665294986188e-1, 2.5887273707458077e-2, 3.289773400590183e-4, 7.79746175446661e-7

# float64: x + x z N(z) / D(z), z = x^2, for |x| < _NEAR, else 1 - 2 / (e^{2x} + 1) with e^r = (B + r A) / (B - r A), A and B
# polynomials in r^2. Source: S. Moshier's Cephes, tanh.c and exp.c.
_NEAR = 0.625
_N0, _N1, _N2 = -1.61468768441708447952e3, -9.92877231001918586564e1, -9.64399179425052238628e-1
_D0, _D1, _D2 = 4.84406305325125486048e3, 2.23548839060100448583e3, 1.12811678491632931402e2
_A0, _A1, _A2 = 9.99999999999999999910e-1, 3.02994407707441961300e-2, 1.26177193074810590878e-4
_B0, _B1, _B2, _B3 = 2.0, 2.27265548208155028766e-1, 2.52448340349684104192e-3, 3.00198505138664455042e-6
_ROUNDS_TO_ONE = 20.0  # tanh(20) = 1 - 8e-18
_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.4426950408889634, 6.93145751953125e-1, 1.42860682030941723212e-6
_ROUNDER = 6755399441055744.0  # 1.5 * 2^52: x + it - it rounds x to an integer


def _tanh(x: Any) -> Any:
    """tanh of a vector to the precision of its numbers; NaN stays NaN."""
    raise NotImplementedError("for compiled code only")


@overload(_tanh, jit_options=_INLINE_OPTIONS)
def _overload_tanh(x):
    def single(x):
        x = _where_less(_FAR, x, _FAR, x)
        x = _where_less(x, -_FAR, -_FAR, x)
        z = x * x
        top = x * (1.0 + z * (_P1 + z * (_P2 + z * (_P3 + z * _P4))))
        bottom = 1.0 + z * (_Q1 + z * (_Q2 + z * (_Q3 + z * _Q4)))
        # The quotient by Newton's method, three times faster than the division of most processors.
        inverse = _rough_reciprocal(bottom)
        inverse = inverse + inverse * (1.0 - bottom * inverse)
        inverse = inverse + inverse * (1.0 - bottom * inverse)
        quotient = top * inverse
        return quotient + inverse * (top - bottom * quotient)

    def double(x):
        size = _where_less(x, 0.0, 0.0 - x, x)
        size = _where_less(_ROUNDS_TO_ONE, size, _ROUNDS_TO_ONE, size)
        z = size * size
        y = size + size
        shifted = y * _LOG2_E + _ROUNDER
        n = shifted - _ROUNDER
        r = y - n * _LN2_HIGH - n * _LN2_LOW
        rr = r * r
        odd = r * (_A0 + rr * (_A1 + rr * _A2))
        even = _B0 + rr * (_B1 + rr * (_B2 + rr * _B3))
        top = _where_less(size, _NEAR, size * z * (_N0 + z * (_N1 + z * _N2)), -2.0 * (even - odd))
        bottom = _where_less(size, _NEAR, _D0 + z * (_D1 + z * (_D2 + z)), _power_of_two(shifted) * (even + odd) + (even - odd))
        value = _where_less(size, _NEAR, size, 1.0) + top / bottom
        return _where_less(x, 0.0, 0.0 - value, value)

    return single if x == _SINGLE else double


@_inner
def _activate(s, z, n, activation):
    """z <- sigma(z)."""
    step = _lanes(s)
    if activation == TANH:
        for q in range(z, z + n, step):
            _store(s, q, _tanh(_load(s, q)))
    elif activation == SIGMOID:
        for q in range(z, z + n, step):
            _store(s, q, 0.5 + 0.5 * _tanh(0.5 * _load(s, q)))
    elif activation == RELU:
        for q in range(z, z + n, step):
            value = _load(s, q)
            _store(s, q, _where_less(value, 0.0, 0.0, value))
    elif activation == HARDTANH:
        for q in range(z, z + n, step):
            value = _load(s, q)
            value = _where_less(1.0, value, 1.0, value)
            _store(s, q, _where_less(value, -1.0, -1.0, value))


@_inline
def _times_derivative(g, k, activation):
    """g sigma'(z), from k = sigma(z)."""
    if activation == TANH:
        return g * (1.0 - k * k)
    if activation == SIGMOID:
        return g * (k * (1.0 - k))
    if activation == RELU:
        return _where_less(0.0, k, g, 0.0 * k)
    if activation == HARDTANH:
        return _where_less(k * k, 1.0, g, 0.0 * k)
    return g


# --- products ---------------------------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def _block(typingctx, a, a0, a_row, a_col, b, b0, b_row, c, c0, c_row, depth, vectors):
    """C[r, :] += sum_k A[r, k] B[k, :] for ROWS rows r and `vectors` vectors of columns, accumulated in registers.

    A[r, k] = a[a0 + r a_row + k a_col], and so on.
    """
    vector, count = _Vector(a.dtype), vectors.literal_value
    signature = types.void(a, a0, a_row, a_col, b, b0, b_row, c, c0, c_row, depth, vectors)

    def generate(context, builder, signature, args):
        i64 = ir.IntType(64)
        size, lanes = vector.dtype.bitwidth // 8, vector.lanes
        a0, a_row, a_col, b0, b_row, c0, c_row, depth = (
            context.cast(builder, args[k], signature.args[k], types.int64) for k in (1, 2, 3, 5, 6, 8, 9, 10)
        )

        def address(k, offset, v):
            offset = builder.add(offset, i64(v * lanes))
            return _address(context, builder, args[k], offset, vector)

        cells = [(r, v) for r in range(ROWS) for v in range(count)]
        c_at = {(r, v): address(7, builder.add(c0, builder.mul(c_row, i64(r))), v) for r, v in cells}
        a_at = [builder.add(a0, builder.mul(a_row, i64(r))) for r in range(ROWS)]
        # Sums start at 0 and reach C last: added one by one to a large C, products would be rounded to its precision.
        zero = ir.Constant(context.get_value_type(vector), [0.0] * lanes)

        entry, loop, done = builder.block, builder.append_basic_block("depth"), builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">", depth, i64(0)), loop, done)
        builder.position_at_end(loop)
        k = builder.phi(i64)
        sums = {cell: builder.phi(context.get_value_type(vector)) for cell in cells}
        b_k = [builder.load(address(4, builder.add(b0, builder.mul(k, b_row)), v), align=size) for v in range(count)]
        column = builder.mul(k, a_col)
        a_k = [builder.load(builder.gep(args[0], [builder.add(start, column)])) for start in a_at]
        a_k = [_as_vector(context, builder, vector, vector.dtype, scalar) for scalar in a_k]
        updated = {(r, v): builder.fadd(builder.fmul(a_k[r], b_k[v], _FLAGS), sums[r, v], _FLAGS) for r, v in cells}
        following = builder.add(k, i64(1))
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, done)
        k.add_incoming(i64(0), entry)
        k.add_incoming(following, loop)
        builder.position_at_end(done)
        results = {cell: builder.phi(context.get_value_type(vector)) for cell in cells}
        for cell in cells:
            for phi in (sums[cell], results[cell]):
                phi.add_incoming(zero, entry)
                phi.add_incoming(updated[cell], loop)
        for cell in cells:
            total = builder.fadd(builder.load(c_at[cell], align=size), results[cell], _FLAGS)
            builder.store(total, c_at[cell], align=size)
        return context.get_dummy_value()

    return signature, generate


@_inner
def _product(a, a0, a_row, a_col, b, b0, b_row, c, c0, c_row, rows, width, depth):
    """C += A B for A (rows, depth), B (depth, width), C (rows, width); rows a multiple of ROWS, width of whole vectors."""
    lanes = _lanes(a)
    for r in range(0, rows, ROWS):
        v = 0
        while v + 2 * lanes <= width:
            _block(a, a0 + r * a_row, a_row, a_col, b, b0 + v, b_row, c, c0 + r * c_row + v, c_row, depth, 2)
            v += 2 * lanes
        if v < width:
            _block(a, a0 + r * a_row, a_row, a_col, b, b0 + v, b_row, c, c0 + r * c_row + v, c_row, depth, 1)


@_inner
def _apply(plan, W, w0, s, y, z):
    """z += y W for the row vectors of a tile. W is (m, width), or its diagonal (1, width), or for pairs (2, width): W[0, j]
    multiplies y[j] and W[1, j] the other entry of the pair."""
    width = plan.width
    if plan.structure == DENSE:
        _product(s, y, width, 1, W, w0, width, s, z, width, plan.rows, width, plan.m)
        return
    for r in range(0, plan.rows * width, width):
        for j in range(0, width, _lanes(s)):
            _store(s, z + r + j, _load(s, z + r + j) + _load(W, w0 + j) * _load(s, y + r + j))
        if plan.structure == PAIRS:
            for j in range(0, plan.m, 2):
                s[z + r + j] += W[w0 + width + j] * s[y + r + j + 1]
                s[z + r + j + 1] += W[w0 + width + j + 1] * s[y + r + j]


@_inner
def _sum_outer(plan, total, t0, s, g, y, rows):
    """The gradient of W in z = W y, summed over rows: (width, width), or the entries that `_apply` takes."""
    width = plan.width
    if plan.structure == DENSE:
        _product(s, g, 1, width, s, y, width, total, t0, width, width, width, rows)
        return
    for j in range(0, width, _lanes(s)):
        own = _load(total, t0 + j)
        for r in range(j, j + rows * width, width):
            own = own + _load(s, g + r) * _load(s, y + r)
        _store(total, t0 + j, own)
    if plan.structure == PAIRS:
        for r in range(0, rows * width, width):
            for j in range(0, plan.m, 2):
                total[t0 + width + j] += s[g + r + j] * s[y + r + j + 1]
                total[t0 + width + j + 1] += s[g + r + j + 1] * s[y + r + j]


# --- tiles ------------------------------------------------------------------------------------------------------------


@_inner
def _copy(source, start, target, at, count, adds):
    """target[at : at + count] = source[start : start + count], or += where `adds`."""
    lanes = _lanes(source)
    whole = count // lanes * lanes
    for j in range(0, whole, lanes):
        value = _load(source, start + j)
        _store(target, at + j, _load(target, at + j) + value if adds else value)
    for j in range(whole, count):
        target[at + j] = target[at + j] + source[start + j] if adds else source[start + j]


@_inner
def _read(plan, source, member, first, times, k, channels, s, tile, stride, adds):
    """tile[r, :channels] = source[member, first + r, k], or += where `adds`.

    Rows past the end of the batch repeat its last one (rows of zeros could diverge where the true ones do not); nothing is
    added to them.
    """
    for r in range(min(plan.rows, plan.batch - first) if adds else plan.rows):
        row = min(first + r, plan.batch - 1)
        _copy(source, ((member * plan.batch + row) * times + k) * channels, s, tile + r * stride, channels, adds)


@_inner
def _write(plan, s, tile, stride, target, member, first, times, k, channels, adds):
    """target[member, first + r, k] = tile[r, :channels], or += where `adds`, for the rows within the batch."""
    for r in range(min(plan.rows, plan.batch - first)):
        at = ((member * plan.batch + first + r) * times + k) * channels
        _copy(s, tile + r * stride, target, at, channels, adds)


@_inner
def _set_column(s, start, stride, count):
    for r in range(count):
        s[start + r * stride] = 1


@_inner
def _clear(s, start, n):
    for q in range(start, start + n, _lanes(s)):
        _store(s, q, 0.0)


@_inner
def _batch_share(plan, item):
    """First row and end of an item's share of the batch, in whole tiles."""
    tiles = (plan.batch + plan.rows - 1) // plan.rows
    share = item % plan.per_member
    first, last = tiles * share // plan.per_member, tiles * (share + 1) // plan.per_member
    return first * plan.rows, min(plan.batch, last * plan.rows)


@_inner
def _input_times(plan):
    return plan.intervals + 1 if plan.source == SAMPLES else plan.intervals


# --- Runge-Kutta ------------------------------------------------------------------------------------------------------


@_inline
def _weighted(s, base, scale, terms, n, q, c0, c1, c2, c3, count):
    """scale base + sum_j c_j terms_j over j < count, one vector of each."""
    value = scale * _load(s, base + q)
    if count > 0:
        value = value + c0 * _load(s, terms + q)
    if count > 1:
        value = value + c1 * _load(s, terms + n + q)
    if count > 2:
        value = value + c2 * _load(s, terms + 2 * n + q)
    if count > 3:
        value = value + c3 * _load(s, terms + 3 * n + q)
    return value


@_inner
def _stages(plan, A, c, s, y, k, left, right, dt, step, W, w0):
    """Stage states y_i = h + dt sum_j A_ij k_j, with h = y_0 given, and rates k_i = sigma(W y_i + v(t_i)) of one step, for
    the drive v that runs linearly from `left` to `right` in an interval."""
    n = plan.rows * plan.width
    for i in range(plan.stages):
        y_i, k_i = y + i * n, k + i * n
        fraction = (step + c[i]) / plan.substeps
        a0, a1, a2 = dt * A[4 * i], dt * A[4 * i + 1], dt * A[4 * i + 2]
        for q in range(0, n, _lanes(s)):
            drive = (1.0 - fraction) * _load(s, left + q) + fraction * _load(s, right + q)
            if i > 0:
                _store(s, y_i + q, _weighted(s, y, 1.0, k, n, q, a0, a1, a2, 0.0, i))
            _store(s, k_i + q, drive)
        _apply(plan, W, w0, s, y_i, k_i)
        _activate(s, k_i, n, plan.activation)


@_inner
def _advance(plan, b, s, y, k, dt, following):
    """following = h + dt sum_i b_i k_i, with h = y_0."""
    n = plan.rows * plan.width
    b0, b1, b2, b3 = dt * b[0], dt * b[1], dt * b[2], dt * b[3]
    for q in range(0, n, _lanes(s)):
        _store(s, following + q, _weighted(s, y, 1.0, k, n, q, b0, b1, b2, b3, plan.stages))


@_inner
def _drive(plan, s, inputs, V, v0, x, x_member, first, k, out):
    """out <- [x, 1] V for the rows of a tile at time k, V = [U b]^T of shape (inputs, width)."""
    _read(plan, x, x_member, first, _input_times(plan), k, plan.d, s, inputs, plan.inputs, False)
    _clear(s, out, plan.rows * plan.width)
    _product(s, inputs, plan.inputs, 1, V, v0, plan.width, s, out, plan.width, plan.rows, plan.width, plan.d + 1)


@_inner
def _forward_item(plan, A, b, c, item, steps, W, V, x_left, x_right, h_all, s):
    stages, n, times = plan.stages, plan.rows * plan.width, plan.intervals + 1
    member = item // plan.per_member
    x_member, w0, v0 = member % plan.x_members, member * plan.weights, member * plan.inputs * plan.width
    left, right, y, k = 0, n, 2 * n, (2 + stages) * n
    inputs = k + stages * n
    _set_column(s, inputs + plan.d, plan.inputs, plan.rows)
    begin, end = _batch_share(plan, item)
    for first in range(begin, end, plan.rows):
        _read(plan, h_all, member, first, times, 0, plan.m, s, y, plan.width, False)
        if plan.source == SAMPLES:
            _drive(plan, s, inputs, V, v0, x_left, x_member, first, 0, right)
        for interval in range(plan.intervals):
            if plan.source == SAMPLES:
                left, right = right, left
                _drive(plan, s, inputs, V, v0, x_left, x_member, first, interval + 1, right)
            else:
                _drive(plan, s, inputs, V, v0, x_left, x_member, first, interval, left)
                _drive(plan, s, inputs, V, v0, x_right, x_member, first, interval, right)
            dt = steps[interval] / plan.substeps
            for step in range(plan.substeps):
                _stages(plan, A, c, s, y, k, left, right, dt, step, W, w0)
                _advance(plan, b, s, y, k, dt, y)
            _write(plan, s, y, plan.width, h_all, member, first, times, interval + 1, plan.m, False)


@_kernel
def runge_kutta(plan, tableau, steps, W, V, x_left, x_right, h_all):
    """Fills h_all (members, batch, intervals + 1, m) after its first time.

    Args:
        steps: lengths of the intervals.
        W: (members, m, width), W^T, or as in `_apply`.
        V: (members, inputs, width), [U b]^T.
        x_left, x_right: x at the ends of the intervals; SAMPLES: both are x at all times; HOLD: both the same.
    """
    entries = plan.rows * (plan.width * (2 + 2 * plan.stages) + plan.inputs)
    for item in prange(plan.items):
        buffer = np.zeros(entries + _MARGIN, h_all.dtype)
        _forward_item(
            plan,
            _pointer(tableau.A),
            _pointer(tableau.b),
            _pointer(tableau.c),
            np.int64(item),
            _pointer(steps),
            _pointer(W),
            _pointer(V),
            _pointer(x_left),
            _pointer(x_right),
            _pointer(h_all),
            _aligned_pointer(buffer),
        )
        buffer[0] = 0  # a last use: keeps it alive until here


@_inner
def _input_gradient(plan, s, g, inputs, g_inputs, U, x, member, first, k, g_V, gv0, g_x):
    """Adds what the adjoint g of the drive at time k gives to the gradient of V = [U b]^T and, where wanted, stores that
    of x."""
    times, width = _input_times(plan), plan.width
    _read(plan, x, member % plan.x_members, first, times, k, plan.d, s, inputs, plan.inputs, False)
    _product(s, inputs, 1, plan.inputs, s, g, width, g_V, gv0, width, plan.inputs, width, plan.rows)
    columns = plan.columns
    if columns > 0:
        _clear(s, g_inputs, plan.rows * columns)
        _product(s, g, width, 1, U, member * plan.m * columns, columns, s, g_inputs, columns, plan.rows, columns, plan.m)
        _write(plan, s, g_inputs, columns, g_x, member, first, times, k, plan.d, False)


@_inner
def _stage_adjoints(plan, A, b, c, s, g, k, g_y, g_z, left, right, dt, step, W, w0):
    """The adjoints of one step: g <- that of its h, from that of its result; g_z_i of all stages; and what it adds to those of
    the drive, `left` and `right`. That of k_i is dt (b_i g + sum_{j > i} A_ji g_y_j), that of z_i sigma' times it."""
    stages, n = plan.stages, plan.rows * plan.width
    lanes = _lanes(s)
    for i in range(stages - 1, -1, -1):
        g_z_i, g_y_i, k_i = g_z + i * n, g_y + i * n, k + i * n
        fraction = (step + c[i]) / plan.substeps
        count, b_i = stages - 1 - i, dt * b[i]
        a0, a1, a2 = dt * A[4 * i + 4 + i], dt * A[4 * i + 8 + i], dt * A[4 * i + 12 + i]
        for q in range(0, n, lanes):
            value = _weighted(s, g, b_i, g_y_i + n, n, q, a0, a1, a2, 0.0, count)
            value = _times_derivative(value, _load(s, k_i + q), plan.activation)
            of_left = _load(s, left + q) + (1.0 - fraction) * value
            of_right = _load(s, right + q) + fraction * value
            _store(s, g_z_i + q, value)
            _store(s, g_y_i + q, 0.0)
            _store(s, left + q, of_left)
            _store(s, right + q, of_right)
        _apply(plan, W, w0, s, g_z_i, g_y_i)
    for q in range(0, n, lanes):
        _store(s, g + q, _weighted(s, g, 1.0, g_y, n, q, 1.0, 1.0, 1.0, 1.0, stages))


@_inner
def _backward_item(
    plan, A, b, c, item, steps, W, W_adjoint, V, U, x_left, x_right, h_all, g_all, g_W, g_V, g_left, g_right, g_initial, s
):
    stages, n, times, width = plan.stages, plan.rows * plan.width, plan.intervals + 1, plan.width
    member = item // plan.per_member
    x_member, w0, v0 = member % plan.x_members, member * plan.weights, member * plan.inputs * width
    gw0, gv0 = item * plan.of_W, item * plan.inputs * width
    g, left, right, v_left, v_right, g_y = 0, n, 2 * n, 3 * n, 4 * n, 5 * n
    g_z = g_y + stages * n
    # All that the forward pass of one interval went through.
    y_all = g_z + stages * n
    k_all = y_all + plan.substeps * stages * n
    inputs = k_all + plan.substeps * stages * n
    g_inputs = inputs + plan.rows * plan.inputs
    _set_column(s, inputs + plan.d, plan.inputs, plan.rows)
    begin, end = _batch_share(plan, item)
    for first in range(begin, end, plan.rows):
        _clear(s, g, n)
        _clear(s, left, n)
        if plan.source == SAMPLES:
            _drive(plan, s, inputs, V, v0, x_left, x_member, first, plan.intervals, v_left)
        for interval in range(plan.intervals - 1, -1, -1):
            _read(plan, g_all, member, first, times, interval + 1, plan.m, s, g, width, True)
            # The adjoints of the drive at both ends; at a sample two intervals meet and add.
            right, left = left, right
            _clear(s, left, n)
            if plan.source == SAMPLES:
                v_right, v_left = v_left, v_right
            else:
                _clear(s, right, n)
                _drive(plan, s, inputs, V, v0, x_right, x_member, first, interval, v_right)
            _drive(plan, s, inputs, V, v0, x_left, x_member, first, interval, v_left)
            dt = steps[interval] / plan.substeps
            _read(plan, h_all, member, first, times, interval, plan.m, s, y_all, width, False)
            for step in range(plan.substeps):
                y, k = y_all + step * stages * n, k_all + step * stages * n
                _stages(plan, A, c, s, y, k, v_left, v_right, dt, step, W, w0)
                if step + 1 < plan.substeps:
                    _advance(plan, b, s, y, k, dt, y + stages * n)
            for step in range(plan.substeps - 1, -1, -1):
                y, k = y_all + step * stages * n, k_all + step * stages * n
                _stage_adjoints(plan, A, b, c, s, g, k, g_y, g_z, left, right, dt, step, W_adjoint, w0)
                if plan.of_W > 0:
                    _sum_outer(plan, g_W, gw0, s, g_z, y, stages * plan.rows)
            if plan.source == SAMPLES:
                _input_gradient(plan, s, right, inputs, g_inputs, U, x_left, member, first, interval + 1, g_V, gv0, g_left)
            elif plan.source == JUMPS:
                _input_gradient(plan, s, right, inputs, g_inputs, U, x_right, member, first, interval, g_V, gv0, g_right)
                _input_gradient(plan, s, left, inputs, g_inputs, U, x_left, member, first, interval, g_V, gv0, g_left)
            else:
                for q in range(0, n, _lanes(s)):
                    _store(s, left + q, _load(s, left + q) + _load(s, right + q))
                _input_gradient(plan, s, left, inputs, g_inputs, U, x_left, member, first, interval, g_V, gv0, g_left)
        if plan.source == SAMPLES:
            _input_gradient(plan, s, left, inputs, g_inputs, U, x_left, member, first, 0, g_V, gv0, g_left)
        _read(plan, g_all, member, first, times, 0, plan.m, s, g, width, True)
        _write(plan, s, g, width, g_initial, member, first, 1, 0, plan.m, False)


@_kernel
def runge_kutta_adjoint(
    plan, tableau, steps, W, W_adjoint, V, U, x_left, x_right, h_all, g_all, g_W, g_V, g_left, g_right, g_initial
):
    """The exact adjoint of `runge_kutta`, from the gradient g_all of its result h_all.

    Args:
        W_adjoint: what W^T is to W: (members, m, width), W itself, or as in `_apply`.
        U: (members, m, columns), d in whole vectors; empty where no gradient of x is wanted.

    Fills:
        g_W: per item, zeros before; empty where no gradient of W is wanted.
        g_V: (items, inputs, width), zeros before.
        g_left, g_right: like x_left and x_right but with all members; empty where not wanted.
        g_initial: (members, batch, m).
    """
    entries = plan.rows * (plan.width * (5 + 2 * plan.stages * (1 + plan.substeps)) + plan.inputs + plan.columns)
    for item in prange(plan.items):
        buffer = np.zeros(entries + _MARGIN, h_all.dtype)
        _backward_item(
            plan,
            _pointer(tableau.A),
            _pointer(tableau.b),
            _pointer(tableau.c),
            np.int64(item),
            _pointer(steps),
            _pointer(W),
            _pointer(W_adjoint),
            _pointer(V),
            _pointer(U),
            _pointer(x_left),
            _pointer(x_right),
            _pointer(h_all),
            _pointer(g_all),
            _pointer(g_W),
            _pointer(g_V),
            _pointer(g_left),
            _pointer(g_right),
            _pointer(g_initial),
            _aligned_pointer(buffer),
        )
        buffer[0] = 0  # a last use: keeps it alive until here


# --- affine scans -----------------------------------------------------------------------------------------------------


@_inner
def _read_inputs(plan, x_left, x_right, x_member, first, k, s, tile):
    """tile <- [x left, x right] of interval k."""
    times = _input_times(plan)
    following = k + 1 if plan.source == SAMPLES else k
    _read(plan, x_left, x_member, first, times, k, plan.d, s, tile, plan.inputs, False)
    _read(plan, x_right, x_member, first, times, following, plan.d, s, tile + plan.d, plan.inputs, False)


@_inner
def _scan_item(plan, item, W, V, x_left, x_right, h_all, s):
    n, width, times = plan.rows * plan.width, plan.width, plan.intervals + 1
    member = item // plan.per_member
    x_member = member % plan.x_members
    v_size = plan.inputs * width
    at = member * plan.intervals if plan.changes else member
    h, following, inputs = 0, n, 2 * n
    _set_column(s, inputs + 2 * plan.d, plan.inputs, plan.rows)
    begin, end = _batch_share(plan, item)
    for first in range(begin, end, plan.rows):
        _read(plan, h_all, member, first, times, 0, plan.m, s, h, width, False)
        for k in range(plan.intervals):
            now = at + k if plan.changes else at
            _read_inputs(plan, x_left, x_right, x_member, first, k, s, inputs)
            _clear(s, following, n)
            _product(s, inputs, plan.inputs, 1, V, now * v_size, width, s, following, width, plan.rows, width, 2 * plan.d + 1)
            _apply(plan, W, now * plan.weights, s, h, following)
            h, following = following, h
            _write(plan, s, h, width, h_all, member, first, times, k + 1, plan.m, False)


@_kernel
def scan(plan, W, V, x_left, x_right, h_all):
    """h_{k+1} = W h_k + G [x left, x right, 1]: fills h_all (members, batch, intervals + 1, m) after its first time.

    Args:
        W: (members, intervals or 1, m, width), W^T, or as in `_apply`.
        V: (members, intervals or 1, inputs, width), G^T.
    """
    entries = plan.rows * (2 * plan.width + plan.inputs)
    for item in prange(plan.items):
        buffer = np.zeros(entries + _MARGIN, h_all.dtype)
        _scan_item(
            plan,
            np.int64(item),
            _pointer(W),
            _pointer(V),
            _pointer(x_left),
            _pointer(x_right),
            _pointer(h_all),
            _aligned_pointer(buffer),
        )
        buffer[0] = 0  # a last use: keeps it alive until here


@_inner
def _scan_adjoint_item(plan, item, W, U, x_left, x_right, h_all, g_all, g_W, g_V, g_left, g_right, g_initial, slots, s):
    n, width, times, columns = plan.rows * plan.width, plan.width, plan.intervals + 1, plan.columns
    member = item // plan.per_member
    x_member, x_times = member % plan.x_members, _input_times(plan)
    u_size, v_size, tile = plan.m * columns, plan.inputs * width, plan.rows * plan.inputs
    at = member * plan.intervals if plan.changes else member
    sums = item * plan.intervals if plan.changes else item
    # The adjoints, states and inputs of the last `slots` steps wait for their products to be summed together.
    g_slots, h_slots, inputs, spare = 0, slots * n, 2 * slots * n, 2 * slots * n + slots * tile
    g_inputs = spare + n
    _set_column(s, inputs + 2 * plan.d, plan.inputs, slots * plan.rows)
    begin, end = _batch_share(plan, item)
    for first in range(begin, end, plan.rows):
        _clear(s, spare, n)
        used = 0
        for k in range(plan.intervals - 1, -1, -1):
            now = at + k if plan.changes else at
            g = g_slots + used * n
            _copy(s, spare, s, g, n, False)
            _read(plan, g_all, member, first, times, k + 1, plan.m, s, g, width, True)
            _read(plan, h_all, member, first, times, k, plan.m, s, h_slots + used * n, width, False)
            _read_inputs(plan, x_left, x_right, x_member, first, k, s, inputs + used * tile)
            used += 1
            if used == slots or k == 0:
                total = sums + k if plan.changes else sums
                if plan.of_W > 0:
                    _sum_outer(plan, g_W, total * plan.of_W, s, g_slots, h_slots, used * plan.rows)
                _product(
                    s, inputs, 1, plan.inputs, s, g_slots, width, g_V, total * v_size, width, plan.inputs, width, used * plan.rows
                )
                used = 0
            if columns > 0:
                _clear(s, g_inputs, plan.rows * columns)
                _product(s, g, width, 1, U, now * u_size, columns, s, g_inputs, columns, plan.rows, columns, plan.m)
                if plan.source == SAMPLES:
                    # The sample after this interval already holds what the next interval gives, save for the last one.
                    adds = k + 1 < plan.intervals
                    _write(plan, s, g_inputs + plan.d, columns, g_left, member, first, x_times, k + 1, plan.d, adds)
                    _write(plan, s, g_inputs, columns, g_left, member, first, x_times, k, plan.d, False)
                else:
                    _write(plan, s, g_inputs, columns, g_left, member, first, x_times, k, plan.d, False)
                    adds = plan.source == HOLD
                    _write(plan, s, g_inputs + plan.d, columns, g_right, member, first, x_times, k, plan.d, adds)
            _clear(s, spare, n)
            _apply(plan, W, now * plan.weights, s, g, spare)
        _read(plan, g_all, member, first, times, 0, plan.m, s, spare, width, True)
        _write(plan, s, spare, width, g_initial, member, first, 1, 0, plan.m, False)


@_kernel
def scan_adjoint(plan, W, U, x_left, x_right, h_all, g_all, g_W, g_V, g_left, g_right, g_initial):
    """The exact adjoint of `scan`, from the gradient g_all of its result h_all.

    Args:
        W: what W^T is to W: (members, intervals or 1, m, width), W itself, or as in `_apply`.
        U: (members, intervals or 1, m, columns), G without its last column; empty where no gradient of x is wanted.

    Fills:
        g_W, g_V: per item (and interval, where the matrices change), zeros before, as in `runge_kutta_adjoint`.
        g_left, g_right: like x_left and x_right but with all members; the same unless JUMPS; empty where not wanted.
        g_initial: (members, batch, m).
    """
    slots = 1 if plan.changes else (SUM_ROWS + plan.rows - 1) // plan.rows
    entries = plan.rows * (slots * (2 * plan.width + plan.inputs) + plan.width + plan.columns)
    for item in prange(plan.items):
        buffer = np.zeros(entries + _MARGIN, h_all.dtype)
        _scan_adjoint_item(
            plan,
            np.int64(item),
            _pointer(W),
            _pointer(U),
            _pointer(x_left),
            _pointer(x_right),
            _pointer(h_all),
            _pointer(g_all),
            _pointer(g_W),
            _pointer(g_V),
            _pointer(g_left),
            _pointer(g_right),
            _pointer(g_initial),
            slots,
            _aligned_pointer(buffer),
        )
        buffer[0] = 0  # a last use: keeps it alive until here
