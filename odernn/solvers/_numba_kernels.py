"""CPU kernels: Runge-Kutta steps with their discrete adjoint, and affine scans, compiled by numba.

A *tile* is some rows of the batch of one ensemble member. It runs through all times on one core, its states in small
row-major buffers (rows, width), where width is m rounded up to whole vectors; the weights lie in memory the same way, so
every matrix product is `_product`, a register-blocked loop over vectors along the state. Arrays come flat, in C order. An
*item* is a share of the tiles of one member: the unit of parallel work, with sums of weight gradients of its own.

All kernel code is in this one file because numba's disk cache watches only the file of the function it caches.
"""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

from typing import Any, NamedTuple

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic, overload

# Register blocking of `_product`: ROWS x 2 accumulators, two vectors and a broadcast fit 32 (AVX-512) or 16 registers.
_WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
VECTOR_BYTES = 64 if _WIDE else 32
ROWS = 8 if _WIDE else 4
# Entries of one tile buffer: a dozen such buffers and W stay in the first two caches.
TILE_ENTRIES = 1024
_MOST_STAGES = 4
# Rows of a product that sums a weight gradient: shorter sums spend their time on loading and storing the result.
_SUM_ROWS = 64

# Activations, structures of W, and where the input comes from (`source`), as integers.
LINEAR, HARDTANH, TANH, RELU, SIGMOID = range(5)
DENSE, DIAGONAL, PAIRS = range(3)
SAMPLES, HOLD, JUMPS = range(3)

# Only contraction to fused multiply-adds: nnan and ninf would let a diverged state come out as a plausible number.
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract", "nsz"}, "error_model": "numpy"}
_inner = njit(**_OPTIONS)
_kernel = njit(**_OPTIONS, cache=True, parallel=True)


