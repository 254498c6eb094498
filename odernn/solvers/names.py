"""Solvers by name, in Python as on the command line."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..fields import VectorField
from ..paths import Path
from .adaptive import Adaptive
from .base import Solution, Solver
from .choice import automatic, choose_solver
from .exact import Exact
from .fused import Fused
from .torchdiffeq import METHODS, TorchDiffEq

# The relative deviation that 'auto' allows.
AUTO_TOLERANCE = 1e-5
# Sequences on which 'auto' compares solvers.
TRIAL_SEQUENCES = 8


@dataclass(frozen=True)
class Auto(Solver):
    """The cheapest solver that keeps to a tolerance on the first sequences of the input: `choose_solver`, anew for every solve.

    A training chooses at its start, and again where its weights have left the range that the choice holds for. A choice takes
    some tens of milliseconds: in a loop of your own choose once, by `chosen`.

    Args:
        tolerance: deviation from a tight solve that is allowed, relative.

    Example:
        >>> import torch
        >>> from odernn import Auto, ContinuousRNN
        >>> model = ContinuousRNN(1, 4, 1, seed=0)
        >>> model(torch.ones(2, 11, 1), torch.linspace(0, 1, 11), solver=Auto(1e-4)).shape
        torch.Size([2, 11, 1])
    """

    tolerance: float = AUTO_TOLERANCE

    lean = True

    @property
    def order(self) -> float:
        """No order: it is that of the choice."""
        return float("nan")

    def chosen(self, field: VectorField, path: Path, t: Tensor, h0: Tensor) -> Solver:
        """The choice for such a solve; errors of `choose_solver`."""
        if h0.shape[-2] == 0:
            return automatic(field)
        few = path.mapped(lambda x: x[..., :TRIAL_SEQUENCES, :, :].detach())
        return choose_solver(field.mapped(torch.Tensor.detach), few, t, h0[..., :TRIAL_SEQUENCES, :].detach(), self.tolerance)

    def solve(self, field: VectorField, path: Path, t: Tensor, h0: Tensor) -> Solution:
        return self.chosen(field, path, t, h0).solve(field, path, t, h0)


# As on the command line.
SOLVERS: dict[str, Solver] = {
    "auto": Auto(),
    "exact": Exact(),
    "fused": Fused(),
    "adaptive": Adaptive(),
    # scipy_solver runs outside of autograd.
    **{method: TorchDiffEq(method, adjoint=method == "scipy_solver") for method in METHODS},
}


def named(solver: Solver | str | None) -> Solver | None:
    """The solver of a name, with its default settings; a solver, or None, as it is.

    Raises:
        ValueError: none of these, with the names.
    """
    if solver is None or isinstance(solver, Solver):
        return solver
    if isinstance(solver, str) and solver in SOLVERS:
        return SOLVERS[solver]
    raise ValueError(f"solver is {solver!r}, expected a Solver such as Fused('rk4', substeps=2), or one of {', '.join(SOLVERS)}")


def own_default(solver: Solver | str | None) -> Solver | None:
    """As `named`, for what chooses its own steps where None is given, more accurate than 'auto': that is 'auto' there, too."""
    solver = named(solver)
    return None if isinstance(solver, Auto) else solver
