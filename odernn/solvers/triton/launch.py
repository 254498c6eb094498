"""Lays tensors out for the kernels of this folder and launches these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from ..standard_form import Problem, Tableau
from ..torch_reference import blocks, drive_along, input_gradients
from . import backward as adjoint_kernel
from . import forward as kernel

# Bytes that the stages of one segment may take.
_SEGMENT_BYTES = 2**27
# Programs that the stages of a segment are shared out to: a few for each of the hundred multiprocessors of a large GPU.
_PROGRAMS = 1024
# Warps of a program, by the width of W: each takes 8 columns, the fewest that its tensor core takes, up to 8 warps, whose threads
# may have 255 registers each. The parts of W then fill 3/4 WIDTH of them, 96 for 128. (16 columns stay together: of a tile no
# wider than high Triton would give each warp rows instead, and there are no more than it takes.)
_WARPS = {16: 1, 32: 4, 64: 8, 128: 8}


def settings_for(m: int) -> dict[str, Any]:
    """How a kernel for m hidden units is compiled. (A program takes 16 sequences, the fewest that tensor cores take, for as many
    programs as there can be.)"""
    width = max(16, triton.next_power_of_2(m))
    # Where fusing of products and sums is not asked for, Triton 3.9 warns that a later one will leave it out.
    return {"m": m, "WIDTH": width, "ROWS": 16, "num_warps": _WARPS[width], "num_stages": 1, "enable_fp_fusion": True}


def method_settings(tableau: Tableau, substeps: int) -> dict[str, Any]:
    A = {f"A{i}{j}": tableau.A[i][j] if i < tableau.stages else 0.0 for i in range(4) for j in range(i)}
    B = {f"B{i}": tableau.b[i] if i < tableau.stages else 0.0 for i in range(4)}
    return A | B | {"STAGES": tableau.stages, "SUBSTEPS": substeps}


def forward_settings(tableau: Tableau, substeps: int, activation: str, m: int, keep: bool) -> dict[str, Any]:
    C = {f"C{i}": float(tableau.c[i]) if i < tableau.stages else 0.0 for i in range(1, 4)}
    # Programs that go through a path one after the other load the next drive early; those that keep the stages are so many that
    # they need not.
    own = {"ACTIVATION": kernel.CODES[activation], "KEEP": keep, "AHEAD": 1 if keep else 2}
    return method_settings(tableau, substeps) | C | own | settings_for(m)


def backward_settings(tableau: Tableau, substeps: int, m: int) -> dict[str, Any]:
    return method_settings(tableau, substeps) | {"AHEAD": 2} | settings_for(m)


def forward(problem: Problem, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h0: Tensor) -> Tensor:
    members, batch, m = h0.shape
    intervals = problem.steps.numel()
    h = h0.new_empty(members, batch, intervals + 1, m)
    h[:, :, 0] = h0
    v_left, v_right = _drive(problem, V, left, right)
    settings = forward_settings(problem.tableau, problem.substeps, problem.activation, m, keep=False)
    grid = (triton.cdiv(batch, settings["ROWS"]), members)
    kernel.forward[grid](
        h, v_left, v_right, _dense(problem, W), problem.steps.to(h0), h, batch, intervals, v_left.shape[2], _shift(problem),
        0, intervals, intervals, **settings,
    )  # fmt: skip
    return h


def backward(
    problem: Problem, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h: Tensor, g: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    members, batch, times, m = h.shape
    intervals, substeps, tableau = times - 1, problem.substeps, problem.tableau
    v_left, v_right = _drive(problem, V, left, right)
    dense, steps, g, carry = _dense(problem, W), problem.steps.to(h), g.contiguous(), torch.zeros_like(h[:, :, 0])
    g_left, g_right = h.new_empty(members, batch, intervals, m), h.new_empty(members, batch, intervals, m)
    g_dense = torch.zeros_like(dense)
    fractions = h.new_tensor([(step + c) / substeps for step in range(substeps) for c in tableau.c])
    of_ends = torch.stack([1 - fractions, fractions])
    places = fractions.numel()  # in one interval
    stages_of = forward_settings(tableau, substeps, problem.activation, m, keep=True)
    adjoint_of = backward_settings(tableau, substeps, m)
    tiles = triton.cdiv(batch, adjoint_of["ROWS"])
    length = max(1, min(intervals, _SEGMENT_BYTES // (2 * h.element_size() * members * batch * places * m)))
    buffer = h.new_empty(2 * members * batch * length * places * m)
    for end in range(intervals, 0, -length):
        begin = max(0, end - length)
        kept = buffer[: 2 * members * batch * (end - begin) * places * m].view(2, members, batch, end - begin, places, m)
        share = triton.cdiv((end - begin) * tiles * members, _PROGRAMS)
        kernel.forward[tiles, members, triton.cdiv(end - begin, share)](
            h, v_left, v_right, dense, steps, kept, batch, intervals, v_left.shape[2], _shift(problem),
            begin, end, share, **stages_of,
        )  # fmt: skip
        y, g_z = kept
        adjoint_kernel.backward[tiles, members](g, carry, dense, steps, g_z, batch, intervals, begin, end, **adjoint_of)
        if wanted[0]:
            g_dense += g_z.flatten(1, 3).mT @ y.flatten(1, 3)
        g_left[:, :, begin:end], g_right[:, :, begin:end] = (of_ends @ g_z).unbind(-2)
    of_inputs = input_gradients(problem, V, left, right, g_left, g_right, wanted[2] or wanted[3])
    return (_entries_of(problem, g_dense) if wanted[0] else None, *of_inputs, carry + g[:, :, 0])


def _drive(problem: Problem, V: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The drive at all times of both inputs."""
    v_left = drive_along(V, left)
    return v_left, drive_along(V, right) if problem.kind == "jumps" else v_left