class Plan(NamedTuple):
    """The sizes of one solve.

    Args:
        items, per_member: shares of work in all, and for each member of the ensemble.
        rows: of a tile, a multiple of ROWS.
        batch, intervals, m, d: as everywhere.
        width: of a tile: m in whole vectors.
        inputs: width of a tile of the inputs [x, 1], a multiple of ROWS (for `scan`: [x, x, 1], its left and right end).
        x_members: leading axis of x: the members, or 1 for an x that all share.
        weights: entries of W per member (and interval).
        structure, source, activation: the integers above.
        substeps: Runge-Kutta steps in an interval.
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
    x_members: int
    weights: int
    structure: int
    source: int
    activation: int
    substeps: int


class Tableau(NamedTuple):
    """Butcher tableau, explicit: A (stages, stages), b and c (stages,)."""

    A: np.ndarray
    b: np.ndarray
    c: np.ndarray


# --- products and elementwise pieces ----------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def _block(typingctx, a, a0, a_row, a_col, b, b0, b_row, c, c0, c_row, depth, vectors):
    """C[r, :] += sum_k A[r, k] B[k, :] for ROWS rows r and `vectors` vectors of columns, accumulated in registers.

    A[r, k] = a[a0 + r a_row + k a_col], and so on.
    """
    count = vectors.literal_value
    signature = types.void(a, a0, a_row, a_col, b, b0, b_row, c, c0, c_row, depth, vectors)

    def generate(context, builder, signature, args):
        i32, i64 = ir.IntType(32), ir.IntType(64)
        size = context.get_abi_sizeof(context.get_value_type(signature.args[0].dtype))
        lanes = VECTOR_BYTES // size
        vector = ir.VectorType(context.get_value_type(signature.args[0].dtype), lanes)
        undefined, splat = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(i32, lanes), [0] * lanes)
        A, B, C = (context.make_array(signature.args[k])(context, builder, args[k]).data for k in (0, 4, 7))
        a0, a_row, a_col, b0, b_row, c0, c_row, depth = (
            context.cast(builder, args[k], signature.args[k], types.int64) for k in (1, 2, 3, 5, 6, 8, 9, 10)
        )

        def pointer(base, offset, v):
            return builder.bitcast(builder.gep(base, [builder.add(offset, i64(v * lanes))]), vector.as_pointer())

        cells = [(r, v) for r in range(ROWS) for v in range(count)]
        c_at = {(r, v): pointer(C, builder.add(c0, builder.mul(c_row, i64(r))), v) for r, v in cells}
        a_at = [builder.add(a0, builder.mul(a_row, i64(r))) for r in range(ROWS)]
        initial = {cell: builder.load(c_at[cell], align=size) for cell in cells}

        entry, loop, done = builder.block, builder.append_basic_block("depth"), builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">", depth, i64(0)), loop, done)
        builder.position_at_end(loop)
        k = builder.phi(i64)
        sums = {cell: builder.phi(vector) for cell in cells}
        b_k = [builder.load(pointer(B, builder.add(b0, builder.mul(k, b_row)), v), align=size) for v in range(count)]
        column = builder.mul(k, a_col)
        a_k = []
        for r in range(ROWS):
            scalar = builder.load(builder.gep(A, [builder.add(a_at[r], column)]))
            a_k.append(builder.shuffle_vector(builder.insert_element(undefined, scalar, i32(0)), undefined, splat))
        contract = ("contract",)
        updated = {(r, v): builder.fadd(builder.fmul(a_k[r], b_k[v], contract), sums[r, v], contract) for r, v in cells}
        following = builder.add(k, i64(1))
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, done)
        k.add_incoming(i64(0), entry)
        k.add_incoming(following, loop)
        builder.position_at_end(done)
        results = {cell: builder.phi(vector) for cell in cells}
        for cell in cells:
            for phi in (sums[cell], results[cell]):
                phi.add_incoming(initial[cell], entry)
                phi.add_incoming(updated[cell], loop)
        for cell in cells:
            builder.store(results[cell], c_at[cell], align=size)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _as_bits(typingctx, value):
    """The bits of a float64 as int64."""

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def _from_bits(typingctx, value):
    """The float64 of these bits."""

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), generate


@_inner
def _product(a, a0, a_row, a_col, b, b0, b_row, c, c0, c_row, rows, width, depth):
    """C += A B for A (rows, depth), B (depth, width), C (rows, width); rows a multiple of ROWS, width of whole vectors."""
    lanes = VECTOR_BYTES // a.itemsize
    for r in range(0, rows, ROWS):
        v = 0
        while v + 2 * lanes <= width:
            _block(a, a0 + r * a_row, a_row, a_col, b, b0 + v, b_row, c, c0 + r * c_row + v, c_row, depth, 2)
            v += 2 * lanes
        if v < width:
            _block(a, a0 + r * a_row, a_row, a_col, b, b0 + v, b_row, c, c0 + r * c_row + v, c_row, depth, 1)


@_inner
def _combine(out, base, scale, terms, coefficients, count):
    """out = scale base + sum_j coefficients[j] terms[j], j < count <= 4, with terms[j] = terms[j n : (j + 1) n]. `out` must
    not be one of the others: where memory overlaps the loops do not vectorise."""
    n = out.size
    if count == 0:
        for q in range(n):
            out[q] = scale * base[q]
        return
    c0, k0 = coefficients[0], terms[:n]
    if count == 1:
        for q in range(n):
            out[q] = scale * base[q] + c0 * k0[q]
        return
    c1, k1 = coefficients[1], terms[n : 2 * n]
    if count == 2:
        for q in range(n):
            out[q] = scale * base[q] + c0 * k0[q] + c1 * k1[q]
        return
    c2, k2 = coefficients[2], terms[2 * n : 3 * n]
    if count == 3:
        for q in range(n):
            out[q] = scale * base[q] + c0 * k0[q] + c1 * k1[q] + c2 * k2[q]
        return
    c3, k3 = coefficients[3], terms[3 * n : 4 * n]
    for q in range(n):
        out[q] = scale * base[q] + c0 * k0[q] + c1 * k1[q] + c2 * k2[q] + c3 * k3[q]


@_inner
def _increment(out, scale, term):
    """out += scale term."""
    for q in range(out.size):
        out[q] += scale * term[q]


# Rational approximation of tanh on [-_FAR, _FAR], beyond which float32 rounds it to 1. Source: the coefficients of Eigen's
# generic_fast_tanh_float; error below 4 units in the last place.
_FAR = np.float32(7.90531110763549805)
_P1, _P3 = np.float32(4.89352455891786e-03), np.float32(6.37261928875436e-04)
_P5, _P7 = np.float32(1.48572235717979e-05), np.float32(5.12229709037114e-08)
_P9, _P11 = np.float32(-8.60467152213735e-11), np.float32(2.00018790482477e-13)
_P13 = np.float32(-2.76076847742355e-16)
_Q0, _Q2 = np.float32(4.89352518554385e-03), np.float32(2.26843463243900e-03)
_Q4, _Q6 = np.float32(1.18534705686654e-04), np.float32(1.19825839466702e-06)
_HALF = np.float32(0.5)

# float64: x + x z P(z) / Q(z), z = x^2, for |x| < _NEAR, else 1 - 2 / (e^{2x} + 1) with
# e^r = (B + r A) / (B - r A), A and B polynomials in r^2. Source: the coefficients of S. Moshier's Cephes, tanh.c and exp.c.
_NEAR = 0.625
_P = (-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3)
_Q = (1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3)
_A = (1.26177193074810590878e-4, 3.02994407707441961300e-2, 9.99999999999999999910e-1)
_B = (3.00198505138664455042e-6, 2.52448340349684104192e-3, 2.27265548208155028766e-1, 2.00000000000000000005e0)
_ROUNDS_TO_ONE = 20.0  # tanh(20) = 1 - 8e-18
_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.4426950408889634, 6.93145751953125e-1, 1.42860682030941723212e-6
_ROUNDER = 6755399441055744.0  # 1.5 * 2^52: x + it - it rounds x to an integer, whose bits end the sum's
_EXPONENT_BIAS, _EXPONENT_SHIFT = 1023, 52


def _tanh(x: float) -> float:
    """tanh in the precision of its argument, in straight-line code that vectorises; NaN stays NaN."""
    raise NotImplementedError("for compiled code only")


@overload(_tanh, jit_options=_OPTIONS)
def _overload_tanh(x):
    if x == types.float32:

        def single(x):
            x = _FAR if x > _FAR else x
            x = -_FAR if x < -_FAR else x
            z = x * x
            p = x * (_P1 + z * (_P3 + z * (_P5 + z * (_P7 + z * (_P9 + z * (_P11 + z * _P13))))))
            return p / (_Q0 + z * (_Q2 + z * (_Q4 + z * _Q6)))

        return single

    def double(x):
        size = abs(x)
        size = _ROUNDS_TO_ONE if size > _ROUNDS_TO_ONE else size
        z = size * size
        near_top = size * z * (_P[2] + z * (_P[1] + z * _P[0]))
        near_bottom = _Q[2] + z * (_Q[1] + z * (_Q[0] + z))
        y = 2 * size
        shifted = y * _LOG2_E + _ROUNDER
        n = shifted - _ROUNDER
        r = y - n * _LN2_HIGH - n * _LN2_LOW
        rr = r * r
        odd = r * (_A[2] + rr * (_A[1] + rr * _A[0]))
        even = _B[3] + rr * (_B[2] + rr * (_B[1] + rr * _B[0]))
        power = _from_bits((_as_bits(shifted) + _EXPONENT_BIAS) << _EXPONENT_SHIFT)  # 2^n
        far_bottom = even - odd
        near = size < _NEAR
        quotient = (near_top if near else -2 * far_bottom) / (near_bottom if near else power * (even + odd) + far_bottom)
        value = (size if near else 1.0) + quotient
        return -value if x < 0 else value

    return double


@_inner
def _activate(z, activation):
    """z <- sigma(z)."""
    half = z.dtype.type(0.5)
    one = z.dtype.type(1)
    zero = z.dtype.type(0)
    if activation == TANH:
        for q in range(z.size):
            z[q] = _tanh(z[q])
    elif activation == SIGMOID:
        for q in range(z.size):
            z[q] = half + half * _tanh(half * z[q])
    elif activation == RELU:
        for q in range(z.size):
            z[q] = zero if z[q] < zero else z[q]
    elif activation == HARDTANH:
        for q in range(z.size):
            value = one if z[q] > one else z[q]
            z[q] = -one if value < -one else value


@_inner
def _times_derivative(g, k, activation):
    """g <- g sigma'(z), from k = sigma(z)."""
    one = g.dtype.type(1)
    zero = g.dtype.type(0)
    if activation == TANH:
        for q in range(g.size):
            g[q] *= one - k[q] * k[q]
    elif activation == SIGMOID:
        for q in range(g.size):
            g[q] *= k[q] * (one - k[q])
    elif activation == RELU:
        for q in range(g.size):
            g[q] = zero if k[q] <= zero else g[q]
    elif activation == HARDTANH:
        for q in range(g.size):
            g[q] = zero if abs(k[q]) >= one else g[q]


