# mypy: disable-error-code="no-untyped-def"
"""The exact adjoint of `forward`, from a later time to an earlier one."""

from __future__ import annotations

import triton
import triton.language as tl

from .forward import square_at
from .products import product


@triton.jit(do_not_specialize=["batch", "intervals", "begin", "end"])
def backward(
    g_all, carry, W, steps, slopes, batch, intervals, begin, end,
    A10: tl.constexpr, A20: tl.constexpr, A21: tl.constexpr, A30: tl.constexpr, A31: tl.constexpr, A32: tl.constexpr,
    B0: tl.constexpr, B1: tl.constexpr, B2: tl.constexpr, B3: tl.constexpr, STAGES: tl.constexpr, SUBSTEPS: tl.constexpr,
    m: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """Intervals end - 1 down to begin. `carry` (members, batch, m) is the adjoint of h at the later end, then at the earlier,
    without what g_all adds there. The adjoint of z_i takes the place of sigma'(z_i) in `slopes`, as `forward` left it."""
    member = tl.program_id(1).to(tl.int64)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    mask = (row < batch) & (column < m)
    sequence = member * batch + row
    W_0, W_1, W_2 = square_at(W + member * m * m, m, WIDTH, False)
    g_all += (sequence * (intervals + 1) + 1) * m + column
    slopes += sequence * (end - begin) * (SUBSTEPS * STAGES * m) + column
    carry += sequence * m + column
    stride = tl.cast(m, tl.int64)
    g = tl.load(carry, mask=mask, other=0.0)
    for back in tl.range(end - begin, num_stages=AHEAD):
        k = end - 1 - back
        g += tl.load(g_all + k * stride, mask=mask, other=0.0)
        dt = tl.load(steps + k) / SUBSTEPS
        for back_step in range(SUBSTEPS):
            at = slopes + ((k - begin + 1) * SUBSTEPS - 1 - back_step) * (STAGES * stride)
            # The adjoint of k_i is dt (b_i g + sum_{j > i} A_ji g_y_j), that of z_i is sigma' times it, g_y_i = W^T g_z_i.
            total = g
            g_k_0, g_k_1, g_k_2 = B0 * g, B1 * g, B2 * g
            if STAGES > 3:
                g_z = dt * (B3 * g) * tl.load(at + 3 * m, mask=mask, other=0.0)
                tl.store(at + 3 * m, g_z, mask=mask)
                g_y = product(g_z, W_0, W_1, W_2)
                total += g_y
                g_k_0, g_k_1, g_k_2 = g_k_0 + A30 * g_y, g_k_1 + A31 * g_y, g_k_2 + A32 * g_y
            if STAGES > 2:
                g_z = dt * g_k_2 * tl.load(at + 2 * m, mask=mask, other=0.0)
                tl.store(at + 2 * m, g_z, mask=mask)
                g_y = product(g_z, W_0, W_1, W_2)
                total += g_y
                g_k_0, g_k_1 = g_k_0 + A20 * g_y, g_k_1 + A21 * g_y
            if STAGES > 1:
                g_z = dt * g_k_1 * tl.load(at + m, mask=mask, other=0.0)
                tl.store(at + m, g_z, mask=mask)
                g_y = product(g_z, W_0, W_1, W_2)
                total += g_y
                g_k_0 += A10 * g_y
            g_z = dt * g_k_0 * tl.load(at, mask=mask, other=0.0)
            tl.store(at, g_z, mask=mask)
            g = total + product(g_z, W_0, W_1, W_2)
    tl.store(carry, g, mask=mask)
