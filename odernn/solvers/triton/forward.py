# mypy: disable-error-code="no-untyped-def"
"""Runge-Kutta steps along a path."""

from __future__ import annotations

import triton
import triton.language as tl

from ..numba.tanh import FAR, P1, P2, P3, P4, Q1, Q2, Q3, Q4
from .products import parts_of, product

CODES = {"linear": 0, "hardtanh": 1, "tanh": 2, "relu": 3, "sigmoid": 4}
_HARDTANH, _TANH, _RELU, _SIGMOID = (tl.constexpr(CODES[name]) for name in ("hardtanh", "tanh", "relu", "sigmoid"))
_FAR, _P1, _P2, _P3, _P4, _Q1, _Q2, _Q3, _Q4 = (tl.constexpr(value) for value in (FAR, P1, P2, P3, P4, Q1, Q2, Q3, Q4))


@triton.jit
def _tanh(x):
    # Its coefficients and error: `odernn.solvers.numba.tanh`. NaN stays NaN.
    x = tl.where(x > _FAR, _FAR, tl.where(x < -_FAR, -_FAR, x))
    z = x * x
    top = x * (z * (z * (z * (z * _P4 + _P3) + _P2) + _P1) + 1.0)
    return top / (z * (z * (z * (z * _Q4 + _Q3) + _Q2) + _Q1) + 1.0)


@triton.jit
def _sigma(z, ACTIVATION: tl.constexpr):
    if ACTIVATION == _TANH:
        z = _tanh(z)
    elif ACTIVATION == _SIGMOID:
        z = 0.5 + 0.5 * _tanh(0.5 * z)
    elif ACTIVATION == _RELU:
        z = tl.where(z < 0.0, 0.0, z)
    elif ACTIVATION == _HARDTANH:
        z = tl.where(z > 1.0, 1.0, tl.where(z < -1.0, -1.0, z))
    return z


@triton.jit
def slope_of(k, ACTIVATION: tl.constexpr):
    """sigma'(z) from k = sigma(z); NaN stays NaN."""
    if ACTIVATION == _TANH:
        slope = 1.0 - k * k
    elif ACTIVATION == _SIGMOID:
        slope = k * (1.0 - k)
    elif ACTIVATION == _RELU:
        slope = tl.where(k > 0.0, 1.0, 0.0 * k)
    elif ACTIVATION == _HARDTANH:
        slope = tl.where(k * k < 1.0, 1.0, 0.0 * k)
    else:
        slope = 1.0 + 0.0 * k
    return slope


@triton.jit
def rate_at(y, W_0, W_1, W_2, left, right, fraction, at, apart, mask, ACTIVATION: tl.constexpr, KEEP: tl.constexpr):
    """sigma(W y + v) with v at a fraction of the interval; with KEEP y and sigma' stay in memory."""
    v = tl.load(left, mask=mask, other=0.0)
    v += fraction * (tl.load(right, mask=mask, other=0.0) - v)
    k = _sigma(product(y, W_0, W_1, W_2) + v, ACTIVATION)
    if KEEP:
        tl.store(at, y, mask=mask)
        tl.store(at + apart, slope_of(k, ACTIVATION), mask=mask)
    return k


@triton.jit
def square_at(W, m: tl.constexpr, WIDTH: tl.constexpr, TRANSPOSED: tl.constexpr):
    """The parts of W (m, m), or of W^T, with zeros around it."""
    one = tl.arange(0, WIDTH)
    inside = (one < m)[:, None] & (one < m)[None, :]
    if TRANSPOSED:
        W += one[:, None] + m * one[None, :]
    else:
        W += m * one[:, None] + one[None, :]
    return parts_of(tl.load(W, mask=inside, other=0.0))


@triton.jit(do_not_specialize=["batch", "intervals", "x_times", "shift", "begin", "end", "share"])
def forward(
    h_all, left, right, W, steps, kept, batch, intervals, x_times, shift, begin, end, share,
    A10: tl.constexpr, A20: tl.constexpr, A21: tl.constexpr, A30: tl.constexpr, A31: tl.constexpr, A32: tl.constexpr,
    B0: tl.constexpr, B1: tl.constexpr, B2: tl.constexpr, B3: tl.constexpr, C1: tl.constexpr, C2: tl.constexpr, C3: tl.constexpr,
    STAGES: tl.constexpr, SUBSTEPS: tl.constexpr, ACTIVATION: tl.constexpr, KEEP: tl.constexpr,
    m: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """The states at intervals + 1 times from the first one, in h_all (members, batch, intervals + 1, m).

    With KEEP the states are there, and each interval goes by itself; of those from `begin` to `end` a program takes `share`. What
    they leave is y_i and sigma'(z_i), the two of kept (2, members, batch, end - begin, SUBSTEPS, STAGES, m), else not touched.
    """
    member = tl.program_id(1).to(tl.int64)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    mask = (row < batch) & (column < m)
    sequence = member * batch + row
    stride = tl.cast(m, tl.int64)
    W_0, W_1, W_2 = square_at(W + member * m * m, m, WIDTH, True)
    h_all += sequence * (intervals + 1) * m + column
    left += sequence * x_times * m + column
    right += (sequence * x_times + shift) * m + column
    kept += sequence * (end - begin) * (SUBSTEPS * STAGES * m) + column
    apart = tl.num_programs(1).to(tl.int64) * batch * (end - begin) * (SUBSTEPS * STAGES * m)
    first = begin + tl.program_id(2) * share
    h = tl.load(h_all + first * stride, mask=mask, other=0.0)
    for k in tl.range(first, tl.minimum(first + share, end), num_stages=AHEAD):
        left_at, right_at = left + k * stride, right + k * stride
        dt = tl.load(steps + k) / SUBSTEPS
        if KEEP:
            h = tl.load(h_all + k * stride, mask=mask, other=0.0)
        for step in range(SUBSTEPS):
            at = kept + ((k - begin) * SUBSTEPS + step) * (STAGES * stride)
            rate = rate_at(h, W_0, W_1, W_2, left_at, right_at, step / SUBSTEPS, at, apart, mask, ACTIVATION, KEEP)
            y_1, y_2, y_3, h = h + dt * A10 * rate, h + dt * A20 * rate, h + dt * A30 * rate, h + dt * B0 * rate
            if STAGES > 1:
                fraction = (step + C1) / SUBSTEPS
                rate = rate_at(y_1, W_0, W_1, W_2, left_at, right_at, fraction, at + m, apart, mask, ACTIVATION, KEEP)
                y_2, y_3, h = y_2 + dt * A21 * rate, y_3 + dt * A31 * rate, h + dt * B1 * rate
            if STAGES > 2:
                fraction = (step + C2) / SUBSTEPS
                rate = rate_at(y_2, W_0, W_1, W_2, left_at, right_at, fraction, at + 2 * m, apart, mask, ACTIVATION, KEEP)
                y_3, h = y_3 + dt * A32 * rate, h + dt * B2 * rate
            if STAGES > 3:
                fraction = (step + C3) / SUBSTEPS
                rate = rate_at(y_3, W_0, W_1, W_2, left_at, right_at, fraction, at + 3 * m, apart, mask, ACTIVATION, KEEP)
                h += dt * B3 * rate
        if not KEEP:
            tl.store(h_all + (k + 1) * stride, h, mask=mask)
