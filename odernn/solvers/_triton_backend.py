# mypy: disable-error-code="no-untyped-def"
"""The fused solve on the GPU: one Triton program takes a tile of the batch through all times, W and the states on chip.

A backend of `odernn.solvers.fused`; shapes are those of `Problem` there. Every W is taken as dense: on chip that costs next to
nothing. The way back goes segment by segment of the time axis: a program leaves the stage states and adjoints of a segment in
memory, and one large product sums the gradient of W from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._torch_backend import drive_along, input_gradients

if TYPE_CHECKING:
    from .fused import Problem

# Rows of the batch to a program: the fewest that tl.dot takes, for as many programs as there can be.
_ROWS = 16
# Bytes that the stages of one segment may take.
_SEGMENT_BYTES = 2**27
_LINEAR, _HARDTANH, _TANH, _RELU, _SIGMOID = (tl.constexpr(index) for index in range(5))
_ACTIVATIONS = {"linear": 0, "hardtanh": 1, "tanh": 2, "relu": 3, "sigmoid": 4}


@triton.jit
def _tanh(x):
    # The rational function of `_numba_kernels`, with its error there; NaN stays NaN.
    x = tl.where(x > 9.01, 9.01, tl.where(x < -9.01, -9.01, x))
    z = x * x
    top = x * (
        1.0 + z * (1.3383331583821567e-1 + z * (3.4982242192173716e-3 + z * (2.0648496013732013e-5 + z * 1.3401985742771164e-8)))
    )
    return top / (
        1.0 + z * (4.671665294986188e-1 + z * (2.5887273707458077e-2 + z * (3.289773400590183e-4 + z * 7.79746175446661e-7)))
    )


@triton.jit
def _rate(y, v_left, v_right, fraction, W_T, ACTIVATION: tl.constexpr):
    """sigma(W y + v) for the rows of a tile."""
    z = tl.dot(y, W_T, input_precision="ieee") + (1.0 - fraction) * v_left + fraction * v_right
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
def _times_derivative(g, k, ACTIVATION: tl.constexpr):
    """g sigma'(z), from k = sigma(z)."""
    if ACTIVATION == _TANH:
        g = g * (1.0 - k * k)
    elif ACTIVATION == _SIGMOID:
        g = g * (k * (1.0 - k))
    elif ACTIVATION == _RELU:
        g = tl.where(k > 0.0, g, 0.0 * k)
    elif ACTIVATION == _HARDTANH:
        g = tl.where(k * k < 1.0, g, 0.0 * k)
    return g


