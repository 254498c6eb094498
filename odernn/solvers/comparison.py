"""The comparison of an adaptive solve with small equal steps: its own estimates of the error of a step cannot tell where they
fail, and the errors of steps add up."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..fields import VectorField
from .base import Grid, Solver
from .fused import TABLEAUX, Fused
from .resolution import (
    NOTICEABLE_ERROR,
    NOTICEABLE_TOLERANCES,
    Judged,
    judged_sequences,
    relative_distance,
    warn_of_tolerance,
)

# So many times the evaluations that the solve took itself.
_FINER = (1, 4, 16)
# The smallest rtol of which they can tell.
_COMPARABLE = 1e-8


def compare_with_small_steps(solver: Solver, field: VectorField, x: Tensor, grid: Grid, h: Tensor, evaluations: int) -> None:
    """Warns where some sequences of a solve are off by more than `NOTICEABLE_TOLERANCES` from small equal steps in
    double precision, compiled. They begin with as many evaluations as the solve took, and become finer up to where they agree
    with it or settle; where the input is too stiff for either, there is no verdict.

    Args:
        solver: with tolerances.
        x: the input, as a view that says which.
        h: on the grid.
    """
    if solver.tolerances[0] < _COMPARABLE or not Fused().supports(field) or grid.times.numel() < 2:
        return
    judged = Judged(x, (solver, field.form, field.tau, field.activation), grid.times, (*field.tensors, h[..., 0, :]))
    memorable = torch.is_grad_enabled() and not x.is_inference()
    if memorable and judged.recall() is not None:
        return
    off, relative = _distance(solver, field, grid, h.detach(), evaluations)
    if memorable:
        judged.remember(NOTICEABLE_ERROR * off / NOTICEABLE_TOLERANCES)
    warn_of_tolerance(solver, off, relative)


@torch.no_grad()
def _distance(solver: Solver, field: VectorField, grid: Grid, h: Tensor, evaluations: int) -> tuple[float, float]:
    """In tolerances, and relative; 0 where there is no verdict."""
    precision = h.dtype
    sequences = judged_sequences(grid.path.start, grid.path.end, h[..., 0, :])

    def of_judged(tensor: Tensor, axis: int) -> Tensor:
        tensor = tensor.detach().to("cpu", torch.float64)
        return tensor if sequences is None else tensor.index_select(axis, sequences.cpu())

    times = grid.times.detach().cpu()
    inputs, h = replace(grid.path.mapped(lambda x: of_judged(x, -3)), times=times), of_judged(h, -3)
    precise = field.mapped(lambda tensor: tensor.detach().to("cpu", torch.float64))
    substeps = max(1, round(evaluations / (TABLEAUX["rk4"].stages * (times.numel() - 1))))
    # Each evaluation rounds once, which no tolerance can mend.
    rounding = torch.finfo(precision).eps * evaluations
    coarse = None
    for factor in _FINER:
        finer = Fused("rk4", factor * substeps, check=False).solve(precise, inputs, times, h[..., 0, :]).h
        off = _in_tolerances(solver, h, finer, rounding / NOTICEABLE_TOLERANCES)
        settled = coarse is not None and _in_tolerances(solver, finer, coarse) <= NOTICEABLE_TOLERANCES
        if off <= NOTICEABLE_TOLERANCES or settled:
            # Only a warning says the second.
            return off, relative_distance(h, finer) if off > NOTICEABLE_TOLERANCES else 0.0
        coarse = finer
    return 0.0, 0.0


def _in_tolerances(solver: Solver, h: Tensor, other: Tensor, rounding: float = 0.0) -> float:
    """The largest distance of a sequence, RMS over its times and states, in units of what a step may be off by."""
    rtol, atol = solver.tolerances
    entries = math.sqrt(h.shape[-2] * h.shape[-1])
    distance, size = (torch.linalg.vector_norm(value, dim=(-2, -1)) / entries for value in (h - other, h))
    return float((distance / (atol + (rtol + rounding) * size)).nan_to_num(0).max())