def _shift(problem: Problem) -> int:
    """How many samples after the left end of an interval its right end comes."""
    return 1 if problem.kind == "linear" else 0


def _dense(problem: Problem, W: Tensor) -> Tensor:
    """The matrix of the whole stack, (E, L m, L m), from the entries of W: W_l on its diagonal, U_l below."""
    own, above = blocks(problem, W)
    if problem.layers == 1:
        return _square(problem.structure, own[0])
    dense = W.new_zeros(W.shape[0], *(2 * [problem.layers * W.shape[-1]]))
    for (row, column), block in zip(_places(problem), (*(_square(problem.structure, W_l) for W_l in own), *above)):
        _block(problem, dense, row, column).copy_(block)
    return dense


def _entries_of(problem: Problem, g: Tensor) -> Tensor:
    """The gradient of the entries of W from that of the whole matrix."""
    found = [_block(problem, g, row, column) for row, column in _places(problem)]
    own = [_entries_of_square(problem.structure, block) for block in found[: problem.layers]]
    return torch.cat([*own, *found[problem.layers :]], 1)


def _places(problem: Problem) -> list[tuple[int, int]]:
    return [(layer, layer) for layer in range(problem.layers)] + [(layer, layer - 1) for layer in range(1, problem.layers)]


def _block(problem: Problem, dense: Tensor, row: int, column: int) -> Tensor:
    return dense.chunk(problem.layers, -2)[row].chunk(problem.layers, -1)[column]


def _square(structure: str, W: Tensor) -> Tensor:
    """W_l (E, m, m) from its entries."""
    if structure == "dense":
        return W.contiguous()
    m = W.shape[-1]
    dense = torch.diag_embed(W[:, 0])
    if structure == "pairs":
        index = torch.arange(m, device=W.device)
        dense[:, index, index ^ 1] = W[:, 1]
    return dense


def _entries_of_square(structure: str, g: Tensor) -> Tensor:
    if structure == "dense":
        return g
    own = g.diagonal(dim1=-2, dim2=-1).unsqueeze(1)
    if structure == "diagonal":
        return own
    index = torch.arange(g.shape[-1], device=g.device)
    return torch.cat([own, g[:, index, index ^ 1].unsqueeze(1)], 1)