@triton.jit
def _step(h, v_left, v_right, dt, step, W_T, tableau, SUBSTEPS: tl.constexpr, STAGES: tl.constexpr, ACTIVATION: tl.constexpr):
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
def _tile(batch, m, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Member, the rows' indices in (members * batch), columns, and the mask of what exists."""
    member = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    mask = (row < batch)[:, None] & (column < m)[None, :]
    return member, (member * batch + row)[:, None], column[None, :], mask


@triton.jit
def _forward(
    h_all, left, right, W, tableau, steps, batch, intervals, m, x_times, shift,
    SUBSTEPS: tl.constexpr, STAGES: tl.constexpr, ACTIVATION: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    member, row, column, mask = _tile(batch, m, ROWS, WIDTH)
    one = tl.arange(0, WIDTH)
    inside = (one < m)[:, None] & (one < m)[None, :]
    W_T = tl.load(W + member * m * m + one[None, :] * m + one[:, None], mask=inside, other=0.0)
    h = tl.load(h_all + row * (intervals + 1) * m + column, mask=mask, other=0.0)
    for k in range(intervals):
        v_left = tl.load(left + (row * x_times + k) * m + column, mask=mask, other=0.0)
        v_right = tl.load(right + (row * x_times + k + shift) * m + column, mask=mask, other=0.0)
        dt = tl.load(steps + k) / SUBSTEPS
        for step in range(SUBSTEPS):
            h, _1, _2, _3, _4, _5, _6, _7 = _step(h, v_left, v_right, dt, step, W_T, tableau, SUBSTEPS, STAGES, ACTIVATION)
        tl.store(h_all + (row * (intervals + 1) + k + 1) * m + column, h, mask=mask)


@triton.jit
def _stage_adjoint(g_k, k_i, z_i_at, mask, W, ACTIVATION: tl.constexpr):
    """g_z = sigma' g_k, left where the rate was, and g_y = W^T g_z."""
    g_z = _times_derivative(g_k, k_i, ACTIVATION)
    tl.store(z_i_at, g_z, mask=mask)
    return g_z, tl.dot(g_z, W, input_precision="ieee")


@triton.jit
def _backward(
    h_all, g_all, carry, left, right, W, tableau, steps, y_all, z_all, g_left, g_right,
    batch, intervals, m, x_times, shift, begin, end,
    SUBSTEPS: tl.constexpr, STAGES: tl.constexpr, ACTIVATION: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Intervals end - 1 down to begin. `carry` (members, batch, m) is the adjoint of h at `end`, then at `begin`, without what
    g_all adds there; y_all and z_all (members, batch, (end - begin) * substeps * stages, m) receive y_i and g_z_i."""
    member, row, column, mask = _tile(batch, m, ROWS, WIDTH)
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
            h, y_1, y_2, y_3, k_0, k_1, k_2, k_3 = _step(h, v_left, v_right, dt, step, W_T, tableau, SUBSTEPS, STAGES, ACTIVATION)
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


def forward(problem: Problem, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h0: Tensor) -> Tensor:
    members, batch, m = h0.shape
    v_left, v_right, settings = _prepared(problem, V, left, right, m)
    intervals = problem.steps.numel()
    h = h0.new_empty(members, batch, intervals + 1, m)
    h[:, :, 0] = h0
    grid = (triton.cdiv(batch, _ROWS), members)
    dense = _dense(problem, W)
    steps = problem.steps.to(h0)
    _forward[grid](
        h, v_left, v_right, dense, _tableau(problem, h0), steps, batch, intervals, m, v_left.shape[2], _shift(problem), **settings
    )
    return h


def backward(
    problem: Problem, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h: Tensor, g: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    members, batch, times, m = h.shape
    intervals = times - 1
    v_left, v_right, settings = _prepared(problem, V, left, right, m)
    dense, g, carry = _dense(problem, W), g.contiguous(), torch.zeros_like(h[:, :, 0])
    g_left, g_right = h.new_empty(members, batch, intervals, m), h.new_empty(members, batch, intervals, m)
    g_dense = torch.zeros_like(dense)
    places = problem.substeps * problem.tableau.stages  # in one interval
    length = max(1, min(intervals, _SEGMENT_BYTES // (2 * h.element_size() * members * batch * places * m)))
    y, z = (h.new_empty(members * batch * length * places * m) for _ in range(2))
    tableau, steps = _tableau(problem, h), problem.steps.to(h)
    grid = (triton.cdiv(batch, _ROWS), members)
    for end in range(intervals, 0, -length):
        begin = max(0, end - length)
        _backward[grid](
            h, g, carry, v_left, v_right, dense, tableau, steps, y, z, g_left, g_right,
            batch, intervals, m, v_left.shape[2], _shift(problem), begin, end, **settings,
        )  # fmt: skip
        if wanted[0]:
            rows = batch * (end - begin) * places
            y_rows, z_rows = (buffer[: members * rows * m].view(members, rows, m) for buffer in (y, z))
            g_dense += z_rows.mT @ y_rows
    of_inputs = input_gradients(problem, V, left, right, g_left, g_right, wanted[2] or wanted[3])
    return (_entries_of(problem, g_dense) if wanted[0] else None, *of_inputs, carry + g[:, :, 0])


def _prepared(problem: Problem, V: Tensor, left: Tensor, right: Tensor, m: int) -> tuple[Tensor, Tensor, dict[str, int]]:
    """The drive at all times of both inputs, and the compile-time settings of the kernels."""
    v_left = drive_along(V, left)
    settings = {
        "SUBSTEPS": problem.substeps,
        "STAGES": problem.tableau.stages,
        "ACTIVATION": _ACTIVATIONS[problem.activation],
        "ROWS": _ROWS,
        "WIDTH": max(16, triton.next_power_of_2(m)),
    }
    return v_left, drive_along(V, right) if problem.source == "jumps" else v_left, settings


def _shift(problem: Problem) -> int:
    """How many samples after the left end of an interval its right end comes."""
    return 1 if problem.source == "samples" else 0


def _tableau(problem: Problem, like: Tensor) -> Tensor:
    rows = [[*row, *[0.0] * (4 - len(row))] for row in problem.tableau.A]
    rows += [[0.0] * 4] * (4 - len(rows))
    ends = [[*values, *[0.0] * (4 - len(values))] for values in (problem.tableau.b, problem.tableau.c)]
    return torch.tensor([*rows, *ends], dtype=like.dtype, device=like.device)


def _dense(problem: Problem, W: Tensor) -> Tensor:
    """W (E, m, m) from its entries."""
    if problem.structure == "dense":
        return W.contiguous()
    m = W.shape[-1]
    dense = torch.diag_embed(W[:, 0])
    if problem.structure == "pairs":
        index = torch.arange(m, device=W.device)
        dense[:, index, index ^ 1] = W[:, 1]
    return dense


def _entries_of(problem: Problem, g: Tensor) -> Tensor:
    """The gradient of the entries of W from that of W as dense."""
    if problem.structure == "dense":
        return g
    own = g.diagonal(dim1=-2, dim2=-1).unsqueeze(1)
    if problem.structure == "diagonal":
        return own
    index = torch.arange(g.shape[-1], device=g.device)
    return torch.cat([own, g[:, index, index ^ 1].unsqueeze(1)], 1)
