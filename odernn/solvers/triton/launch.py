"""Lays tensors out for the kernels of this folder and launches these."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from ..standard_form import Problem
from ..torch_reference import drive_along, input_gradients
from . import backward as adjoint_kernel
from . import forward as kernel

# Rows of the batch to a program: the fewest that tl.dot takes, for as many programs as there can be.
_ROWS = 16
# Bytes that the stages of one segment may take.
_SEGMENT_BYTES = 2**27


def forward(problem: Problem, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h0: Tensor) -> Tensor:
    members, batch, m = h0.shape
    v_left, v_right, settings = _prepared(problem, V, left, right, m)
    intervals = problem.steps.numel()
    h = h0.new_empty(members, batch, intervals + 1, m)
    h[:, :, 0] = h0
    grid = (triton.cdiv(batch, _ROWS), members)
    dense = _dense(problem, W)
    steps = problem.steps.to(h0)
    kernel.forward[grid](
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
        adjoint_kernel.backward[grid](
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
        "ACTIVATION": kernel.CODES[problem.activation],
        "ROWS": _ROWS,
        "WIDTH": max(16, triton.next_power_of_2(m)),
    }
    return v_left, drive_along(V, right) if problem.kind == "jumps" else v_left, settings


def _shift(problem: Problem) -> int:
    """How many samples after the left end of an interval its right end comes."""
    return 1 if problem.kind == "linear" else 0


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
