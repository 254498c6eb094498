"""Lays tensors out for the kernels of this folder and launches these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from ..numba.step_control import DONE, Control, count_steps
from ..standard_form import EmbeddedPair, Problem, StepCount, Tableau
from ..torch_reference import blocks, drive_along, input_gradients
from . import adaptive
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
# Steps that the first record of an adaptive solve has room for: so many, and so many more in each interval.
_ROOM, _ROOM_PER_INTERVAL = 256, 4


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


def pair_settings(pair: EmbeddedPair, activation: str, m: int) -> dict[str, Any]:
    return {"STAGES": pair.stages, "ACTIVATION": kernel.CODES[activation]} | settings_for(m)


def adaptive_settings(pair: EmbeddedPair, kind: str, activation: str, m: int) -> dict[str, Any]:
    return pair_settings(pair, activation, m) | {"ORDER": float(pair.order), "RESTARTS": kind != "linear"}


@cache
def _tables(pair: EmbeddedPair, device: torch.device) -> tuple[Tensor, Tensor]:
    """The coefficients of a pair, and of its adjoint: row by row as `adaptive.forward` and `adaptive.backward` take them."""
    stages = pair.stages
    table, adjoint = torch.zeros(stages + 2, adaptive.COLUMNS), torch.zeros(stages, adaptive.COLUMNS)
    for row, terms in zip(table, (*pair.A, pair.b, pair.error)):
        row[: len(terms)] = torch.tensor(terms)
        row[-1] = sum(terms)
    adjoint[:, :stages] = table[:stages, :stages].T.flip(0, 1)
    adjoint[:, -2], adjoint[:, -1] = table[stages, :stages].flip(0), table[:stages, -1].flip(0)
    return table.to(device), adjoint.to(device)


@dataclass(frozen=True)
class Record:
    """The steps of an adaptive solve, tile by tile: see `adaptive.forward`.

    Args:
        most: that a tile took.
        failed: whether one did not come to the end.
    """

    steps: Tensor
    places: Tensor
    checkpoints: Tensor
    counts: Tensor
    most: int = 0
    failed: bool = False

    @property
    def room(self) -> int:
        return self.places.shape[-1]


def adaptive_forward(
    problem: Problem, control: Control, records: bool, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h0: Tensor
) -> tuple[Tensor, StepCount, Record]:
    """h on steps that keep to the tolerance, and their record for `adaptive_backward`, which is empty unless `records`."""
    assert isinstance(problem.tableau, EmbeddedPair)
    members, batch, m = h0.shape
    intervals = problem.steps.numel()
    h = h0.new_full((members, batch, intervals + 1, m), torch.nan)
    h[:, :, 0] = h0
    v_left, v_right = _drive(problem, V, left, right)
    dense, lengths = _dense(problem, W), problem.steps.to(h0.device, torch.float64)
    table, _ = _tables(problem.tableau, h.device)
    settings = adaptive_settings(problem.tableau, problem.kind, problem.activation, m)
    tiles = triton.cdiv(batch, settings["ROWS"])
    rates = h.new_empty(members, batch, problem.tableau.stages + 1, m)
    counts = torch.zeros(members, tiles, 3, dtype=torch.int64, device=h0.device)
    room = _ROOM + _ROOM_PER_INTERVAL * intervals if records else 0
    # Where some tile takes more steps than there is room for, all take the very same ones again.
    while True:
        room = triton.cdiv(room, adaptive.EVERY) * adaptive.EVERY
        steps, places = h.new_empty(members, tiles, room, 3), counts.new_empty(members, tiles, room, dtype=torch.int32)
        checkpoints = h.new_empty(members, batch, room // adaptive.EVERY, m)
        if intervals > 0:
            adaptive.forward[tiles, members](
                h, v_left, v_right, dense, table, rates, lengths, steps, places, checkpoints, counts, batch, intervals,
                v_left.shape[2], _shift(problem), room, control.rtol, max(control.atol, torch.finfo(h.dtype).tiny), **settings,
            )  # fmt: skip
        taken, tries, ends = counts.flatten(0, 1).T.tolist()
        if not records or max(taken) <= room:
            break
        room = max(taken)
    worst = tries.index(max(tries))
    record = Record(steps, places, checkpoints, counts, max(taken), max(ends) != DONE)
    return h, count_steps(taken[worst], tries[worst], max(ends)), record


def adaptive_backward(
    problem: Problem, record: Record, W: Tensor, V: Tensor, left: Tensor, right: Tensor, h: Tensor, g: Tensor,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    assert isinstance(problem.tableau, EmbeddedPair)
    members, batch, times, m = h.shape
    intervals, stages = times - 1, problem.tableau.stages
    v_left, v_right = _drive(problem, V, left, right)
    dense, g, carry = _dense(problem, W), g.contiguous(), torch.zeros_like(h[:, :, 0])
    if record.failed:  # nobody knows what lost states depend on
        lost = h.isnan() & (g != 0)
        g, carry = g.masked_fill(lost, torch.nan), carry.masked_fill(lost.any(2), torch.nan)
    g_drive = h.new_zeros(2, members, batch, intervals, m)
    g_dense = torch.zeros_like(dense)
    settings, (table, adjoint) = pair_settings(problem.tableau, problem.activation, m), _tables(problem.tableau, h.device)
    g_states = h.new_empty(members, batch, stages + 1, m)
    taken, room = (record.steps, record.places, record.counts), record.room
    tiles, entries = taken[1].shape[1], 2 * members * batch * stages * m  # of one step
    length = max(1, _SEGMENT_BYTES // (h.element_size() * entries * adaptive.EVERY)) * adaptive.EVERY
    buffer = h.new_empty(entries * min(length, room))
    for begin in reversed(range(0, record.most, length)):
        end = min(begin + length, record.most)
        kept = buffer[: entries * (end - begin)].view(2, members, batch, end - begin, stages, m).zero_()
        adaptive.again[tiles, members, triton.cdiv(end - begin, adaptive.EVERY)](
            record.checkpoints, v_left, v_right, dense, table, *taken, kept, batch, v_left.shape[2], _shift(problem), room,
            begin, end, **settings,
        )  # fmt: skip
        y, g_z = kept
        adaptive.backward[tiles, members](
            g, carry, g_drive, dense, adjoint, g_states, *taken, g_z, batch, intervals, room, begin, end, **settings
        )
        if wanted[0]:
            g_dense += g_z.flatten(1, 3).mT @ y.flatten(1, 3)
    of_inputs = input_gradients(problem, V, left, right, g_drive[0], g_drive[1], wanted[2] or wanted[3])
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
