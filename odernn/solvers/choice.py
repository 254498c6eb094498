"""The solver that `solver=None` and `--solver auto` stand for."""

from __future__ import annotations

from ..fields import VectorField
from .base import Solver
from .exact import Exact
from .torchdiffeq import TorchDiffEq


def automatic(field: VectorField) -> Solver:
    """`Exact` where the state equation is linear; else dopri5 with backpropagation through its steps, whose gradient is that of
    the computed solution."""
    return Exact() if Exact.supports(field) else TorchDiffEq("dopri5", adjoint=False)