@_inner
def _apply(structure, W, w0, y, z, rows, width, m):
    """z += y W for the row vectors of a tile. W is (m, width), or its diagonal (1, width), or for pairs (2, width): W[0, j]
    multiplies y[j] and W[1, j] the other entry of the pair."""
    if structure == DENSE:
        _product(y, 0, width, 1, W, w0, width, z, 0, width, rows, width, m)
        return
    own = W[w0 : w0 + width]
    for r in range(rows):
        y_r, z_r = y[r * width : (r + 1) * width], z[r * width : (r + 1) * width]
        for j in range(width):
            z_r[j] += own[j] * y_r[j]
        if structure == PAIRS:
            other = W[w0 + width : w0 + 2 * width]
            for j in range(0, m, 2):
                z_r[j] += other[j] * y_r[j + 1]
                z_r[j + 1] += other[j + 1] * y_r[j]


@_inner
def _sum_outer(structure, total, t0, g, y, rows, width, m):
    """The gradient of W in z = W y, summed over rows: (width, width), or the entries that `_apply` takes."""
    if structure == DENSE:
        _product(g, 0, 1, width, y, 0, width, total, t0, width, width, width, rows)
        return
    own = total[t0 : t0 + width]
    for r in range(rows):
        y_r, g_r = y[r * width : (r + 1) * width], g[r * width : (r + 1) * width]
        for j in range(width):
            own[j] += g_r[j] * y_r[j]
        if structure == PAIRS:
            other = total[t0 + width : t0 + 2 * width]
            for j in range(0, m, 2):
                other[j] += g_r[j] * y_r[j + 1]
                other[j + 1] += g_r[j + 1] * y_r[j]


