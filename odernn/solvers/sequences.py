"""Solves whose sequences have times of their own."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ..fields import VectorField
from ..paths import Path
from .base import Solution, Solver, check_arguments

# From so many solves in place of one on it is worth saying.
_MANY = 32
_said: list[bool] = []


def solve_sequences(solver: Solver, field: VectorField, path: Path, t: Tensor, h0: Tensor) -> Solution:
    """`solver.solve`, also for times (batch, time): those of each sequence, and of the path.

    A solver that does not take them solves all sequences that agree in their times at once, one such group after the other.

    Returns:
        The states; evaluations, steps and error of the group that has most.
    """
    if t.ndim == 1:
        return solver.solve(field, path, t, h0)
    check_arguments(field, path, t, h0)
    if solver.takes_own_times(field):
        return solver.solve(field, path, t, h0)
    _, group = torch.unique(t, dim=0, return_inverse=True)
    count = int(group.max()) + 1
    if count >= _MANY and not _said:
        _said.append(True)
        logging.getLogger("odernn").warning(
            "times of each sequence: %s solves %d groups of them one after the other; Fused takes them all at once",
            type(solver).__name__,
            count,
        )
    members = [(group == k).nonzero().flatten() for k in range(count)]
    found = [solver.solve(field, path.sequences(own), t[own[0]], h0.index_select(-2, own)) for own in members]
    h = torch.cat([solution.h for solution in found], -3).index_select(-3, torch.cat(members).argsort())

    def largest(name: str) -> int | float | None:
        values = [getattr(solution, name) for solution in found]
        return None if any(value is None for value in values) else max(values)

    failure = next((solution.failure for solution in found if solution.failure is not None), None)
    most = {name: largest(name) for name in ("evaluations", "error_estimate", "accepted", "rejected")}
    return Solution(t, h, failure=failure, **most)  # type: ignore[arg-type]
