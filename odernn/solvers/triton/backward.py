# mypy: disable-error-code="no-untyped-def"
"""The exact adjoint of `forward`, from a later time to an earlier one."""

from __future__ import annotations

import triton
import triton.language as tl

from .forward import HARDTANH, RELU, SIGMOID, TANH, step_on, tile_of


@triton.jit
def _times_derivative(g, k, ACTIVATION: tl.constexpr):
    """g sigma'(z), from k = sigma(z)."""
    if ACTIVATION == TANH:
        g = g * (1.0 - k * k)
    elif ACTIVATION == SIGMOID:
        g = g * (k * (1.0 - k))
    elif ACTIVATION == RELU:
        g = tl.where(k > 0.0, g, 0.0 * k)
    elif ACTIVATION == HARDTANH:
        g = tl.where(k * k < 1.0, g, 0.0 * k)
    return g


@triton.jit
def _stage_adjoint(g_k, k_i, z_i_at, mask, W, ACTIVATION: tl.constexpr):
    """g_z = sigma' g_k, left where the rate was, and g_y = W^T g_z."""
    g_z = _times_derivative(g_k, k_i, ACTIVATION)
    tl.store(z_i_at, g_z, mask=mask)
    return g_z, tl.dot(g_z, W, input_precision="ieee")


@triton.jit
def backward(
    h_all, g_all, carry, left, right, W, tableau, steps, y_all, z_all, g_left, g_right,
    batch, intervals, m, x_times, shift, begin, end,
    SUBSTEPS: tl.constexpr, STAGES: tl.constexpr, ACTIVATION: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Intervals end - 1 down to begin. `carry` (members, batch, m) is the adjoint of h at `end`, then at `begin`, without what
    g_all adds there; y_all and z_all (members, batch, (end - begin) * substeps * stages, m) receive y_i and g_z_i."""
    member, row, column, mask = tile_of(batch, m, ROWS, WIDTH)
    one = tl.arange(0, WIDTH)
    inside = (one < m)[:, None] & (one < m)[None, :]
    W_T = tl.load(W + member * m * m + one[None, :] * m + one[:, None], mask=inside, other=0.0)
    W_here = tl.load(W + member * m * m + one[:, None] * m + one[None, :], mask=inside, other=0.0)
    g = tl.load(carry + row * m + column, mask=mask, other=0.0)
    places = (end - begin) * SUBSTEPS * STAGES
    for back in range(end - begin):
        k = end - 1 - back
        g += tl.load(g_all + (row * (intervals + 1) + k + 1) * m + column, mask=mask, other=0.0)
        v_left = tl.load(left + (row * x_times + k) * m + column, mask=mask, other=0.0)
        v_right = tl.load(right + (row * x_times + k + shift) * m + column, mask=mask, other=0.0)
        dt = tl.load(steps + k) / SUBSTEPS
        h = tl.load(h_all + (row * (intervals + 1) + k) * m + column, mask=mask, other=0.0)
        for step in range(SUBSTEPS):
            at = (row * places + ((k - begin) * SUBSTEPS + step) * STAGES) * m + column
            tl.store(y_all + at, h, mask=mask)
            h, y_1, y_2, y_3, k_0, k_1, k_2, k_3 = step_on(
                h, v_left, v_right, dt, step, W_T, tableau, SUBSTEPS, STAGES, ACTIVATION
            )
            tl.store(z_all + at, k_0, mask=mask)
            if STAGES > 1:
                tl.store(y_all + at + m, y_1, mask=mask)
                tl.store(z_all + at + m, k_1, mask=mask)
            if STAGES > 2:
                tl.store(y_all + at + 2 * m, y_2, mask=mask)
                tl.store(z_all + at + 2 * m, k_2, mask=mask)
            if STAGES > 3:
                tl.store(y_all + at + 3 * m, y_3, mask=mask)
                tl.store(z_all + at + 3 * m, k_3, mask=mask)
        tl.debug_barrier()  # what one thread stored another may load
        of_left = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
        of_right = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
        for back_step in range(SUBSTEPS):
            step = SUBSTEPS - 1 - back_step
            at = (row * places + ((k - begin) * SUBSTEPS + step) * STAGES) * m + column
            z_at = z_all + at
            total = g
            g_y_1, g_y_2, g_y_3 = 0.0 * g, 0.0 * g, 0.0 * g
            if STAGES > 3:
                k_3 = tl.load(z_at + 3 * m, mask=mask, other=0.0)
                g_k = dt * tl.load(tableau + 19) * g
                g_z, g_y_3 = _stage_adjoint(g_k, k_3, z_at + 3 * m, mask, W_here, ACTIVATION)
                fraction = (step + tl.load(tableau + 23)) / SUBSTEPS
                of_left, of_right, total = of_left + (1.0 - fraction) * g_z, of_right + fraction * g_z, total + g_y_3
            if STAGES > 2:
                k_2 = tl.load(z_at + 2 * m, mask=mask, other=0.0)
                g_k = dt * (tl.load(tableau + 18) * g + tl.load(tableau + 14) * g_y_3)
                g_z, g_y_2 = _stage_adjoint(g_k, k_2, z_at + 2 * m, mask, W_here, ACTIVATION)
                fraction = (step + tl.load(tableau + 22)) / SUBSTEPS
                of_left, of_right, total = of_left + (1.0 - fraction) * g_z, of_right + fraction * g_z, total + g_y_2
            if STAGES > 1:
                k_1 = tl.load(z_at + m, mask=mask, other=0.0)
                g_k = dt * (tl.load(tableau + 17) * g + tl.load(tableau + 9) * g_y_2 + tl.load(tableau + 13) * g_y_3)
                g_z, g_y_1 = _stage_adjoint(g_k, k_1, z_at + m, mask, W_here, ACTIVATION)
                fraction = (step + tl.load(tableau + 21)) / SUBSTEPS
                of_left, of_right, total = of_left + (1.0 - fraction) * g_z, of_right + fraction * g_z, total + g_y_1
            k_0 = tl.load(z_at, mask=mask, other=0.0)
            g_k = dt * (
                tl.load(tableau + 16) * g
                + tl.load(tableau + 4) * g_y_1
                + tl.load(tableau + 8) * g_y_2
                + tl.load(tableau + 12) * g_y_3
            )
            g_z, g_y_0 = _stage_adjoint(g_k, k_0, z_at, mask, W_here, ACTIVATION)
            fraction = (step + tl.load(tableau + 20)) / SUBSTEPS
            of_left, of_right = of_left + (1.0 - fraction) * g_z, of_right + fraction * g_z
            g = total + g_y_0
        tl.store(g_left + (row * intervals + k) * m + column, of_left, mask=mask)
        tl.store(g_right + (row * intervals + k) * m + column, of_right, mask=mask)
    tl.store(carry + row * m + column, g, mask=mask)