@_inner
def _scratch(entries, like):
    """Zeros that start on a cache line, so that no vector straddles two."""
    line = 64
    buffer = np.zeros(entries + line // like.itemsize, like.dtype)
    start = (-buffer.ctypes.data % line) // like.itemsize
    return buffer[start : start + entries]


@_inner
def _row(plan, member, row, times, k, channels):
    """Where [member, row, k] starts in an array (members, batch, times, channels). Rows of a tile past the end of the batch
    repeat its last one: rows of zeros could diverge where the true ones do not."""
    return ((member * plan.batch + min(row, plan.batch - 1)) * times + k) * channels


@_inner
def _load(plan, tile, source, member, first, times, k, channels, stride, offset):
    """tile[r, offset : offset + channels] <- source[member, first + r, k]."""
    for r in range(plan.rows):
        at = _row(plan, member, first + r, times, k, channels)
        row, values = tile[r * stride + offset : r * stride + offset + channels], source[at : at + channels]
        for j in range(channels):
            row[j] = values[j]


@_inner
def _store(plan, tile, target, member, first, times, k, channels, stride, offset):
    """target[member, first + r, k] <- tile[r, offset : offset + channels], for the rows within the batch."""
    for r in range(min(plan.rows, plan.batch - first)):
        at = _row(plan, member, first + r, times, k, channels)
        row, values = tile[r * stride + offset : r * stride + offset + channels], target[at : at + channels]
        for j in range(channels):
            values[j] = row[j]


@_inner
def _add(plan, tile, source, member, first, times, k, channels, stride):
    """tile[r, :channels] += source[member, first + r, k], for the rows within the batch."""
    for r in range(min(plan.rows, plan.batch - first)):
        at = _row(plan, member, first + r, times, k, channels)
        row, values = tile[r * stride : r * stride + channels], source[at : at + channels]
        for j in range(channels):
            row[j] += values[j]


@_inner
def _accumulate(plan, tile, target, member, first, times, k, channels, stride, offset):
    """target[member, first + r, k] += tile[r, offset : offset + channels], for the rows within the batch."""
    for r in range(min(plan.rows, plan.batch - first)):
        at = _row(plan, member, first + r, times, k, channels)
        row, values = tile[r * stride + offset : r * stride + offset + channels], target[at : at + channels]
        for j in range(channels):
            values[j] += row[j]


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


@_inner
def _stages(plan, tableau, h, y, k, left, right, dt, step, W, w0, coefficients):
    """Stage states y_i = h + dt sum_j A_ij k_j and rates k_i = sigma(W y_i + v(t_i)) of one step, for the drive v that runs
    linearly from `left` to `right` in an interval."""
    n = h.size
    one = h.dtype.type(1)
    for i in range(tableau.c.size):
        y_i, k_i = y[i * n : (i + 1) * n], k[i * n : (i + 1) * n]
        for j in range(i):
            coefficients[j] = dt * tableau.A[i, j]
        _combine(y_i, h, one, k, coefficients, i)
        fraction = (step + tableau.c[i]) / plan.substeps
        coefficients[0] = fraction
        _combine(k_i, left, h.dtype.type(1 - fraction), right, coefficients, 1)
        _apply(plan.structure, W, w0, y_i, k_i, plan.rows, plan.width, plan.m)
        _activate(k_i, plan.activation)


@_inner
def _advance(h, following, k, tableau, dt, coefficients):
    """following = h + dt sum_i b_i k_i."""
    stages = tableau.b.size
    for i in range(stages):
        coefficients[i] = dt * tableau.b[i]
    _combine(following, h, h.dtype.type(1), k, coefficients, stages)


@_inner
def _drive(plan, out, inputs, V, v0, source, member, first, k):
    """out <- [x, 1] V for the rows of a tile at time k, V = [U b]^T of shape (inputs, width)."""
    _load(plan, inputs, source, member, first, _input_times(plan), k, plan.d, plan.inputs, 0)
    out[:] = 0
    _product(inputs, 0, plan.inputs, 1, V, v0, plan.width, out, 0, plan.width, plan.rows, plan.width, plan.d + 1)


@_inner
def _forward_item(plan, tableau, item, steps, W, V, x_left, x_right, h_all):
    stages, n, times = tableau.c.size, plan.rows * plan.width, plan.intervals + 1
    member = item // plan.per_member
    x_member, w0, v0 = member % plan.x_members, member * plan.weights, member * plan.inputs * plan.width
    scratch = _scratch(n * (4 + 2 * stages) + plan.rows * plan.inputs, h_all)
    h, spare, left, right = scratch[:n], scratch[n : 2 * n], scratch[2 * n : 3 * n], scratch[3 * n : 4 * n]
    scratch = scratch[4 * n :]
    y, k, inputs = scratch[: stages * n], scratch[stages * n : 2 * stages * n], scratch[2 * stages * n :]
    inputs[plan.d :: plan.inputs] = 1
    coefficients = np.zeros(_MOST_STAGES, h_all.dtype)
    begin, end = _batch_share(plan, item)
    for first in range(begin, end, plan.rows):
        _load(plan, h, h_all, member, first, times, 0, plan.m, plan.width, 0)
        if plan.source == SAMPLES:
            _drive(plan, right, inputs, V, v0, x_left, x_member, first, 0)
        for interval in range(plan.intervals):
            if plan.source == SAMPLES:
                left, right = right, left
                _drive(plan, right, inputs, V, v0, x_left, x_member, first, interval + 1)
            else:
                _drive(plan, left, inputs, V, v0, x_left, x_member, first, interval)
                _drive(plan, right, inputs, V, v0, x_right, x_member, first, interval)
            dt = steps[interval] / plan.substeps
            for step in range(plan.substeps):
                _stages(plan, tableau, h, y, k, left, right, dt, step, W, w0, coefficients)
                _advance(h, spare, k, tableau, dt, coefficients)
                h, spare = spare, h
            _store(plan, h, h_all, member, first, times, interval + 1, plan.m, plan.width, 0)


@_kernel
def runge_kutta(plan, tableau, steps, W, V, x_left, x_right, h_all):
    """Fills h_all (members, batch, intervals + 1, m) after its first time.

    Args:
        steps: lengths of the intervals.
        W: (members, m, width), W^T, or as in `_apply`.
        V: (members, inputs, width), [U b]^T.
        x_left, x_right: x at the ends of the intervals; SAMPLES: both are x at all times; HOLD: both the same.
    """
    for item in prange(plan.items):
        _forward_item(plan, tableau, item, steps, W, V, x_left, x_right, h_all)


@_inner
def _input_gradient(plan, g, inputs, g_inputs, U, u0, source, member, x_member, first, k, g_V, gv0, g_x):
    """Adds what the adjoint g of the drive at time k gives to the gradients of V = [U b]^T and, unless g_x is empty, of x."""
    times = _input_times(plan)
    _load(plan, inputs, source, x_member, first, times, k, plan.d, plan.inputs, 0)
    _product(inputs, 0, 1, plan.inputs, g, 0, plan.width, g_V, gv0, plan.width, plan.inputs, plan.width, plan.rows)
    if g_x.size > 0:
        columns = U.size // (plan.items // plan.per_member * plan.m)
        g_inputs[:] = 0
        _product(g, 0, plan.width, 1, U, u0, columns, g_inputs, 0, columns, plan.rows, columns, plan.m)
        _store(plan, g_inputs, g_x, member, first, times, k, plan.d, columns, 0)


@_inner
def _backward_item(
    plan, tableau, item, steps, W, W_adjoint, V, U, x_left, x_right, h_all, g_all, g_W, g_V, g_left, g_right, g_initial
):
    stages, n, times, width = tableau.c.size, plan.rows * plan.width, plan.intervals + 1, plan.width
    member = item // plan.per_member
    x_member, w0, v0 = member % plan.x_members, member * plan.weights, member * plan.inputs * width
    columns = U.size // (plan.items // plan.per_member * plan.m)
    u0, gv0 = member * plan.m * columns, item * plan.inputs * width
    gw0 = item * (g_W.size // plan.items)
    scratch = _scratch(n * (6 + 2 * stages + plan.substeps * (1 + 2 * stages)) + plan.rows * (plan.inputs + columns), h_all)
    g, left, right, v_left = scratch[:n], scratch[n : 2 * n], scratch[2 * n : 3 * n], scratch[3 * n : 4 * n]
    v_right, spare, scratch = scratch[4 * n : 5 * n], scratch[5 * n : 6 * n], scratch[6 * n :]
    g_y, g_z, scratch = scratch[: stages * n], scratch[stages * n : 2 * stages * n], scratch[2 * stages * n :]
    # Everything the forward pass of one interval went through.
    h, scratch = scratch[: plan.substeps * n], scratch[plan.substeps * n :]
    y, scratch = scratch[: plan.substeps * stages * n], scratch[plan.substeps * stages * n :]
    k, scratch = scratch[: plan.substeps * stages * n], scratch[plan.substeps * stages * n :]
    inputs, g_inputs = scratch[: plan.rows * plan.inputs], scratch[plan.rows * plan.inputs :]
    inputs[plan.d :: plan.inputs] = 1
    coefficients = np.zeros(_MOST_STAGES, h_all.dtype)
    one = h_all.dtype.type(1)
    begin, end = _batch_share(plan, item)
    for first in range(begin, end, plan.rows):
        g[:] = 0
        left[:] = 0
        if plan.source == SAMPLES:
            _drive(plan, v_left, inputs, V, v0, x_left, x_member, first, plan.intervals)
        for interval in range(plan.intervals - 1, -1, -1):
            _add(plan, g, g_all, member, first, times, interval + 1, plan.m, width)
            # The adjoints of the drive at both ends; at a sample two intervals meet and add.
            right, left = left, right
            left[:] = 0
            if plan.source == SAMPLES:
                v_right, v_left = v_left, v_right
            else:
                right[:] = 0
                _drive(plan, v_right, inputs, V, v0, x_right, x_member, first, interval)
            _drive(plan, v_left, inputs, V, v0, x_left, x_member, first, interval)
            dt = steps[interval] / plan.substeps
            _load(plan, h, h_all, member, first, times, interval, plan.m, width, 0)
            for step in range(plan.substeps):
                at, of = step * n, step * stages * n
                h_s, y_s, k_s = h[at : at + n], y[of : of + stages * n], k[of : of + stages * n]
                _stages(plan, tableau, h_s, y_s, k_s, v_left, v_right, dt, step, W, w0, coefficients)
                if step + 1 < plan.substeps:
                    _advance(h_s, h[at + n : at + 2 * n], k_s, tableau, dt, coefficients)
            for step in range(plan.substeps - 1, -1, -1):
                of = step * stages * n
                for i in range(stages - 1, -1, -1):
                    # The adjoint of k_i is dt (b_i g + sum_{j > i} A_ji g_y_j), that of z_i is sigma' times it.
                    g_z_i, g_y_i = g_z[i * n : (i + 1) * n], g_y[i * n : (i + 1) * n]
                    for j in range(i + 1, stages):
                        coefficients[j - i - 1] = dt * tableau.A[j, i]
                    _combine(g_z_i, g, h_all.dtype.type(dt * tableau.b[i]), g_y[(i + 1) * n :], coefficients, stages - i - 1)
                    _times_derivative(g_z_i, k[of + i * n : of + (i + 1) * n], plan.activation)
                    g_y_i[:] = 0
                    _apply(plan.structure, W_adjoint, w0, g_z_i, g_y_i, plan.rows, width, plan.m)
                    fraction = (step + tableau.c[i]) / plan.substeps
                    _increment(left, h_all.dtype.type(1 - fraction), g_z_i)
                    _increment(right, h_all.dtype.type(fraction), g_z_i)
                coefficients[:] = 1
                _combine(spare, g, one, g_y, coefficients, stages)
                g, spare = spare, g
                if g_W.size > 0:
                    _sum_outer(plan.structure, g_W, gw0, g_z, y[of : of + stages * n], stages * plan.rows, width, plan.m)
            if plan.source == HOLD:
                _increment(left, one, right)
            elif plan.source == SAMPLES:
                _input_gradient(
                    plan, right, inputs, g_inputs, U, u0, x_left, member, x_member, first, interval + 1, g_V, gv0, g_left
                )
            else:
                _input_gradient(
                    plan, right, inputs, g_inputs, U, u0, x_right, member, x_member, first, interval, g_V, gv0, g_right
                )
            if plan.source != SAMPLES:
                _input_gradient(plan, left, inputs, g_inputs, U, u0, x_left, member, x_member, first, interval, g_V, gv0, g_left)
        if plan.source == SAMPLES:
            _input_gradient(plan, left, inputs, g_inputs, U, u0, x_left, member, x_member, first, 0, g_V, gv0, g_left)
        _add(plan, g, g_all, member, first, times, 0, plan.m, width)
        _store(plan, g, g_initial, member, first, 1, 0, plan.m, width, 0)


@_kernel
def runge_kutta_adjoint(
    plan, tableau, steps, W, W_adjoint, V, U, x_left, x_right, h_all, g_all, g_W, g_V, g_left, g_right, g_initial
):
    """The exact adjoint of `runge_kutta`, from the gradient g_all of its result h_all.

    Args:
        W_adjoint: what W^T is to W: (members, m, width), W itself, or as in `_apply`.
        U: (members, m, columns), d in whole vectors.

    Fills:
        g_W: per item, zeros before; empty where no gradient of W is wanted.
        g_V: (items, inputs, width), zeros before.
        g_left, g_right: like x_left and x_right but with all members, or empty.
        g_initial: (members, batch, m).
    """
    for item in prange(plan.items):
        _backward_item(
            plan, tableau, item, steps, W, W_adjoint, V, U, x_left, x_right, h_all, g_all, g_W, g_V, g_left, g_right, g_initial
        )
