# mypy: disable-error-code="no-untyped-def"
"""Runge-Kutta steps along a path."""

from __future__ import annotations

import triton
import triton.language as tl

from ..numba.tanh import FAR, P1, P2, P3, P4, Q1, Q2, Q3, Q4

CODES = {"linear": 0, "hardtanh": 1, "tanh": 2, "relu": 3, "sigmoid": 4}
HARDTANH, TANH, RELU, SIGMOID = (tl.constexpr(CODES[name]) for name in ("hardtanh", "tanh", "relu", "sigmoid"))
_FAR, _P1, _P2, _P3, _P4, _Q1, _Q2, _Q3, _Q4 = (tl.constexpr(value) for value in (FAR, P1, P2, P3, P4, Q1, Q2, Q3, Q4))


@triton.jit
def _tanh(x):
    # Its coefficients and error: `odernn.solvers.numba.tanh`. NaN stays NaN.
    x = tl.where(x > _FAR, _FAR, tl.where(x < -_FAR, -_FAR, x))
    z = x * x
    top = x * (z * (z * (z * (z * _P4 + _P3) + _P2) + _P1) + 1.0)
    return top / (z * (z * (z * (z * _Q4 + _Q3) + _Q2) + _Q1) + 1.0)


@triton.jit
def _rate(y, v_left, v_right, fraction, W_T, ACTIVATION: tl.constexpr):
    """sigma(W y + v) for the rows of a tile."""
    z = tl.dot(y, W_T, input_precision="ieee") + (1.0 - fraction) * v_left + fraction * v_right
    if ACTIVATION == TANH:
        z = _tanh(z)
    elif ACTIVATION == SIGMOID:
        z = 0.5 + 0.5 * _tanh(0.5 * z)
    elif ACTIVATION == RELU:
        z = tl.where(z < 0.0, 0.0, z)
    elif ACTIVATION == HARDTANH:
        z = tl.where(z > 1.0, 1.0, tl.where(z < -1.0, -1.0, z))
    return z


@triton.jit
def step_on(h, v_left, v_right, dt, step, W_T, tableau, SUBSTEPS: tl.constexpr, STAGES: tl.constexpr, ACTIVATION: tl.constexpr):
    """h one step on, the stage states y_1.. and the rates k_0..; those past STAGES repeat others. `tableau` holds A (4, 4), b and
    c one after the other."""
    k_0 = _rate(h, v_left, v_right, (step + tl.load(tableau + 20)) / SUBSTEPS, W_T, ACTIVATION)
    y_1, y_2, y_3, k_1, k_2, k_3 = h, h, h, k_0, k_0, k_0
    new = h + dt * tl.load(tableau + 16) * k_0
    if STAGES > 1:
        y_1 = h + dt * tl.load(tableau + 4) * k_0
        k_1 = _rate(y_1, v_left, v_right, (step + tl.load(tableau + 21)) / SUBSTEPS, W_T, ACTIVATION)
        new += dt * tl.load(tableau + 17) * k_1
    if STAGES > 2:
        y_2 = h + dt * (tl.load(tableau + 8) * k_0 + tl.load(tableau + 9) * k_1)
        k_2 = _rate(y_2, v_left, v_right, (step + tl.load(tableau + 22)) / SUBSTEPS, W_T, ACTIVATION)
        new += dt * tl.load(tableau + 18) * k_2
    if STAGES > 3:
        y_3 = h + dt * (tl.load(tableau + 12) * k_0 + tl.load(tableau + 13) * k_1 + tl.load(tableau + 14) * k_2)
        k_3 = _rate(y_3, v_left, v_right, (step + tl.load(tableau + 23)) / SUBSTEPS, W_T, ACTIVATION)
        new += dt * tl.load(tableau + 19) * k_3
    return new, y_1, y_2, y_3, k_0, k_1, k_2, k_3


@triton.jit
def tile_of(batch, m, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Member, the rows' indices in (members * batch), columns, and the mask of what exists."""
    member = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    mask = (row < batch)[:, None] & (column < m)[None, :]
    return member, (member * batch + row)[:, None], column[None, :], mask


@triton.jit
def forward(
    h_all, left, right, W, tableau, steps, batch, intervals, m, x_times, shift,
    SUBSTEPS: tl.constexpr, STAGES: tl.constexpr, ACTIVATION: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    member, row, column, mask = tile_of(batch, m, ROWS, WIDTH)
    one = tl.arange(0, WIDTH)
    inside = (one < m)[:, None] & (one < m)[None, :]
    W_T = tl.load(W + member * m * m + one[None, :] * m + one[:, None], mask=inside, other=0.0)
    h = tl.load(h_all + row * (intervals + 1) * m + column, mask=mask, other=0.0)
    for k in range(intervals):
        v_left = tl.load(left + (row * x_times + k) * m + column, mask=mask, other=0.0)
        v_right = tl.load(right + (row * x_times + k + shift) * m + column, mask=mask, other=0.0)
        dt = tl.load(steps + k) / SUBSTEPS
        for step in range(SUBSTEPS):
            h, _1, _2, _3, _4, _5, _6, _7 = step_on(h, v_left, v_right, dt, step, W_T, tableau, SUBSTEPS, STAGES, ACTIVATION)
        tl.store(h_all + (row * (intervals + 1) + k + 1) * m + column, h, mask=mask)
