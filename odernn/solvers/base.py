"""What a solver is, and what it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..fields import VectorField
from ..paths import Path


class DivergedSolve(ArithmeticError):
    """The state stopped being finite, or a step size underflowed."""


@dataclass(frozen=True)
class Solution:
    """h at the requested times, with what it cost.

    Args:
        t: (time,).
        h: (..., batch, time, state).
        evaluations: number of evaluations of the vector field (0 for a closed form).
    """

    t: Tensor
    h: Tensor
    evaluations: int


@dataclass(frozen=True)
class Solver(ABC):
    """A way to integrate dh/dt = F(h, x(t)); a value, free to share."""

    @abstractmethod
    def solve(self, field: VectorField, path: Path, t: Tensor, h0: Tensor) -> Solution:
        """h at times t from h(t[0]) = h0.

        Args:
            field: the vector field.
            path: the input, defined on all of [t[0], t[-1]].
            t: (time,), increasing.
            h0: (..., batch, state), with every leading axis of the weights.

        Raises:
            DivergedSolve: an adaptive step size underflowed. (A state that overflowed comes back as inf or nan:
                `check_finite` is the judge of that.)
            ValueError: a field that this solver does not support; names the remedy.
        """


def check_finite(solution: Solution, field: VectorField) -> None:
    """Raises DivergedSolve, with where and why, unless every state is finite."""
    h = solution.h.detach()
    if torch.isfinite(h.sum()):  # one pass, without temporaries the size of h; a sum that overflows needs the closer look
        return
    finite = torch.isfinite(h).flatten(0, -3).all(0).all(-1)  # (time,)
    if finite.all():
        return
    first = int((~finite).nonzero()[0])
    raise diverged(field, float(solution.t[first]), solution.h[..., max(first - 1, 0), :])


def diverged(field: VectorField, time: float, last_state: Tensor, reason: str = "the state is not finite") -> DivergedSolve:
    """The one message about a solve that failed, from the last state seen before."""
    with torch.no_grad():
        tensors_finite = all(torch.isfinite(tensor).all() for tensor in field.tensors)
        abscissa = f"{field.spectrum().real.max().item():.3g}" if tensors_finite else "unknown (weights are not finite)"
        norm = torch.linalg.vector_norm(last_state, dim=-1).max().item()
    return DivergedSolve(
        f"the solve diverged at t = {time:g} ({reason}; |h| = {norm:.3g} before, largest Re of the spectrum of W = "
        f"{abscissa}): lower the learning rate, take smaller steps (or 'exact' where it applies), or use a stable "
        "parameterization"
    )


def merged_grid(path: Path, t: Tensor) -> tuple[Path, Tensor, Tensor]:
    """The output times together with the breakpoints of the path between them.

    Returns:
        The path cut at that grid, the grid (K + 1,), and the positions of `t` in it (time,).
    """
    if path.times.shape == t.shape and torch.equal(path.times.to(t), t):  # the usual case, without a sort
        return path.on(t), t, torch.arange(t.numel(), device=t.device)
    inner = path.times[(path.times > t[0]) & (path.times < t[-1])].to(t)
    grid = torch.cat([t, inner]).unique()
    return path.on(grid), grid, torch.searchsorted(grid, t)
